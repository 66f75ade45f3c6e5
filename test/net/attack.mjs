/**
 * Clients that misbehave at a control socket: node attack.mjs KIND SOCKET SEED. Goes on until its standard input ends. Prints `on` when it has reached its full
 * force; what it sends comes from SEED alone.
 */
import { connect } from 'node:net';

const [kind, path, seed] = process.argv.slice(2);
const REQUEST = 'GET /status HTTP/1.1\r\nHost: inlay\r\n';
/** Connections that are open at the same time, and how many in all are full force where they are short. */
const HELD = 400;
const PARALLEL = 50;
const CHURN = 3000;

/** mulberry32: a whole number below `below`. */
let state = Number(seed) >>> 0;
function random(below) {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % below;
}

const pick = (list) => list[random(list.length)];
const bytes = (length) => Buffer.from(Array.from({ length }, () => random(256)));
const text = (length) => bytes(length).toString('base64').slice(0, length);

/** One piece of garbage each: some of it is nearly a request. */
const GARBAGE = [
  () => bytes(1 + random(2000)),
  () => `GET /${text(random(100_000))} HTTP/1.1\r\nHost: inlay\r\n\r\n`,
  () => `${REQUEST}X: ${text(random(100_000))}\r\n\r\n`,
  () => REQUEST + `${text(1 + random(20))}: ${text(random(20))}\r\n`.repeat(random(5000)),
  () => `${REQUEST}\r\n`.repeat(1 + random(1000)),
  () => `${REQUEST}\r\n`.slice(0, random(40)),
  () => `${REQUEST}Content-Length: ${pick(['-1', '0', '99999999999999999999', text(5)])}\r\n\r\n${text(random(500))}`,
  () => `${REQUEST}Transfer-Encoding: ${pick(['chunked', 'gzip', 'chunked, chunked'])}\r\n\r\n${text(random(500))}`,
  () => `${REQUEST}Connection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n${text(random(100))}`,
  () =>
    `${pick(['CONNECT', 'HEAD', 'POST', 'PRI', 'get', ''])} ${pick(['*', '/status', '//', text(9)])} HTTP/${pick(['1.0', '1.1', '2.0', '9'])}\r\n\r\n`,
  () => {
    const damaged = Buffer.from(`${REQUEST}\r\n`);
    for (let i = 1 + random(3); i > 0; i--) damaged[random(damaged.length)] = random(256);
    return damaged;
  },
];

/** What a client of this kind does with its connection, and whether its end is the client's business or ours. */
const KINDS = {
  garbage: (socket) => {
    socket.resume().write(pick(GARBAGE)());
    if (random(2) === 0) socket.end();
    else setTimeout(() => socket.destroy(), random(50));
  },
  churn: (socket) => socket.resume().write(`${REQUEST}\r\n`),
  idle: (socket) => socket.resume(),
  slow: (socket) => {
    const line = `${REQUEST}X: ${'x'.repeat(10_000)}`;
    let at = 0;
    const timer = setInterval(() => socket.write(line[at++]), 100);
    socket.resume().once('close', () => clearInterval(timer));
  },
  deaf: (socket) => socket.pause().write(`${REQUEST}\r\n`),
};
const isShort = kind === 'garbage' || kind === 'churn';

let begun = 0;
function client() {
  const socket = connect(path);
  socket.on('error', () => {}); // It is sent away: that is the point.
  socket.once('connect', () => KINDS[kind](socket));
  // Another one takes its place, whoever closed it.
  socket.once('close', () => setTimeout(client, isShort ? 0 : 100));
  if (++begun === (isShort ? CHURN : HELD)) process.stdout.write('on\n');
}

for (let i = 0; i < (isShort ? PARALLEL : HELD); i++) client();
process.stdin.resume().once('end', () => process.exit());

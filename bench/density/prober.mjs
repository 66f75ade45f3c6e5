/**
 * A process in a container of another VM that pings and connects. It is told by messages what to do.
 */
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import koffi from 'koffi';
import * as native from '../../dist/linux/native.js';
import { obey } from './commands.mjs';
import { PORT } from './namespaces.mjs';

const sendto = koffi
  .load(null)
  .func('intptr_t sendto(int fd, void *data, size_t size, int flags, void *to, unsigned int length)');
/** Packets a second, and ms that the last answers may take. */
const [RATE, LATEST] = [4000, 2000];
/** ms between two looks. */
const TICK = 2;
/** Connections at a time, and ms that one may take. */
const [LANES, TIMEOUT] = [64, 10_000];
const [ECHO_REQUEST, ECHO_REPLY] = [8, 0];
const ICMP_SIZE = 8 + 4;
const RECEIVE_BUFFER = 8 << 20;

const type = native.SOCK_RAW | native.SOCK_NONBLOCK | native.SOCK_CLOEXEC;
const fd = native.must(native.socket(native.AF_INET, type, native.IPPROTO_ICMP), 'socket', 'of ICMP');
native.setsockopt(fd, native.SOL_SOCKET, native.SO_RCVBUFFORCE, native.int(RECEIVE_BUFFER), 4);
const buffer = Buffer.alloc(2048);
const pointer = native.pointer(buffer);

/** Waits for answers, by the number that each packet carries. */
const waiting = new Map();
let last = 0;

function ping(address, done) {
  const number = ++last >>> 0;
  const packet = Buffer.alloc(ICMP_SIZE);
  packet[0] = ECHO_REQUEST;
  packet.writeUInt16BE(process.pid & 0xffff, 4);
  packet.writeUInt32BE(number, 8);
  packet.writeUInt16BE(checksum(packet), 2);
  const to = Buffer.alloc(16); // struct sockaddr_in (ip(7)).
  to.set([native.AF_INET, 0, 0, 0, ...address.split('.').map(Number)]);
  waiting.set(number, done);
  sendto(fd, packet, packet.length, 0, to, to.length);
  return number;
}

/** RFC 1071. */
function checksum(packet) {
  let sum = 0;
  for (let i = 0; i < packet.length; i += 2) sum += packet.readUInt16BE(i);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

function receive() {
  for (;;) {
    const length = native.read(fd, pointer, buffer.length);
    if (length < 0) return;
    const at = (buffer[0] & 15) * 4;
    if (length < at + ICMP_SIZE || buffer[at] !== ECHO_REPLY) continue;
    if (buffer.readUInt16BE(at + 4) !== (process.pid & 0xffff)) continue;
    const number = buffer.readUInt32BE(at + 8);
    waiting.get(number)?.();
    waiting.delete(number);
  }
}

/** Pings each once; tells those that did not answer. */
async function pingAll({ addresses }) {
  const missing = new Set(addresses);
  const start = performance.now();
  for (let i = 0; i < addresses.length; ) {
    const due = Math.min(addresses.length, ((performance.now() - start) / 1000) * RATE + 1);
    for (; i < due; i++) {
      const address = addresses[i];
      ping(address, () => missing.delete(address));
    }
    receive();
    await sleep(TICK);
  }
  for (const end = performance.now() + LATEST; missing.size > 0 && performance.now() < end; await sleep(TICK))
    receive();
  waiting.clear();
  return [...missing];
}

/** Connects to each; tells those that did not say their address. */
async function connectAll({ addresses }) {
  const missing = [];
  let next = 0;
  const lane = async () => {
    while (next < addresses.length) {
      const address = addresses[next++];
      if ((await greeting(address)) !== address) missing.push(address);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return missing;
}

function greeting(host) {
  return new Promise((resolve) => {
    let text = '';
    const socket = net.connect({ host, port: PORT });
    socket.setTimeout(TIMEOUT, () => socket.destroy());
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}

let pulse;

/** Pings one after the other, so many a second, until `stop`. */
function start({ addresses, rate }) {
  pulse = { sent: 0, answered: 0, isOver: false };
  const current = pulse;
  const begin = performance.now();
  const beat = async () => {
    while (!current.isOver) {
      for (const due = ((performance.now() - begin) / 1000) * rate; current.sent < due; current.sent++)
        ping(addresses[current.sent % addresses.length], () => {
          current.answered++;
        });
      receive();
      await sleep(TICK);
    }
  };
  current.done = beat();
}

async function stop() {
  pulse.isOver = true;
  await pulse.done;
  for (const end = performance.now() + LATEST; waiting.size > 0 && performance.now() < end; await sleep(TICK))
    receive();
  waiting.clear();
  return { sent: pulse.sent, lost: pulse.sent - pulse.answered };
}

obey({ pingAll, connectAll, start, stop });

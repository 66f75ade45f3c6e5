/** The control socket by itself: who gets an answer, and which connections have to go. */
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import { ask } from '../src/daemon/control.ts';
import { Answer, ATTACH, ControlServer } from '../src/daemon/control-server.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-control-'));
const socketPath = path.join(folder, 'control.sock');
const BIG = 8 << 20;

let asked = 0;
const umask = process.umask(0);
const server = await ControlServer.listen(folder, {
  status: async () => ++asked,
  big: async () => 'x'.repeat(BIG),
  broken: async () => {
    throw new Error('no');
  },
});
/** What becomes of a client that goes before it is answered. */
const slow = new EventEmitter();
const attach = await ControlServer.listen(
  folder,
  {
    echo: async (body) => body,
    refused: async () => new Answer(400, 'no'),
    slow: (_, signal) => {
      signal.addEventListener('abort', () => slow.emit('gone'));
      slow.emit('asked');
      return new Promise(() => {});
    },
  },
  ATTACH,
);
const attachPath = path.join(folder, ATTACH.name);
const modes = [socketPath, attachPath].map((each) => (statSync(each).mode & 0o777).toString(8));
process.umask(umask);

let open: Socket[] = [];
afterEach(() => {
  for (const socket of open) socket.destroy();
  open = [];
});
afterAll(async () => {
  await Promise.all([server, attach].map((each) => each.close()));
  rmSync(folder, { recursive: true });
});

/** A connected client that has sent `text`, and does not read. */
async function client(text = '', at = socketPath): Promise<Socket> {
  const socket = connect(at).pause();
  socket.on('error', () => {});
  open.push(socket);
  await once(socket, 'connect');
  if (text !== '') socket.write(text);
  return socket;
}

/** All that comes until the server closes the connection. */
async function read(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('latin1').on('data', (chunk) => {
    text += chunk;
  });
  // Not events.once(), which throws for an error: a client that writes on after the end gets one, and its answer is what matters.
  await new Promise((resolve) => socket.resume().once('close', resolve));
  return text;
}

const GET = (name: string) => `GET /${name} HTTP/1.1\r\nHost: inlay\r\n\r\n`;

const POST = (name: string, body: string, length = body.length) =>
  `POST /${name} HTTP/1.1\r\nHost: inlay\r\nContent-Length: ${length}\r\n\r\n${body}`;

test('one socket is for its user and group, the other for its user, whatever the umask', () => {
  expect(modes).toEqual(['660', '600']);
});

test.each([
  ['a name', GET('status'), 200, /^\d+\n$/],
  ['another name', GET('toString'), 404, /expected GET \/status or \/big or \/broken/],
  ['another method', GET('status').replace('GET', 'POST'), 404, /expected GET/],
  ['a route that fails', GET('broken'), 500, /Error: no/],
  // No longer than what the server reads at once: else it closes with bytes unread, and the client may get a reset for an answer.
  ['a header that is too long', `GET / HTTP/1.1\r\nX: ${'x'.repeat(30_000)}`, 431, /^$/],
  ['garbage', 'garbage\r\n\r\n', 400, /^$/],
])('%s', async (_, text, code, body) => {
  const [head, rest] = (await read(await client(text))).split('\r\n\r\n');
  expect(head).toMatch(new RegExp(`^HTTP/1.1 ${code} [^]*connection: close`, 'i'));
  expect(rest).toMatch(body);
});

test.each([
  ['what came with it', POST('echo', 'a=b'), 200, '"a=b"\n'],
  ['an answer of its own', POST('refused', ''), 400, 'no'],
  ['GET', GET('echo'), 404, '{"error":"expected POST /echo or /refused or /slow"}\n'],
  ['too much', POST('echo', 'x'.repeat(9 << 20)), 413, '{"error":"expected at most 8388608 bytes"}\n'],
])('of whoever attaches: %s', async (_, text, code, body) => {
  const [head, rest] = (await read(await client(text, attachPath))).split('\r\n\r\n');
  expect(head).toMatch(new RegExp(`^HTTP/1.1 ${code} `));
  expect(rest).toBe(body);
});

test('a request that does not come whole is none, and a route hears of a client that goes', async () => {
  const partial = await client(POST('echo', 'a', 2), attachPath);
  partial.end();
  expect(await read(partial)).not.toContain('"a"');
  const [asked, gone] = [once(slow, 'asked'), once(slow, 'gone')];
  const impatient = await client(POST('slow', ''), attachPath);
  await asked;
  impatient.destroy();
  await gone;
});

test('one request for each connection: those behind it are not looked at', async () => {
  const before = asked;
  for (const text of [GET('status').repeat(500), GET('status').replace('/1.1', '/1.0').repeat(500)]) {
    expect((await read(await client(text))).match(/^HTTP/gm)).toHaveLength(1);
  }
  expect(asked - before).toBe(2);
});

test('a connection without a request ends by itself', async () => {
  const [silent, slow] = [await client(), await client('GET /status HTTP/1.1\r\nX: ')];
  const timer = setInterval(() => slow.write('x'), 100);
  expect(await Promise.all([silent, slow].map(read))).toEqual(['', '']);
  clearInterval(timer);
});

test('the oldest of too many connections make room', async () => {
  for (let i = 0; i < 300; i++) await client();
  const [oldest, newest] = [open[0] as Socket, open.at(-1) as Socket];
  await read(oldest);
  expect(await ask(folder, 'status')).toBe(asked);
  expect(newest.write(GET('status'))).toBe(true);
  expect(await read(newest)).toMatch(/^HTTP\/1.1 200/);
});

test('answers that are not read do not pile up', async () => {
  for (let i = 0; i < 20; i++) {
    await client(GET('big'));
    expect(await ask(folder, 'status')).toBe(asked);
  }
  expect(await ask<string>(folder, 'big')).toHaveLength(BIG);
  // 64 MiB may wait: of older ones the client gets what it had been sent by then.
  const lengths = await Promise.all(open.map(async (socket) => (await read(socket)).length));
  expect(lengths.filter((length) => length > BIG).length).toBeLessThanOrEqual(8);
});

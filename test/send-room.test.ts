/** When messages to VMs never heard from are held back: on a socket whose packets wait until they are read. */
import koffi from 'koffi';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SendRoom } from '../src/dataplane/wasm/linux/send-room.ts';
import * as native from '../src/linux/native.ts';

const socketpair = koffi.load(null).func('int socketpair(int domain, int type, int protocol, _Out_ int *fds)');

/** Bytes that the socket's buffer has, and that a packet takes at least: five are not yet a quarter of it, ten are more. */
const [SIZE, PACKET] = [1 << 18, 7000];
const READ = new Uint8Array(PACKET);

let [from, to] = [-1, -1];
let room: SendRoom;

beforeEach(() => {
  const fds = [-1, -1];
  native.must(
    socketpair(native.AF_UNIX, native.SOCK_DGRAM | native.SOCK_CLOEXEC, 0, fds),
    'socketpair',
    'of datagrams',
  );
  [from, to] = fds as [number, number];
  // The kernel doubles it (socket(7)).
  const size = native.int(SIZE / 2);
  native.must(native.setsockopt(from, native.SOL_SOCKET, native.SO_SNDBUF, size, 4), 'setsockopt', 'SO_SNDBUF');
  room = new SendRoom(from);
});
afterEach(() => {
  for (const fd of [from, to]) native.close(fd);
});

function send(count: number): void {
  for (let n = 0; n < count; n++) expect(native.send(from, READ, PACKET, native.MSG_DONTWAIT)).toBe(PACKET);
}

function receive(count: number): void {
  for (let n = 0; n < count; n++) expect(native.read(to, native.pointer(READ), PACKET)).toBe(PACKET);
}

test('a quarter of the buffer', () => {
  send(5);
  expect(room.has(100, 0)).toBe(true);
  send(5);
  expect(room.has(100, 5)).toBe(false);
  receive(8);
  expect(room.has(100, 10)).toBe(true);
});

test('it is looked at only so often', () => {
  expect(room.has(100, 0)).toBe(true);
  send(10);
  expect(room.has(100, 4.9)).toBe(true);
  expect(room.has(100, 5)).toBe(false);
  receive(10);
  expect(room.has(100, 9.9)).toBe(false);
  expect(room.has(100, 10)).toBe(true);
});

test('much that is sent has it looked at earlier', () => {
  expect(room.has(SIZE / 16, 0)).toBe(true);
  send(10);
  expect(room.has(1, 0)).toBe(true);
  expect(room.has(1, 0)).toBe(false);
});

/** Descriptors that are waited for: however many there are, one thread waits, and files have theirs. */
import { readFile } from 'node:fs/promises';
import { afterEach, expect, test } from 'vitest';
import * as native from '../src/linux/native.ts';
import { endWait, onReadable } from '../src/linux/readable.ts';

/** More than Node's pool has threads. */
const MANY = 8;
let open: number[] = [];
const eventfd = () => {
  const fd = native.must(native.eventfd(0, native.O_CLOEXEC), 'eventfd', 'for a test');
  open.push(fd);
  return fd;
};
const write = (fd: number) => native.write(fd, BigUint64Array.of(1n), 8);
const end = (fd: number) => new Promise<void>((resolve) => endWait(fd, resolve));

afterEach(() => {
  for (const fd of open) native.close(fd);
  open = [];
});

test('each is called once, when there is something to read', async () => {
  const fds = Array.from({ length: MANY }, eventfd);
  const called: number[] = [];
  for (const [i, fd] of fds.entries()) onReadable(fd, () => called.push(i));
  expect((await readFile(new URL(import.meta.url))).length).toBeGreaterThan(0);
  for (const i of [5, 2]) {
    write(fds[i] as number);
    await expect.poll(() => called.at(-1)).toBe(i);
  }
  expect(called).toEqual([5, 2]);
  // What was read is waited for no more; who asks again is called again, for what is still there.
  onReadable(fds[2] as number, () => called.push(2));
  await expect.poll(() => called).toEqual([5, 2, 2]);
  await Promise.all(fds.map(end));
});

test('one may be added, and another given up, while a thread waits, and while one is called', async () => {
  const [a, b, c] = [eventfd(), eventfd(), eventfd()];
  const called: string[] = [];
  onReadable(a, () => {
    called.push('a');
    onReadable(c, () => called.push('c'));
    endWait(b, () => called.push('b has ended'));
  });
  onReadable(b, () => called.push('b'));
  write(a);
  await expect.poll(() => called).toEqual(['a', 'b has ended']);
  for (const fd of [b, c]) write(fd);
  await expect.poll(() => called).toEqual(['a', 'b has ended', 'c']);
});

/** A file that several processes append to: under a lock, whole or not at all. */
import { closeSync, fstatSync, ftruncateSync, lstatSync } from 'node:fs';
import * as native from '../linux/native.ts';
import { APPEND, isSameFile, openOwn, readOwn } from '../linux/own-file.ts';
import { pause } from '../linux/pause.ts';
import { SystemError } from '../linux/system-error.ts';
import { writeAll } from '../linux/whole.ts';

/**
 * How often a process tries to get the lock, and ms in between. It gives up then: the process that has the
 * lock may be stopped (SIGSTOP).
 */
const TRIES = 100;
const PAUSE = 2;

/** Bytes of a file; 0 if there is none. */
export function sizeOf(file: string): number {
  return lstatSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/**
 * Appends a text, which may depend on whether the file is empty. Throws if it cannot be written whole, and
 * then leaves the file as it was.
 */
export function appendWhole(file: string, text: (isEmpty: boolean) => string): void {
  withLock(file, (fd) => {
    const { size } = fstatSync(fd);
    try {
      writeAll(fd, text(size === 0));
    } catch (error) {
      ftruncateSync(fd, size);
      throw error;
    }
  });
}

/** Does `work` with the file's text while no other process changes the file; `work` may replace it. */
export function withLockedFile(file: string, work: (text: string) => void): void {
  withLock(file, () => work(readOwn(file)?.toString() ?? ''));
}

/**
 * Opens the file, makes it if it is missing, and locks it. If another process replaced the file before this
 * one had the lock, it starts over with the new file.
 */
function withLock(file: string, work: (fd: number) => void): void {
  for (;;) {
    const fd = openOwn(file, APPEND);
    try {
      lock(fd, file);
      if (!isSameFile(fd, file)) continue;
      work(fd);
      return;
    } finally {
      closeSync(fd);
    }
  }
}

function lock(fd: number, file: string): void {
  for (let i = 0; native.flock(fd, native.LOCK_EX | native.LOCK_NB) < 0; i++) {
    const errno = native.errno();
    if (errno !== native.EAGAIN || i === TRIES) throw new SystemError('flock', errno, file);
    pause(PAUSE);
  }
}

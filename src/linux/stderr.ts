/** Writing to stderr without ever waiting for whoever reads it. */
import { fstatSync, type Stats } from 'node:fs';
import * as native from './native.ts';

const STDERR = 2;
/**
 * Bytes that a pipe takes whole or not at all (PIPE_BUF, pipe(7)); where poll(2) says POLLOUT, there is room
 * for them.
 */
const PIPE_BUF = 4096;

/**
 * Writes what can be written now. Returns the number of bytes, 0 if there is no room, or the error number,
 * negative.
 */
export type Write = (bytes: Uint8Array) => number;

/** How to write to stderr, which is a socket, a pipe, a terminal or a file. */
export function openStderr(): Write {
  const stats = statsOf(STDERR);
  if (stats?.isSocket()) return (bytes) => result(native.send(STDERR, bytes, bytes.length, FLAGS));
  // Nothing makes a write to a file return before it is done.
  if (!stats?.isFIFO() && !stats?.isCharacterDevice())
    return (bytes) => result(native.write(STDERR, bytes, bytes.length));
  const own = reopen();
  return own < 0 ? writeAfterPoll : (bytes) => result(native.write(own, bytes, bytes.length));
}

const FLAGS = native.MSG_DONTWAIT | native.MSG_NOSIGNAL;

/**
 * A description of our own for the same pipe or terminal. That of stderr is shared with others, such as a
 * shell, for whom it has to stay as it is.
 */
function reopen(): number {
  const flags = native.O_WRONLY | native.O_NONBLOCK | native.O_NOCTTY | native.O_CLOEXEC;
  return native.open(`/proc/self/fd/${STDERR}`, flags);
}

/**
 * For a pipe that another user made, or without /proc. If others write to it at the same moment, a write may
 * have to wait all the same.
 */
function writeAfterPoll(bytes: Uint8Array): number {
  let written = 0;
  while (written < bytes.length) {
    // struct pollfd (poll(2)): descriptor, events, returned events.
    const ready = native.poll(native.pointer(POLL), 1, 0);
    if (ready <= 0) return written > 0 ? written : result(ready);
    const part = bytes.subarray(written, written + PIPE_BUF);
    const length = result(native.write(STDERR, part, part.length));
    if (length <= 0) return written > 0 ? written : length;
    written += length;
  }
  return written;
}

const POLL = Int32Array.of(STDERR, native.POLLOUT);

function result(length: number): number {
  if (length >= 0) return length;
  const errno = native.errno();
  return errno === native.EAGAIN || errno === native.EINTR ? 0 : -errno;
}

function statsOf(fd: number): Stats | undefined {
  try {
    return fstatSync(fd);
  } catch {
    return undefined; // It is closed.
  }
}

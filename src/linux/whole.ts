/**
 * All of an open file or pipe, read or written at once, also where it does not wait by itself (O_NONBLOCK, from
 * whoever made it). The system's own errors stay as they are.
 */
import { readSync, writeSync } from 'node:fs';
import { errorCode } from '../errors.ts';
import { pause } from './pause.ts';

/** Bytes that are asked for at once: as much as a pipe has. */
const CHUNK = 65536;
/** ms until it is tried again. */
const RETRY = 1;

/** What comes to its end; of what is longer, more than the `longest` that is wanted, but not all. */
export function readAll(fd: number, longest: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length <= longest) {
    const chunk = new Uint8Array(CHUNK);
    const count = again(() => readSync(fd, chunk));
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    length += count;
  }
  return Buffer.concat(chunks);
}

/** Writes until all is written. A full disk takes a part at first, and fails only the next write. */
export function writeAll(fd: number, content: string | Uint8Array): void {
  const bytes = Buffer.from(content as Uint8Array);
  for (let at = 0; at < bytes.length; ) at += again(() => writeSync(fd, bytes, at));
}

function again(call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (errorCode(error) !== 'EAGAIN') throw error;
      pause(RETRY);
    }
  }
}

/** Lines on their way to a log that may be full, slow or gone. Nothing here waits, and nothing grows without bound. */

import { EMSGSIZE } from './linux/native.ts';
import { pause } from './linux/pause.ts';
import type { Write } from './linux/stderr.ts';

/** Bytes of lines that wait, at most. */
const MAX_WAITING = 256 << 10;
/** ms until what waits is tried again: the first time, and at most. */
const FIRST_PAUSE = 20;
const LONGEST_PAUSE = 1000;
/** ms that the end of the process waits for the log, and between two tries then. */
const LAST_CHANCE = 200;
const LAST_PAUSE = 5;

export class LogQueue {
  readonly #write: Write;
  /** Makes the line that says how many were left out. */
  readonly #leftOutLine: (count: number) => string;
  /** The first may be what is left of a line. */
  readonly #lines: Uint8Array[] = [];
  #waiting = 0;
  /** Lines that came after all that waits, and found no room. */
  #leftOut = 0;
  #pause = FIRST_PAUSE;
  #timer: NodeJS.Timeout | undefined;

  constructor(write: Write, leftOutLine: (count: number) => string) {
    this.#write = write;
    this.#leftOutLine = leftOutLine;
  }

  /** Writes a line, or has it wait for those before it. */
  write(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#leftOut > 0 || this.#waiting + bytes.length > MAX_WAITING) this.#leftOut++;
    else this.#push(bytes);
    // With a timer, the log did not take a line of late: it is not asked again for each.
    if (!this.#timer) this.#tryAll();
  }

  /** Waits for the log, but not for long: the process ends. */
  flush(): void {
    for (let left = LAST_CHANCE; !this.#drain() && left > 0; left -= LAST_PAUSE) pause(LAST_PAUSE);
  }

  #push(bytes: Uint8Array): void {
    this.#lines.push(bytes);
    this.#waiting += bytes.length;
  }

  #tryAll(): void {
    if (this.#drain()) {
      this.#pause = FIRST_PAUSE;
      return;
    }
    // It does not keep the process from ending.
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#tryAll();
    }, this.#pause).unref();
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
  }

  /** Writes what the log takes now; returns whether that was all. */
  #drain(): boolean {
    for (;;) {
      while (this.#lines[0]) if (!this.#writeFirst(this.#lines[0])) return false;
      if (this.#leftOut === 0) return true;
      // All that came before those is written.
      this.#push(Buffer.from(this.#leftOutLine(this.#leftOut)));
      this.#leftOut = 0;
    }
  }

  #writeFirst(line: Uint8Array): boolean {
    const written = this.#write(line);
    if (written < 0 && written !== -EMSGSIZE) return false; // As on a full disk: it may be over some day.
    if (written < 0) this.#leftOut++; // Too long for a datagram, now and ever.
    const done = written < 0 ? line.length : written;
    this.#waiting -= done;
    if (done === line.length) this.#lines.shift();
    else this.#lines[0] = line.subarray(done);
    return done === line.length;
  }
}

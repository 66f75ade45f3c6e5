/** A pause between two tries of a system call, in which nothing else may happen. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** Puts this thread to sleep for so many ms. */
export function pause(ms: number): void {
  Atomics.wait(NEVER, 0, 0, ms);
}

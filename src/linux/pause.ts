/** Waiting where nothing else may happen meanwhile: between two tries of a system call. */
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** Others have the processor for so many ms; this thread does nothing. */
export function pause(ms: number): void {
  Atomics.wait(NEVER, 0, 0, ms);
}

/** Times: calls bring them in ms, as any number; memory has some of them in seconds. */
import { loadI32, type Memory } from './bytes.ts';

/** Times from here on would not fit 32 bits as seconds, ms. */
const TIME_END = 4e12;

/** A time in ms, in whole seconds; 0 if it is none. */
export function inSeconds(now: number): number {
  return now >= 0 && now < TIME_END ? Math.floor(now / 1000) : 0;
}

/** The time at `p`, in seconds. */
export function until(memory: Memory, p: number): number {
  return loadI32(memory, p) >>> 0;
}

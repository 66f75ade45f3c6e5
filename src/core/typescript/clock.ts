/** Times: calls bring them in ms, as any number; memory has some of them in seconds. */

/** Times from here on, in ms, would not fit 32 bits as seconds. */
const CLOCK_END = 4e12;

/** A time in ms, in whole seconds; 0 if it is none. */
export function seconds(now: number): number {
  return now >= 0 && now < CLOCK_END ? Math.floor(now / 1000) : 0;
}

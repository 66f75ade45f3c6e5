/** Times: calls bring them in ms, as any number; memory has some of them in seconds. */

/** Past it, in ms, seconds would not fit 32 bits. */
const CLOCK_END: f64 = 4e12;

/** A time in ms, in whole seconds; 0 if it is none. */
export function seconds(now: f64): u32 {
  return now >= 0 && now < CLOCK_END ? <u32>(now / 1000) : 0;
}

/** Counters of one direction; each packet that was received is either forwarded or dropped for one reason. */
import { COUNTERS_BYTES, COUNTERS_DROPS, COUNTERS_FORWARDED, COUNTERS_RECEIVED, FORWARD } from '../src/core/abi';

/** Adds `amount` to the f64 at `p`. */
export function add(p: usize, amount: f64): void {
  store<f64>(p, load<f64>(p) + amount);
}

/** Counts one packet by its result: the length of its inner packet in bytes, or the drop reason. */
export function count(counters: usize, result: i32): void {
  add(counters + COUNTERS_RECEIVED, 1);
  if (result >= FORWARD) {
    add(counters + COUNTERS_FORWARDED, 1);
    add(counters + COUNTERS_BYTES, <f64>result);
  } else {
    add(counters + COUNTERS_DROPS - 8 * result, 1);
  }
}

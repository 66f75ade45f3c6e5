/** What each direction counts: `received = forwarded + drops`, in packets as they are on the wire. */
import {
  COUNTERS_BYTES,
  COUNTERS_DROPS,
  COUNTERS_FORWARDED,
  COUNTERS_RECEIVED,
  DROP_NOT_WRITTEN,
} from '../src/core/abi';
import { addF64 } from './bytes';

/** Counts `packets` that go on, `bytes` long together. */
export function countForwarded(counters: usize, packets: i32, bytes: i32): void {
  addF64(counters + COUNTERS_RECEIVED, <f64>packets);
  addF64(counters + COUNTERS_FORWARDED, <f64>packets);
  addF64(counters + COUNTERS_BYTES, <f64>bytes);
}

/** Counts one packet that is dropped; answers the reason. */
export function countDropped(counters: usize, reason: i32): i32 {
  addF64(counters + COUNTERS_RECEIVED, 1);
  addF64(counters + COUNTERS_DROPS - 8 * reason, 1);
  return reason;
}

/** Counts `packets` that were to go on, `bytes` long together, as not written. */
export function countUnwritten(counters: usize, packets: i32, bytes: i32): void {
  addF64(counters + COUNTERS_FORWARDED, -(<f64>packets));
  addF64(counters + COUNTERS_BYTES, -(<f64>bytes));
  addF64(counters + COUNTERS_DROPS - 8 * DROP_NOT_WRITTEN, <f64>packets);
}

/** What each direction counts, in packets as they are on the wire (docs/abi.md). */
import * as abi from '../abi.ts';
import { addF64, type Memory } from './bytes.ts';

/** Counts packets that go on, and their bytes, in the direction that `counters`, a place in memory, stands for. */
export function countForwarded(memory: Memory, counters: number, packets: number, bytes: number): void {
  addF64(memory, counters + abi.COUNTERS_RECEIVED, packets);
  addF64(memory, counters + abi.COUNTERS_FORWARDED, packets);
  addF64(memory, counters + abi.COUNTERS_BYTES, bytes);
}

/** Counts one packet as dropped for `reason`, which is negative, and returns the reason. */
export function countDropped(memory: Memory, counters: number, reason: number): number {
  addF64(memory, counters + abi.COUNTERS_RECEIVED, 1);
  addF64(memory, counters + abi.COUNTERS_DROPS - 8 * reason, 1);
  return reason;
}

/** Counts packets that were counted as going on, and their bytes, as not written. */
export function countUnwritten(memory: Memory, counters: number, packets: number, bytes: number): void {
  addF64(memory, counters + abi.COUNTERS_FORWARDED, -packets);
  addF64(memory, counters + abi.COUNTERS_BYTES, -bytes);
  addF64(memory, counters + abi.COUNTERS_DROPS - 8 * abi.DROP_NOT_WRITTEN, packets);
}

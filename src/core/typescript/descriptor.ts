/** Packet descriptors and verdicts: where a packet is, what became of it, and the counters that tell (docs/abi.md). */
import * as abi from '../abi.ts';
import { addF64, type Memory, storeI32 } from './bytes.ts';

/** What handling a descriptor returns if the message table has no room for it: no verdict, and nothing has changed. */
export const NO_ROOM = 1;

/** A packet, or the virtio header before it, begins here at the earliest: outer headers take less than what lies before. */
const FIRST_ADDRESS = abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE;

/** Whether a packet lies in the slots behind the first headroom. Numbers of 2^31 and more are negative here: outside. */
export function isInside(address: number, length: number): boolean {
  return address >= FIRST_ADDRESS && length >= 0 && address <= abi.MEMORY_SIZE - length;
}

/** Writes the verdict into the descriptor. */
export function decide(memory: Memory, descriptor: number, verdict: number): void {
  storeI32(memory, descriptor + abi.DESCRIPTOR_VERDICT, verdict);
}

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

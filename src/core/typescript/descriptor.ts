/** Packet descriptors: where a packet is, and what became of it (docs/abi.md). */
import * as abi from '../abi.ts';
import { type Memory, storeI32 } from './bytes.ts';

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

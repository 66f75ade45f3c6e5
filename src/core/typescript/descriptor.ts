/** Packet descriptors: where a packet is, how long it is, what became of it, and the remote VM (docs/abi.md). */
import * as abi from '../abi.ts';
import { type Memory, putI32, storeI32 } from './bytes.ts';

/** Whether a packet lies in the slots behind the first headroom. Numbers of 2^31 and more are negative here: outside. */
export function isInside(address: number, length: number): boolean {
  return address >= abi.SLOTS + abi.HEADROOM && length >= 0 && address <= abi.MEMORY_SIZE - length;
}

/** Says in the descriptor what to send on. */
export function describe(memory: Memory, descriptor: number, address: number, length: number, vm: number): void {
  storeI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS, address);
  storeI32(memory, descriptor + abi.DESCRIPTOR_LENGTH, length);
  putI32(memory, descriptor + abi.DESCRIPTOR_PEER, vm);
}

/** Packet descriptors: where a packet is, how long it is, what became of it, and the remote VM. */
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_PEER,
  DESCRIPTOR_SIZE,
  DESCRIPTOR_VERDICT,
  DESCRIPTORS,
  HEADROOM,
  MEMORY_SIZE,
  SLOTS,
} from '../src/core/abi';
import { putU32 } from './bytes';

export function descriptor(index: i32): usize {
  return <usize>(DESCRIPTORS + index * DESCRIPTOR_SIZE);
}

export function address(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_ADDRESS);
}

/** Length of the packet in bytes. */
export function bytes(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_LENGTH);
}

/** True if the packet lies among the slots and has its headroom: without this a host's mistake would be a trap. */
export function isInside(d: usize): bool {
  if (address(d) < <u32>(SLOTS + HEADROOM) || address(d) > <u32>MEMORY_SIZE) return false;
  return bytes(d) <= <u32>MEMORY_SIZE - address(d);
}

export function setVerdict(d: usize, verdict: i32): void {
  store<i32>(d + DESCRIPTOR_VERDICT, verdict);
}

/** Points the descriptor to what is to be sent on. */
export function describe(d: usize, p: usize, length: i32, vm: u32): void {
  store<u32>(d + DESCRIPTOR_ADDRESS, <u32>p);
  store<u32>(d + DESCRIPTOR_LENGTH, <u32>length);
  putU32(d + DESCRIPTOR_PEER, vm);
}

/** Packet descriptors: where a packet is, how long it is, what became of it, and what else the host knows (docs/abi.md). */
import * as abi from '../abi.ts';
import { getU32, loadU32, type Memory, putU32, storeU32 } from './bytes.ts';

/** A packet, or the virtio header before it, begins here at the earliest: outer headers take less than what lies before. */
const FIRST_ADDRESS = abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE;

/** The place of descriptor `index`: the `d` below. */
export function descriptor(index: number): number {
  return abi.DESCRIPTORS + index * abi.DESCRIPTOR_SIZE;
}

/** Where the packet is; below 0 if that is 2^31 or more. */
export function address(memory: Memory, d: number): number {
  return loadU32(memory, d + abi.DESCRIPTOR_ADDRESS);
}

/** Bytes that were read; below 0 if that is 2^31 or more. */
export function bytes(memory: Memory, d: number): number {
  return loadU32(memory, d + abi.DESCRIPTOR_LENGTH);
}

/** Bytes in each GRE-in-UDP datagram; 0 for one packet with its outer IPv4 header. */
export function segment(memory: Memory, d: number): number {
  return loadU32(memory, d + abi.DESCRIPTOR_SEGMENT) >>> 0;
}

/** Type of service of the outer IPv4 header of these datagrams. */
export function outerTos(memory: Memory, d: number): number {
  return loadU32(memory, d + abi.DESCRIPTOR_TOS) & 0xff;
}

/** Bytes of payload of each packet that the inner one was merged from, as the host says; or 0, or NOT_MERGED. */
export function merged(memory: Memory, d: number): number {
  return loadU32(memory, d + abi.DESCRIPTOR_MERGED) >>> 0;
}

/** The remote VM. */
export function peer(memory: Memory, d: number): number {
  return getU32(memory, d + abi.DESCRIPTOR_PEER);
}

export function setPeer(memory: Memory, d: number, vm: number): void {
  putU32(memory, d + abi.DESCRIPTOR_PEER, vm);
}

export function setVerdict(memory: Memory, d: number, verdict: number): void {
  storeU32(memory, d + abi.DESCRIPTOR_VERDICT, verdict);
}

/** Whether the packet lies in the slots behind the first headroom. Numbers of 2^31 and more are negative here: outside. */
export function isInside(memory: Memory, d: number): boolean {
  const start = address(memory, d);
  const length = bytes(memory, d);
  return start >= FIRST_ADDRESS && length >= 0 && start <= abi.MEMORY_SIZE - length;
}

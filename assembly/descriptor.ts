/** Packet descriptors: where a packet is, how long it is, what became of it, the remote VM, and how it is divided. */
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_MERGED,
  DESCRIPTOR_PEER,
  DESCRIPTOR_SEGMENT,
  DESCRIPTOR_SIZE,
  DESCRIPTOR_TOS,
  DESCRIPTOR_VERDICT,
  DESCRIPTORS,
  HEADROOM,
  MEMORY_SIZE,
  SLOTS,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { getU32, putU32 } from './bytes';

/** Where packets can lie: the first place, and how many bytes are behind it. */
const FIRST: u32 = SLOTS + HEADROOM - VIRTIO_SIZE;
const MOST: u32 = MEMORY_SIZE - FIRST;

export function descriptor(index: i32): usize {
  return <usize>(DESCRIPTORS + index * DESCRIPTOR_SIZE);
}

export function address(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_ADDRESS);
}

/** Length of what was read in bytes. */
export function bytes(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_LENGTH);
}

/** Bytes of each GRE-in-UDP datagram; 0 for one packet with its outer IPv4 header. */
export function segment(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_SEGMENT);
}

/** Type of service of the outer IPv4 header of these datagrams. */
export function outerTos(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_TOS) & 0xff;
}

/** Bytes of payload of each packet that the inner one was merged from, as the host says; or 0, or NOT_MERGED. */
export function merged(d: usize): u32 {
  return load<u32>(d + DESCRIPTOR_MERGED);
}

/** The remote VM. */
export function peer(d: usize): u32 {
  return getU32(d + DESCRIPTOR_PEER);
}

export function setPeer(d: usize, vm: u32): void {
  putU32(d + DESCRIPTOR_PEER, vm);
}

export function setVerdict(d: usize, verdict: i32): void {
  store<i32>(d + DESCRIPTOR_VERDICT, verdict);
}

/** True if the packet lies among the slots and has its headroom: without this a host's mistake would be a trap. */
export function isInside(d: usize): bool {
  // One branch instead of two: `|` for `||`.
  const at = address(d) - FIRST;
  return ((at > MOST ? 1 : 0) | (bytes(d) > MOST - at ? 1 : 0)) === 0;
}

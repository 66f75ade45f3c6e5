/** TCP (RFC 9293 §3.1) and UDP (RFC 768) as far as flows, cutting and merging need them. */
import { getU32 } from './bytes';
import { sum } from './checksum';
import { destination, headerLength, isFragment, protocol, source, totalLength } from './ipv4';

// From the specifications.
export const PROTOCOL_TCP: u32 = 6;
export const PROTOCOL_UDP: u32 = 17;
const PROTOCOL_DCCP: u32 = 33;
const PROTOCOL_SCTP: u32 = 132;
const PROTOCOL_UDP_LITE: u32 = 136;
export const TCP_MIN_LENGTH: i32 = 20;
export const TCP_SEQUENCE: usize = 4;
export const TCP_ACKNOWLEDGEMENT: usize = 8;
export const TCP_OFFSET: usize = 12;
export const TCP_FLAGS: usize = 13;
export const TCP_WINDOW: usize = 14;
export const TCP_CHECKSUM: usize = 16;
export const TCP_URGENT: usize = 18;
export const FIN: u32 = 0x01;
export const SYN: u32 = 0x02;
export const PSH: u32 = 0x08;
export const ACK: u32 = 0x10;
export const ECE: u32 = 0x40;
export const CWR: u32 = 0x80;
export const UDP_LENGTH: i32 = 8;
export const UDP_LENGTH_FIELD: usize = 4;
export const UDP_CHECKSUM: usize = 6;

/** 2^32 divided by the golden ratio, as in tunnels.ts. */
const GOLDEN_RATIO: u32 = 0x9e3779b1;

/** Length of the TCP header at `t` in bytes. */
export function tcpLength(t: usize): i32 {
  return <i32>((load<u8>(t + TCP_OFFSET) >> 4) << 2);
}

/** The sum of the pseudo header (RFC 9293 §3.1, RFC 768) of the packet at `p` with `length` bytes behind its IPv4 header. */
export function pseudoSum(p: usize, length: i32): u64 {
  // Addresses as they lie in memory, so the numbers have to be swapped: see checksum.ts.
  const addresses = <u64>load<u32>(p + 12) + <u64>load<u32>(p + 16);
  return addresses + <u64>(protocol(p) << 8) + <u64>bswap<u16>(<u16>length);
}

/** The sum over pseudo header and all `length` bytes behind the IPv4 header of the packet at `p`. */
export function transportSum(p: usize, length: i32): u64 {
  return sum(p + <usize>headerLength(p), length, pseudoSum(p, length));
}

/** Whether the packet at `p` begins with two port numbers. */
export function hasPorts(p: usize): bool {
  const known = protocol(p);
  if (known !== PROTOCOL_TCP && known !== PROTOCOL_UDP) {
    if (known !== PROTOCOL_DCCP && known !== PROTOCOL_SCTP && known !== PROTOCOL_UDP_LITE) return false;
  }
  return !isFragment(p) && totalLength(p) >= headerLength(p) + 4;
}

/** A number that is the same for all packets of a flow, those in fragments among them; its high bits are the best. */
export function flowHash(p: usize): u32 {
  const ports = hasPorts(p) ? getU32(p + <usize>headerLength(p)) : 0;
  const sum = ((source(p) * GOLDEN_RATIO + destination(p)) * GOLDEN_RATIO + ports) * GOLDEN_RATIO + protocol(p);
  return (sum ^ (sum >> 15)) * GOLDEN_RATIO;
}

/** Which of `ports` the flow with this hash takes. */
export function portOf(hash: u32, ports: u32): i32 {
  return <i32>(((hash >> 16) * ports) >> 16);
}

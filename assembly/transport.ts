/** TCP (RFC 9293 §3.1) and UDP (RFC 768) as far as flows, cutting and merging need them. */
import { getU32 } from './bytes';
import { fold, sum } from './checksum';
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

/** Length of the IPv4 and the TCP or UDP header at `p` in bytes; more than the packet's if they are not whole. */
export function headersLength(p: usize): i32 {
  const ip = headerLength(p);
  if (protocol(p) === PROTOCOL_UDP) return ip + UDP_LENGTH;
  if (totalLength(p) < ip + TCP_MIN_LENGTH) return i32.MAX_VALUE;
  const tcp = tcpLength(p + <usize>ip);
  return tcp < TCP_MIN_LENGTH ? i32.MAX_VALUE : ip + tcp;
}

/** Whether the packet at `p` is TCP or UDP, no fragment, and its headers end within it. */
export function hasHeaders(p: usize): bool {
  if (isFragment(p) || (protocol(p) !== PROTOCOL_TCP && protocol(p) !== PROTOCOL_UDP)) return false;
  return headersLength(p) <= totalLength(p);
}

/** The sum of the pseudo header (RFC 9293 §3.1, RFC 768) of the packet at `p` with `length` bytes behind its IPv4 header. */
export function pseudoSum(p: usize, length: i32): u64 {
  // Addresses as they lie in memory, so the numbers have to be swapped: see checksum.ts.
  const addresses = <u64>load<u32>(p + 12) + <u64>load<u32>(p + 16);
  return addresses + <u64>(protocol(p) << 8) + <u64>bswap<u16>(<u16>length);
}

/** Where the checksum is, in bytes from the beginning of the TCP or UDP header. */
export function checksumOffset(p: usize): usize {
  return protocol(p) === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
}

/** Whether the checksum of the TCP or UDP packet at `p` is right, its field among what is summed. */
export function isChecksumRight(p: usize): bool {
  const length = totalLength(p) - headerLength(p);
  return fold(sum(p + <usize>headerLength(p), length, pseudoSum(p, length))) === 0xffff;
}

/**
 * Where no wire was in between, and where GRO has merged packets before the socket got them, Linux leaves checksums open (CHECKSUM_PARTIAL, <linux/skbuff.h>): the
 * field holds the sum of the pseudo header alone. Answers the field's place in the transport header, or 0 if the checksum is not open.
 */
export function openChecksum(p: usize): i32 {
  if (!hasHeaders(p)) return 0;
  const length = totalLength(p) - headerLength(p);
  const offset = checksumOffset(p);
  const field = <u32>load<u16>(p + <usize>headerLength(p) + offset);
  return field === fold(pseudoSum(p, length)) ? <i32>offset : 0;
}

/** Puts the checksum of what begins at byte `start` of the packet at `p` to its byte `offset`, where the sum of the pseudo header is. */
export function putChecksum(p: usize, start: i32, offset: i32): void {
  const t = p + <usize>start;
  store<u16>(t + <usize>offset, never0(~fold(sum(t, totalLength(p) - start, 0))));
}

/** A checksum that comes out as 0 is sent as all ones, which is the same number: 0 means none in UDP (RFC 768). */
export function never0(checksum: u32): u16 {
  return <u16>checksum === 0 ? 0xffff : <u16>checksum;
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

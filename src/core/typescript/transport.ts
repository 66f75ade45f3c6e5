/** TCP (RFC 9293 §3.1) and UDP (RFC 768): header fields, checksum with its pseudo header, and the flow of a packet. */
import { getU16, getU32, loadU8, type Memory, putU16 } from './bytes.ts';
import { fold, sum } from './checksum.ts';
import * as ipv4 from './ipv4.ts';

// From the specification. Offsets in bytes:
//
//     0             2                  4          8            12             13      14       16         18
//     | source port | destination port | sequence | acknowledg | data offset, | flags | window | checksum | urgent pointer
//     |             |                  | number   | ment number| reserved     |       |        |          |
//
//     0             2                  4        6
//     | source port | destination port | length | checksum

/** IANA protocol numbers. */
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
/** DCCP, SCTP and UDP-Lite begin with two ports as well. */
const PROTOCOL_DCCP = 33;
const PROTOCOL_SCTP = 132;
const PROTOCOL_UDP_LITE = 136;
/** Protocols whose headers begin with two ports. */
const WITH_PORTS = [PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_DCCP, PROTOCOL_SCTP, PROTOCOL_UDP_LITE];
const PORTS_LENGTH = 4;
/** Bytes in a TCP header without options. */
export const TCP_MIN_LENGTH = 20;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
export const TCP_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
export const FIN = 0x01;
export const SYN = 0x02;
export const PSH = 0x08;
export const ACK = 0x10;
export const ECE = 0x40;
export const CWR = 0x80;
/** Bytes in a UDP header. */
export const UDP_LENGTH = 8;
export const UDP_LENGTH_FIELD = 4;
export const UDP_CHECKSUM = 6;

/** 2^32 divided by the golden ratio, odd: that of tunnels.ts. */
const GOLDEN_RATIO = 0x9e3779b1;

/** Bytes in the TCP header at `t`, options included. */
export function tcpLength(memory: Memory, t: number): number {
  return (loadU8(memory, t + TCP_OFFSET) >> 4) * 4;
}

// Below, `p` is where the IPv4 header is.

/** Bytes in the IPv4 header and the TCP or UDP header of the packet, which is one of the two, and long enough for one. */
export function headersLength(memory: Memory, p: number): number {
  const header = ipv4.headerLength(memory, p);
  if (ipv4.protocol(memory, p) === PROTOCOL_UDP) return header + UDP_LENGTH;
  return header + tcpLength(memory, p + header);
}

/** Whether the packet is TCP or UDP, no fragment, and its headers end within it. */
export function hasHeaders(memory: Memory, p: number): boolean {
  if (ipv4.isFragment(memory, p)) return false;
  const header = ipv4.headerLength(memory, p);
  const behind = ipv4.totalLength(memory, p) - header;
  const protocol = ipv4.protocol(memory, p);
  if (protocol === PROTOCOL_UDP) return behind >= UDP_LENGTH;
  if (protocol !== PROTOCOL_TCP || behind < TCP_MIN_LENGTH) return false;
  const length = tcpLength(memory, p + header);
  return length >= TCP_MIN_LENGTH && length <= behind;
}

/** The sum, not folded, over the pseudo header: addresses, protocol, and bytes behind the IPv4 header (RFC 9293 §3.1). */
export function pseudoSum(memory: Memory, p: number): number {
  const from = ipv4.source(memory, p);
  const to = ipv4.destination(memory, p);
  const length = ipv4.totalLength(memory, p) - ipv4.headerLength(memory, p);
  return (from >>> 16) + (from & 0xffff) + (to >>> 16) + (to & 0xffff) + ipv4.protocol(memory, p) + length;
}

/** Where the checksum of the TCP or UDP packet is, in bytes from the start of that header. */
export function checksumOffset(memory: Memory, p: number): number {
  return ipv4.protocol(memory, p) === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
}

/** Whether the checksum of the TCP or UDP packet is right. */
export function isChecksumRight(memory: Memory, p: number): boolean {
  const header = ipv4.headerLength(memory, p);
  const data = sum(memory, p + header, ipv4.totalLength(memory, p) - header);
  return fold(pseudoSum(memory, p) + data) === 0xffff;
}

/**
 * If the packet is TCP or UDP whose checksum nobody has completed, where that is, in bytes from the start of that header; else 0. Its
 * field holds the sum of the pseudo header alone (CHECKSUM_PARTIAL), as it comes where no wire was in between.
 */
export function openChecksum(memory: Memory, p: number): number {
  if (!hasHeaders(memory, p)) return 0;
  const offset = checksumOffset(memory, p);
  const field = getU16(memory, p + ipv4.headerLength(memory, p) + offset);
  return field === fold(pseudoSum(memory, p)) ? offset : 0;
}

/**
 * Completes the checksum of what begins at byte `start` of the packet, in the field `offset` bytes further, which holds the sum of what
 * else is to be covered: skb_checksum_help.
 */
export function putChecksum(memory: Memory, p: number, start: number, offset: number): void {
  const checksum = ~sum(memory, p + start, ipv4.totalLength(memory, p) - start) & 0xffff;
  putU16(memory, p + start + offset, never0(checksum));
}

/** In UDP, a checksum of 0 would mean that there is none (RFC 768); everywhere else both stand for zero. */
export function never0(checksum: number): number {
  return checksum === 0 ? 0xffff : checksum;
}

/** Whether the packet shows the ports of its flow; the others of a fragmented packet do not, so not even the first counts. */
export function hasPorts(memory: Memory, p: number): boolean {
  if (!WITH_PORTS.includes(ipv4.protocol(memory, p)) || ipv4.isFragment(memory, p)) return false;
  return ipv4.totalLength(memory, p) - ipv4.headerLength(memory, p) >= PORTS_LENGTH;
}

/**
 * Hash of the packet's flow: its addresses, protocol, and ports. Its upper bits are what to use: the last multiplication
 * brings the protocol there, which the addition hardly does.
 */
export function flowHash(memory: Memory, p: number): number {
  const ports = hasPorts(memory, p) ? getU32(memory, p + ipv4.headerLength(memory, p)) : 0;
  let h = Math.imul(ipv4.source(memory, p), GOLDEN_RATIO) + ipv4.destination(memory, p);
  h = Math.imul(h, GOLDEN_RATIO) + ports;
  h = (Math.imul(h, GOLDEN_RATIO) + ipv4.protocol(memory, p)) | 0;
  return Math.imul(h ^ (h >>> 15), GOLDEN_RATIO);
}

/** Which of `ports` outer source ports the flow with this hash uses (RFC 8086 §3.2): 0 to `ports` - 1. */
export function portOf(hash: number, ports: number): number {
  return ((hash >>> 16) * ports) >>> 16;
}

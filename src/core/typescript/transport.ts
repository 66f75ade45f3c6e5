/** TCP (RFC 9293 §3.1) and UDP (RFC 768): header fields, checksum with its pseudo header, and the flow of a packet. */
import { getI32, getU8, getU16, type Memory, putI32, putU8, putU16 } from './bytes.ts';
import { ALL_ONES, completeSum, fold, sum } from './checksum.ts';
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
/** Bytes in a TCP header without options, and in a UDP header. */
export const TCP_LENGTH = 20;
export const UDP_LENGTH = 8;
/** Bytes of a header that tell its flow: the two ports. */
const PORTS_LENGTH = 4;
/** Where the checksum is, in bytes from the header's start. */
export const TCP_CHECKSUM = 16;
export const UDP_CHECKSUM = 6;

export const FIN = 0x01;
export const SYN = 0x02;
export const PSH = 0x08;
export const ACK = 0x10;
export const ECE = 0x40;
export const CWR = 0x80;

// From this implementation.

/** 2^32 divided by the golden ratio, odd: that of tunnels.ts. */
const HASH_MULTIPLIER = 0x9e3779b1;

// Fields: `t` is where the TCP or UDP header is.

/** Bytes in the TCP header, options included. */
export function tcpHeaderLength(memory: Memory, t: number): number {
  return (getU8(memory, t + 12) >> 4) << 2;
}

/** The TCP header's data offset and reserved bits. */
export function offsetAndReserved(memory: Memory, t: number): number {
  return getU8(memory, t + 12);
}

/** The TCP sequence number, as a signed number. */
export function sequence(memory: Memory, t: number): number {
  return getI32(memory, t + 4);
}

export function putSequence(memory: Memory, t: number, number: number): void {
  putI32(memory, t + 4, number);
}

/** The TCP acknowledgement number, as a signed number. */
export function acknowledgement(memory: Memory, t: number): number {
  return getI32(memory, t + 8);
}

export function tcpFlags(memory: Memory, t: number): number {
  return getU8(memory, t + 13);
}

export function putTcpFlags(memory: Memory, t: number, flags: number): void {
  putU8(memory, t + 13, flags);
}

export function tcpWindow(memory: Memory, t: number): number {
  return getU16(memory, t + 14);
}

export function urgentPointer(memory: Memory, t: number): number {
  return getU16(memory, t + 18);
}

/** Bytes in the UDP header and what it carries, as it says. */
export function udpLength(memory: Memory, t: number): number {
  return getU16(memory, t + 4);
}

export function putUdpLength(memory: Memory, t: number, length: number): void {
  putU16(memory, t + 4, length);
}

/** The TCP checksum. */
export function tcpChecksum(memory: Memory, t: number): number {
  return getU16(memory, t + TCP_CHECKSUM);
}

/** The UDP checksum; 0 if the packet has none. */
export function udpChecksum(memory: Memory, t: number): number {
  return getU16(memory, t + UDP_CHECKSUM);
}

// Checksums: `p` is where the IPv4 header is.

/** Where the checksum of the TCP or UDP packet lies. */
export function checksumOf(memory: Memory, p: number): number {
  const t = p + ipv4.headerLength(memory, p);
  return t + (ipv4.protocol(memory, p) === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
}

/** The sum, not folded, over the pseudo header: addresses, protocol, and bytes behind the IPv4 header (RFC 9293 §3.1). */
export function pseudoSum(memory: Memory, p: number): number {
  const from = ipv4.source(memory, p);
  const to = ipv4.destination(memory, p);
  const length = ipv4.totalLength(memory, p) - ipv4.headerLength(memory, p);
  return (from >>> 16) + (from & 0xffff) + (to >>> 16) + (to & 0xffff) + ipv4.protocol(memory, p) + length;
}

/** Whether the checksum of the TCP or UDP packet is right. */
export function isChecksumRight(memory: Memory, p: number): boolean {
  const header = ipv4.headerLength(memory, p);
  const data = sum(memory, p + header, ipv4.totalLength(memory, p) - header);
  return fold(pseudoSum(memory, p) + data) === ALL_ONES;
}

/**
 * Whether the packet is TCP or UDP whose checksum nobody has completed: its field holds the sum of the pseudo header alone
 * (CHECKSUM_PARTIAL), as it comes where no wire was in between.
 */
export function isOpen(memory: Memory, p: number): boolean {
  return hasHeaders(memory, p) && getU16(memory, checksumOf(memory, p)) === fold(pseudoSum(memory, p));
}

/** Completes the checksum of the packet, which is open. */
export function completeOpen(memory: Memory, p: number): void {
  const t = p + ipv4.headerLength(memory, p);
  completeSum(memory, t, p + ipv4.totalLength(memory, p), checksumOf(memory, p));
}

/** Whether the packet is TCP or UDP, no fragment, and its headers end within it. */
export function hasHeaders(memory: Memory, p: number): boolean {
  if (ipv4.isFragment(memory, p)) return false;
  const header = ipv4.headerLength(memory, p);
  const behind = ipv4.totalLength(memory, p) - header;
  const protocol = ipv4.protocol(memory, p);
  if (protocol === PROTOCOL_UDP) return behind >= UDP_LENGTH;
  if (protocol !== PROTOCOL_TCP || behind < TCP_LENGTH) return false;
  const length = tcpHeaderLength(memory, p + header);
  return length >= TCP_LENGTH && length <= behind;
}

// Flows.

/** Whether the packet shows the ports of its flow; the others of a fragmented packet do not, so not even the first counts. */
export function showsPorts(memory: Memory, p: number): boolean {
  const behind = ipv4.totalLength(memory, p) - ipv4.headerLength(memory, p);
  return behind >= PORTS_LENGTH && !ipv4.isFragment(memory, p);
}

/** Both ports of the packet, which shows them. */
export function portsOf(memory: Memory, p: number): number {
  return getI32(memory, p + ipv4.headerLength(memory, p));
}

/**
 * Hash of a flow: the packet's addresses and protocol, and `ports`. Its upper bits are what to use: the last multiplication
 * brings the protocol there, which the addition hardly does.
 */
export function hashFlow(memory: Memory, p: number, ports: number): number {
  let h = Math.imul(ipv4.source(memory, p), HASH_MULTIPLIER) + ipv4.destination(memory, p);
  h = Math.imul(h, HASH_MULTIPLIER) + ports;
  h = (Math.imul(h, HASH_MULTIPLIER) + ipv4.protocol(memory, p)) | 0;
  return Math.imul(h ^ (h >>> 15), HASH_MULTIPLIER);
}

/** Which of `count` outer source ports the packet's flow uses (RFC 8086 §3.2): 0 to `count` - 1. */
export function outerPort(memory: Memory, p: number, count: number): number {
  const isKnown = hasPorts(ipv4.protocol(memory, p)) && showsPorts(memory, p);
  const h = hashFlow(memory, p, isKnown ? portsOf(memory, p) : 0);
  return ((h >>> 16) * count) >>> 16;
}

function hasPorts(protocol: number): boolean {
  return (
    protocol === PROTOCOL_TCP ||
    protocol === PROTOCOL_UDP ||
    protocol === PROTOCOL_DCCP ||
    protocol === PROTOCOL_SCTP ||
    protocol === PROTOCOL_UDP_LITE
  );
}

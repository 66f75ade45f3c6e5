/** IPv4 header (RFC 791 §3.1): check, fields, and the outer header of RFC 2003 §3.1. */
import * as abi from '../abi.ts';
import { getU16, getU32, loadU8, type Memory, putU16, putU32, storeU8 } from './bytes.ts';
import { sum, update, verifies } from './checksum.ts';

// From the specification. Offsets in bytes:
//
//     0        1      2              4                6                8     9          10         12       16
//     | version| TOS  | total length | identification | flags, offset  | TTL | protocol | checksum | source | destination
//     | length |

/** Bytes in a header without options. */
export const IPV4_LENGTH = 20;
/** The largest total length, in bytes. */
export const MAX_TOTAL_LENGTH = 0xffff;
/** "Every internet module must be able to forward a datagram of 68 octets without further fragmentation" (RFC 791 §3.2). */
export const MIN_MTU = 68;
const VERSION = 4;
const TYPE_OF_SERVICE = 1;
const TOTAL_LENGTH = 2;
const IDENTIFICATION = 4;
const FRAGMENT = 6;
const TIME_TO_LIVE = 8;
const PROTOCOL = 9;
const CHECKSUM = 10;
const SOURCE = 12;
const DESTINATION = 16;
/** Flags, and the offset of a fragment in units of 8 bytes. */
export const RESERVED_FLAG = 0x8000;
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const OFFSET_MASK = 0x1fff;

/** Checks the header at `p`; `available` counts the bytes from `p`. Returns FORWARD or a drop reason. */
export function checkIpv4(memory: Memory, p: number, available: number): number {
  if (available < IPV4_LENGTH) return abi.DROP_TRUNCATED;
  if (!isIpv4(memory, p)) return abi.DROP_NOT_IPV4;
  const header = headerLength(memory, p);
  if (header < IPV4_LENGTH) return abi.DROP_BAD_HEADER_LENGTH;
  const total = totalLength(memory, p);
  if (total < header) return abi.DROP_BAD_TOTAL_LENGTH;
  if (total > available) return abi.DROP_TRUNCATED;
  return verifies(memory, p, header) ? abi.FORWARD : abi.DROP_BAD_HEADER_CHECKSUM;
}

/** Whether what begins at `p` says that it is IPv4. */
export function isIpv4(memory: Memory, p: number): boolean {
  return loadU8(memory, p) >> 4 === VERSION;
}

/** Bytes in the header at `p`, options included. */
export function headerLength(memory: Memory, p: number): number {
  return (loadU8(memory, p) & 0xf) * 4;
}

/** DSCP and ECN. */
export function typeOfService(memory: Memory, p: number): number {
  return loadU8(memory, p + TYPE_OF_SERVICE);
}

/** Bytes in the packet at `p`, header included. */
export function totalLength(memory: Memory, p: number): number {
  return getU16(memory, p + TOTAL_LENGTH);
}

export function identification(memory: Memory, p: number): number {
  return getU16(memory, p + IDENTIFICATION);
}

/** The 16 bits of flags and fragment offset of the packet at `p`. */
export function flagsAndOffset(memory: Memory, p: number): number {
  return getU16(memory, p + FRAGMENT);
}

/** Whether the packet at `p` is a fragment of a larger one: either of the two is set in each. */
export function isFragment(memory: Memory, p: number): boolean {
  return (flagsAndOffset(memory, p) & (MORE_FRAGMENTS | OFFSET_MASK)) !== 0;
}

export function isDontFragment(memory: Memory, p: number): boolean {
  return (flagsAndOffset(memory, p) & DONT_FRAGMENT) !== 0;
}

/** Whether the packet at `p` is a fragment other than the first. */
export function isLaterFragment(memory: Memory, p: number): boolean {
  return (flagsAndOffset(memory, p) & OFFSET_MASK) !== 0;
}

export function timeToLive(memory: Memory, p: number): number {
  return loadU8(memory, p + TIME_TO_LIVE);
}

/** The IANA number of the protocol that the packet carries. */
export function protocol(memory: Memory, p: number): number {
  return loadU8(memory, p + PROTOCOL);
}

export function headerChecksum(memory: Memory, p: number): number {
  return getU16(memory, p + CHECKSUM);
}

export function source(memory: Memory, p: number): number {
  return getU32(memory, p + SOURCE);
}

export function destination(memory: Memory, p: number): number {
  return getU32(memory, p + DESTINATION);
}

/** Whether the headers at `p` and `q`, both without options, differ in nothing but total length, identification and checksum. */
export function isSameHeader(memory: Memory, p: number, q: number): boolean {
  return (
    typeOfService(memory, p) === typeOfService(memory, q) &&
    flagsAndOffset(memory, p) === flagsAndOffset(memory, q) &&
    timeToLive(memory, p) === timeToLive(memory, q) &&
    protocol(memory, p) === protocol(memory, q) &&
    source(memory, p) === source(memory, q) &&
    destination(memory, p) === destination(memory, q)
  );
}

/** Puts the low 16 bits of another identification; the header checksum is still to be put right. */
export function putIdentification(memory: Memory, p: number, value: number): void {
  putU16(memory, p + IDENTIFICATION, value);
}

/** Puts other flags and fragment offset; the header checksum is still to be put right. */
export function putFlagsAndOffset(memory: Memory, p: number, value: number): void {
  putU16(memory, p + FRAGMENT, value);
}

/** Puts another total length, in bytes, and puts the header checksum right. */
export function putTotalLength(memory: Memory, p: number, total: number): void {
  putU16(memory, p + TOTAL_LENGTH, total);
  putU16(memory, p + CHECKSUM, 0);
  putU16(memory, p + CHECKSUM, ~sum(memory, p, headerLength(memory, p)));
}

/** Puts another type of service, and the header checksum that follows, right if it was (RFC 1624 §3). */
export function putTypeOfService(memory: Memory, p: number, tos: number): void {
  const from = getU16(memory, p);
  storeU8(memory, p + TYPE_OF_SERVICE, tos);
  putU16(memory, p + CHECKSUM, update(headerChecksum(memory, p), from, getU16(memory, p)));
}

/**
 * Puts a header of `IPV4_LENGTH` bytes at `p`. `total` is in bytes, `fragment` are the 32 bits from the identification to the fragment
 * offset.
 */
export function putIpv4(
  memory: Memory,
  p: number,
  tos: number,
  total: number,
  fragment: number,
  ttl: number,
  carried: number,
  from: number,
  to: number,
): void {
  storeU8(memory, p, (VERSION << 4) | (IPV4_LENGTH / 4));
  storeU8(memory, p + TYPE_OF_SERVICE, tos);
  putU16(memory, p + TOTAL_LENGTH, total);
  putU32(memory, p + IDENTIFICATION, fragment);
  storeU8(memory, p + TIME_TO_LIVE, ttl);
  storeU8(memory, p + PROTOCOL, carried);
  putU16(memory, p + CHECKSUM, 0);
  putU32(memory, p + SOURCE, from);
  putU32(memory, p + DESTINATION, to);
  putU16(memory, p + CHECKSUM, ~sum(memory, p, IPV4_LENGTH));
}

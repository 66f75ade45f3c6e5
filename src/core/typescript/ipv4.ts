/** IPv4 header (RFC 791 §3.1): check, fields, and the outer header of RFC 2003 §3.1. */
import * as abi from '../abi.ts';
import { getI32, getU8, getU16, type Memory, putI32, putU16 } from './bytes.ts';
import { ALL_ONES, fold, sum, updated } from './checksum.ts';

// From the specification. Offsets in bytes:
//
//     0        1      2              4                6                8     9          10         12       16
//     | version| TOS  | total length | identification | flags, offset  | TTL | protocol | checksum | source | destination
//     | length |

export const VERSION = 4;
/** Bytes in a header without options. */
export const IPV4_LENGTH = 20;
/** IANA protocol number of GRE. */
export const PROTOCOL_GRE = 47;
/** The largest total length, in bytes. */
export const MAX_TOTAL_LENGTH = 0xffff;
/** "Every internet module must be able to forward a datagram of 68 octets without further fragmentation" (RFC 791 §3.2). */
export const MIN_MTU = 68;
/** Flags, and the offset of a fragment in units of 8 bytes. */
export const RESERVED_FLAG = 0x8000;
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const OFFSET_MASK = 0x1fff;
/** Either is set in every fragment. */
const FRAGMENT_MASK = MORE_FRAGMENTS | OFFSET_MASK;
/** Version 4 and a header of 5 words. */
const NO_OPTIONS = 0x45;

/** Checks the header at `p`; `available` counts the bytes from `p`. Returns FORWARD or a drop reason. */
export function checkIpv4(memory: Memory, p: number, available: number): number {
  if (available < IPV4_LENGTH) return abi.DROP_TRUNCATED;
  if (getU8(memory, p) >> 4 !== VERSION) return abi.DROP_NOT_IPV4;
  const header = headerLength(memory, p);
  if (header < IPV4_LENGTH) return abi.DROP_BAD_HEADER_LENGTH;
  const total = totalLength(memory, p);
  if (total < header) return abi.DROP_BAD_TOTAL_LENGTH;
  if (total > available) return abi.DROP_TRUNCATED;
  if (sum(memory, p, header) !== ALL_ONES) return abi.DROP_BAD_HEADER_CHECKSUM;
  return abi.FORWARD;
}

/** Bytes in the header at `p`, options included. */
export function headerLength(memory: Memory, p: number): number {
  return (getU8(memory, p) & 0xf) << 2;
}

/** Bytes in the packet at `p`, header included. */
export function totalLength(memory: Memory, p: number): number {
  return getU16(memory, p + 2);
}

/** Whether the header at `p` has no options. */
export function isPlain(memory: Memory, p: number): boolean {
  return getU8(memory, p) === NO_OPTIONS;
}

/** The version, header length and type of service of the packet at `p`. */
export function versionToService(memory: Memory, p: number): number {
  return getU16(memory, p);
}

/** The type of service of the packet at `p`. */
export function service(memory: Memory, p: number): number {
  return getU8(memory, p + 1);
}

/** The identification of the packet at `p`. */
export function identification(memory: Memory, p: number): number {
  return getU16(memory, p + 4);
}

/** The 16 bits of flags and fragment offset of the packet at `p`. */
export function flagsAndOffset(memory: Memory, p: number): number {
  return getU16(memory, p + 6);
}

/** Whether the packet at `p` is a fragment of a larger one. */
export function isFragment(memory: Memory, p: number): boolean {
  return (flagsAndOffset(memory, p) & FRAGMENT_MASK) !== 0;
}

/** Where in the larger packet the fragment at `p` belongs, in units of 8 bytes; 0 if it is none. */
export function fragmentOffset(memory: Memory, p: number): number {
  return flagsAndOffset(memory, p) & OFFSET_MASK;
}

/** The time to live of the packet at `p`. */
export function timeToLive(memory: Memory, p: number): number {
  return getU8(memory, p + 8);
}

/** The IANA number of the protocol that the packet carries. */
export function protocol(memory: Memory, p: number): number {
  return getU8(memory, p + 9);
}

/** The header's checksum. */
export function headerChecksum(memory: Memory, p: number): number {
  return getU16(memory, p + 10);
}

/** The source address, as a signed number. */
export function source(memory: Memory, p: number): number {
  return getI32(memory, p + 12);
}

/** The destination address, as a signed number. */
export function destination(memory: Memory, p: number): number {
  return getI32(memory, p + 16);
}

/** Gives the header at `p` another type of service, and the checksum that follows, right if it was (RFC 1624 §3). */
export function changeService(memory: Memory, p: number, tos: number): void {
  const from = versionToService(memory, p);
  const to = (from & 0xff00) | tos;
  putU16(memory, p, to);
  putU16(memory, p + 10, updated(headerChecksum(memory, p), from, to));
}

/** Gives the header at `p` another total length, in bytes, and identification, and the checksum that follows. */
export function resize(memory: Memory, p: number, total: number, id: number): void {
  putU16(memory, p + 2, total);
  putU16(memory, p + 4, id);
  putChecksum(memory, p);
}

/** Gives the header at `p` another total length, in bytes, flags and fragment offset, and the checksum that follows. */
export function divide(memory: Memory, p: number, total: number, flags: number): void {
  putU16(memory, p + 2, total);
  putU16(memory, p + 6, flags);
  putChecksum(memory, p);
}

/** Puts the checksum of the header at `p` right. */
function putChecksum(memory: Memory, p: number): void {
  putU16(memory, p + 10, 0);
  putU16(memory, p + 10, ~sum(memory, p, headerLength(memory, p)));
}

/**
 * Puts a header of `IPV4_LENGTH` bytes at `p`. `total` is in bytes, `idAndFlags` are the 32 bits from the identification
 * to the fragment offset, addresses are in either sign.
 */
export function putIpv4(
  memory: Memory,
  p: number,
  tos: number,
  total: number,
  idAndFlags: number,
  ttl: number,
  carried: number,
  from: number,
  to: number,
): void {
  const versionAndService = (NO_OPTIONS << 8) | tos;
  const ttlAndProtocol = (ttl << 8) | carried;
  // The words are at hand, so the checksum need not read them back.
  const checksum =
    ~fold(
      versionAndService +
        total +
        (idAndFlags >>> 16) +
        (idAndFlags & 0xffff) +
        ttlAndProtocol +
        (from >>> 16) +
        (from & 0xffff) +
        (to >>> 16) +
        (to & 0xffff),
    ) & 0xffff;
  putI32(memory, p, (versionAndService << 16) | total);
  putI32(memory, p + 4, idAndFlags);
  putI32(memory, p + 8, (ttlAndProtocol << 16) | checksum);
  putI32(memory, p + 12, from);
  putI32(memory, p + 16, to);
}

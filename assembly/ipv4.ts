/**
 * IPv4 header (RFC 791 §3.1).
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    |Version|  IHL  |Type of Service|          Total Length         |
 *    |         Identification        |Flags|      Fragment Offset    |
 *    |  Time to Live |    Protocol   |         Header Checksum       |
 *    |                       Source Address                          |
 *    |                    Destination Address                        |
 */
import {
  DROP_BAD_HEADER_CHECKSUM,
  DROP_BAD_HEADER_LENGTH,
  DROP_BAD_TOTAL_LENGTH,
  DROP_NOT_IPV4,
  DROP_TRUNCATED,
  FORWARD,
} from '../src/core/abi';
import { getU16, getU32, putU16 } from './bytes';
import { fold, sum, update } from './checksum';

// From the specification.
export const IPV4_LENGTH: i32 = 20;
export const MAX_TOTAL_LENGTH: i32 = 65535;
/** "Every internet module must be able to forward a datagram of 68 octets without further fragmentation" (RFC 791 §3.2). */
export const MIN_MTU: i32 = 68;
const VERSION: i32 = 4;
const TYPE_OF_SERVICE: usize = 1;
const TOTAL_LENGTH: usize = 2;
const IDENTIFICATION: usize = 4;
const FRAGMENT: usize = 6;
const TIME_TO_LIVE: usize = 8;
const PROTOCOL: usize = 9;
const CHECKSUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
export const RESERVED_FLAG: u32 = 0x8000;
export const DONT_FRAGMENT: u32 = 0x4000;
export const MORE_FRAGMENTS: u32 = 0x2000;
export const OFFSET_MASK: u32 = 0x1fff; // in units of 8 bytes

/** Checks the header of the packet at `p`, of which `available` bytes are there. Once it answers FORWARD, no accessor below reads past them. */
export function checkIpv4(p: usize, available: i32): i32 {
  if (available < IPV4_LENGTH) return DROP_TRUNCATED;
  if (!isIpv4(p)) return DROP_NOT_IPV4;
  const header = headerLength(p);
  if (header < IPV4_LENGTH) return DROP_BAD_HEADER_LENGTH;
  const total = totalLength(p);
  if (total < header) return DROP_BAD_TOTAL_LENGTH;
  if (total > available) return DROP_TRUNCATED;
  if (fold(headerSum(p, header)) !== 0xffff) return DROP_BAD_HEADER_CHECKSUM;
  return FORWARD;
}

/** The sum of the `length` bytes of a header: nearly always 20, for which there is no loop. Inlined wherever it is called. */
function headerSum(p: usize, length: i32): u64 {
  const first = load<u64>(p);
  const second = load<u64>(p, 8);
  const total = (first & 0xffffffff) + (first >> 32) + (second & 0xffffffff) + (second >> 32) + <u64>load<u32>(p, 16);
  return length === IPV4_LENGTH ? total : sum(p + IPV4_LENGTH, length - IPV4_LENGTH, total);
}

/** Whether what begins at `p` says that it is IPv4. */
export function isIpv4(p: usize): bool {
  return load<u8>(p) >> 4 === VERSION;
}

/** Header length in bytes. */
export function headerLength(p: usize): i32 {
  return <i32>((load<u8>(p) & 15) << 2);
}

/** DSCP and ECN. */
export function typeOfService(p: usize): u32 {
  return <u32>load<u8>(p + TYPE_OF_SERVICE);
}

/** Length of header and payload in bytes. */
export function totalLength(p: usize): i32 {
  return <i32>getU16(p + TOTAL_LENGTH);
}

export function identification(p: usize): u32 {
  return getU16(p + IDENTIFICATION);
}

/** Three flags, and the place of a fragment in units of 8 bytes. */
export function flagsAndOffset(p: usize): u32 {
  return getU16(p + FRAGMENT);
}

export function isFragment(p: usize): bool {
  return (flagsAndOffset(p) & (MORE_FRAGMENTS | OFFSET_MASK)) !== 0;
}

export function isDontFragment(p: usize): bool {
  return (flagsAndOffset(p) & DONT_FRAGMENT) !== 0;
}

/** Whether the packet at `p` is a fragment other than the first. */
export function isLaterFragment(p: usize): bool {
  return (flagsAndOffset(p) & OFFSET_MASK) !== 0;
}

export function timeToLive(p: usize): u32 {
  return <u32>load<u8>(p + TIME_TO_LIVE);
}

export function protocol(p: usize): u32 {
  return <u32>load<u8>(p + PROTOCOL);
}

/** The header's checksum; as it lies in memory, see checksum.ts. */
export function headerChecksum(p: usize): u16 {
  return load<u16>(p + CHECKSUM);
}

export function source(p: usize): u32 {
  return getU32(p + SOURCE);
}

export function destination(p: usize): u32 {
  return getU32(p + DESTINATION);
}

/** Whether the headers at `p` and `q`, both without options, differ in nothing but total length, identification and checksum. */
export function isSameHeader(p: usize, q: usize): bool {
  // Both addresses; time to live and protocol; type of service.
  if (load<u64>(p + SOURCE) !== load<u64>(q + SOURCE)) return false;
  if (load<u16>(p + TIME_TO_LIVE) !== load<u16>(q + TIME_TO_LIVE)) return false;
  return load<u16>(p) === load<u16>(q) && load<u16>(p + FRAGMENT) === load<u16>(q + FRAGMENT);
}

/** Sets flags and fragment offset; the header checksum is still to be put right. */
export function putFlagsAndOffset(p: usize, value: u32): void {
  putU16(p + FRAGMENT, value);
}

/** Sets the total length and puts the header checksum right. */
export function putTotalLength(p: usize, total: i32): void {
  putU16(p + TOTAL_LENGTH, <u32>total);
  putChecksum(p);
}

/** The sum of what the headers of all segments of the super-packet at `p` have in common: all but total length, identification and checksum. */
export function networkSum(p: usize): u64 {
  const own = <u64>load<u16>(p + TOTAL_LENGTH) + <u64>load<u16>(p + IDENTIFICATION) + <u64>load<u16>(p + CHECKSUM);
  return headerSum(p, headerLength(p)) - own;
}

/** Makes a copy of a super-packet's header that of a segment; `common` is `networkSum`. */
export function putSegmentNetwork(h: usize, total: i32, identification: u32, common: u64): void {
  const length = bswap<u16>(<u16>total);
  const id = bswap<u16>(<u16>identification);
  store<u16>(h + TOTAL_LENGTH, length);
  store<u16>(h + IDENTIFICATION, id);
  store<u16>(h + CHECKSUM, <u16>~fold(common + <u64>length + <u64>id));
}

/** Sets the type of service; the header checksum stays as right as it was. */
export function putTypeOfService(p: usize, tos: u32): void {
  const old = load<u16>(p);
  store<u8>(p + TYPE_OF_SERVICE, <u8>tos);
  store<u16>(p + CHECKSUM, update(load<u16>(p + CHECKSUM), old, load<u16>(p)));
}

function putChecksum(p: usize): void {
  store<u16>(p + CHECKSUM, 0);
  store<u16>(p + CHECKSUM, <u16>~fold(headerSum(p, headerLength(p))));
}

/**
 * Writes a header of IPV4_LENGTH bytes at `p`; `fragment` is identification, flags and offset, and the addresses are as they lie in memory. The checksum is that
 * of the numbers: to read back what has just been stored, in other pieces, would cost more. Inlined wherever it is called.
 */
export function putIpv4(p: usize, tos: u32, total: i32, fragment: u32, ttl: u32, proto: u32, src: u32, dst: u32): void {
  const first: u32 = 0x45 | (tos << 8) | ((<u32>bswap<u16>(<u16>total)) << 16);
  const second = bswap<u32>(fragment);
  const third: u32 = ttl | (proto << 8);
  const checksum = ~fold(<u64>first + <u64>second + <u64>third + <u64>src + <u64>dst);
  store<u32>(p, first);
  store<u32>(p + IDENTIFICATION, second);
  store<u32>(p + TIME_TO_LIVE, third | (checksum << 16));
  store<u32>(p + SOURCE, src);
  store<u32>(p + DESTINATION, dst);
}

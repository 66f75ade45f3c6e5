/**
 * ICMP: the message that says that a destination cannot be reached (RFC 792), with the next hop's MTU (RFC 1191 §4).
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    |     Type      |     Code      |           Checksum            |
 *    |            unused             |         Next-Hop MTU          |
 *    |       Internet Header + 64 bits of Original Datagram ...      |
 */
import { getU16, putU16, putU32 } from './bytes';
import { fold, sum } from './checksum';

// From the specifications.
export const PROTOCOL_ICMP: u32 = 1;
export const ICMP_LENGTH: i32 = 8;
export const DESTINATION_UNREACHABLE: u32 = 3;
export const HOST_UNREACHABLE: u32 = 1;
export const PROTOCOL_UNREACHABLE: u32 = 2;
export const PORT_UNREACHABLE: u32 = 3;
export const FRAGMENTATION_NEEDED: u32 = 4;
/** The last code of that type (RFC 1812 §5.2.7.1). */
export const LAST_CODE: u32 = 15;
/** Types 3, 4, 5, 11 and 12, as bits: "an ICMP error message MUST NOT be sent as the result of receiving an ICMP error message" (RFC 1122 §3.2.2). */
const ERRORS: u32 = (1 << 3) | (1 << 4) | (1 << 5) | (1 << 11) | (1 << 12);
const LAST_ERROR: u32 = 12;

const CODE: usize = 1;
const CHECKSUM: usize = 2;
const REST: usize = 4;
const NEXT_HOP_MTU: usize = 6;

/** The type of the message at `p`. */
export function icmpType(p: usize): u32 {
  return <u32>load<u8>(p);
}

/** The code of the message at `p`. */
export function icmpCode(p: usize): u32 {
  return <u32>load<u8>(p + CODE);
}

/** The MTU that a message with FRAGMENTATION_NEEDED tells, in bytes; 0 from routers that do not yet. */
export function nextHopMtu(p: usize): i32 {
  return <i32>getU16(p + NEXT_HOP_MTU);
}

/** Whether messages of this type are about other packets, so that none is answered. */
export function isError(type: u32): bool {
  return type <= LAST_ERROR && ((1 << type) & ERRORS) !== 0;
}

/** Writes the message at `p` that quotes `length` bytes at `quote`, which lie elsewhere; `mtu` goes with FRAGMENTATION_NEEDED, else it is 0. */
export function putUnreachable(p: usize, code: u32, mtu: i32, quote: usize, length: i32): void {
  putU16(p, (DESTINATION_UNREACHABLE << 8) | code);
  putU16(p + CHECKSUM, 0);
  putU32(p + REST, <u32>mtu);
  store<u16>(p + CHECKSUM, <u16>~fold(sum(quote, length, sum(p, ICMP_LENGTH, 0))));
}

/** ICMP: the message that says that a destination cannot be reached (RFC 792), with the next hop's MTU (RFC 1191 §4). */
import { getU16, loadU8, type Memory, putU16, putU32 } from './bytes.ts';
import { fold, sum } from './checksum.ts';

// From the specification. Offsets in bytes; behind it the packet that it is about begins:
//
//     0      1      2          4        6     8
//     | type | code | checksum | unused | MTU | internet header and more

/** IANA protocol number. */
export const PROTOCOL_ICMP = 1;
/** Bytes before what is quoted. */
export const ICMP_LENGTH = 8;
export const DESTINATION_UNREACHABLE = 3;
/** Codes of that type. The last is that of RFC 1812 §5.2.7.1. */
export const HOST_UNREACHABLE = 1;
export const PROTOCOL_UNREACHABLE = 2;
export const PORT_UNREACHABLE = 3;
export const FRAGMENTATION_NEEDED = 4;
export const LAST_CODE = 15;

/** The other types of messages that are about other packets: of these, none is answered (RFC 1122 §3.2.2). */
const SOURCE_QUENCH = 4;
const REDIRECT = 5;
const TIME_EXCEEDED = 11;
const PARAMETER_PROBLEM = 12;
const ERRORS = [DESTINATION_UNREACHABLE, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM];

/** The type of the message at `p`. */
export function icmpType(memory: Memory, p: number): number {
  return loadU8(memory, p);
}

/** The code of the message at `p`. */
export function icmpCode(memory: Memory, p: number): number {
  return loadU8(memory, p + 1);
}

/** The MTU that the message at `p` tells, in bytes, if it is one of those that do; 0 from routers that do not yet. */
export function nextHopMtu(memory: Memory, p: number): number {
  return getU16(memory, p + 6);
}

/** Whether messages of this type are about other packets. */
export function isError(type: number): boolean {
  return ERRORS.includes(type);
}

/** Puts the message of type DESTINATION_UNREACHABLE at `p` that quotes `length` bytes from `quote`, which lie elsewhere. */
export function putUnreachable(
  memory: Memory,
  p: number,
  code: number,
  mtu: number,
  quote: number,
  length: number,
): void {
  const typeAndCode = (DESTINATION_UNREACHABLE << 8) | code;
  putU16(memory, p, typeAndCode);
  putU16(memory, p + 2, ~fold(typeAndCode + mtu + sum(memory, quote, length)));
  putU32(memory, p + 4, mtu);
}

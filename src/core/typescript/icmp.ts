/** ICMP: the message that says that a destination cannot be reached (RFC 792), with the next hop's MTU (RFC 1191 §4). */
import { getU8, getU16, type Memory, putI32, putU16 } from './bytes.ts';
import { fold, sum } from './checksum.ts';

// From the specification. Offsets in bytes; behind it the packet that it is about begins:
//
//     0      1      2          4        6     8
//     | type | code | checksum | unused | MTU | internet header and more

/** IANA protocol number of ICMP. */
export const PROTOCOL_ICMP = 1;
/** Bytes before what is quoted. */
export const ICMP_LENGTH = 8;
export const UNREACHABLE = 3;
/** Codes of that type. The largest is that of RFC 1812 §5.2.7.1. */
export const HOST_UNREACHABLE = 1;
export const PROTOCOL_UNREACHABLE = 2;
export const PORT_UNREACHABLE = 3;
export const FRAGMENTATION_NEEDED = 4;
export const MAX_CODE = 15;

/** Types of messages that are about other packets: of these, none is answered (RFC 1122 §3.2.2). */
const SOURCE_QUENCH = 4;
const REDIRECT = 5;
const TIME_EXCEEDED = 11;
const PARAMETER_PROBLEM = 12;

/** The type of the message at `p`. */
export function icmpType(memory: Memory, p: number): number {
  return getU8(memory, p);
}

/** The code of the message at `p`. */
export function icmpCode(memory: Memory, p: number): number {
  return getU8(memory, p + 1);
}

/** The MTU that the message at `p` tells, in bytes, if it is one of those that do; 0 from routers that do not yet. */
export function nextHopMtu(memory: Memory, p: number): number {
  return getU16(memory, p + 6);
}

/** Whether messages of the type are about other packets. */
export function isError(type: number): boolean {
  return (
    type === UNREACHABLE ||
    type === SOURCE_QUENCH ||
    type === REDIRECT ||
    type === TIME_EXCEEDED ||
    type === PARAMETER_PROBLEM
  );
}

/** Puts the message of type UNREACHABLE at `p` that quotes `length` bytes from `quote`, which lie elsewhere. */
export function putUnreachable(
  memory: Memory,
  p: number,
  code: number,
  mtu: number,
  quote: number,
  length: number,
): void {
  const typeAndCode = (UNREACHABLE << 8) | code;
  const checksum = ~fold(typeAndCode + mtu + sum(memory, quote, length));
  putU16(memory, p, typeAndCode);
  putU16(memory, p + 2, checksum);
  putI32(memory, p + 4, mtu);
}

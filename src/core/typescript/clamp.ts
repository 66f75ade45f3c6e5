/**
 * Clamping: the maximum segment size that TCP announces (RFC 9293 §3.7.1) is lowered to what fits the tunnel, for hosts
 * whose path MTU discovery does not work.
 */
import { getU16, loadU8, type Memory, putU16 } from './bytes.ts';
import { update } from './checksum.ts';
import * as ipv4 from './ipv4.ts';
import { optionLength } from './options.ts';
import * as transport from './transport.ts';

// From the specification: kind 2, length 4, and the number.

const MAXIMUM_SEGMENT_SIZE = 2;
const MAXIMUM_SEGMENT_SIZE_LENGTH = 4;
/** What a segment adds, "less fixed IP and TCP headers": options are no part of the number (RFC 6691 §2). */
const FIXED_HEADERS = ipv4.IPV4_LENGTH + transport.TCP_MIN_LENGTH;

/** Whether the packet at `p` is TCP that opens a connection, and all of its headers are there: what can be clamped. */
export function canClamp(memory: Memory, p: number): boolean {
  if (ipv4.protocol(memory, p) !== transport.PROTOCOL_TCP || !transport.hasHeaders(memory, p)) return false;
  return (loadU8(memory, p + ipv4.headerLength(memory, p) + transport.TCP_FLAGS) & transport.SYN) !== 0;
}

/** Clamps such a packet to packets of `limit` bytes. `isOpen` says that its checksum does not cover the options yet. */
export function clampMss(memory: Memory, p: number, limit: number, isOpen: boolean): void {
  const t = p + ipv4.headerLength(memory, p);
  const end = t + transport.tcpLength(memory, t);
  const most = limit - FIXED_HEADERS;
  for (let o = t + transport.TCP_MIN_LENGTH; o < end; ) {
    const length = optionLength(memory, o, end);
    if (length === 0) return;
    const isMss = length === MAXIMUM_SEGMENT_SIZE_LENGTH && loadU8(memory, o) === MAXIMUM_SEGMENT_SIZE;
    if (isMss && getU16(memory, o + 2) > most) putNumber(memory, t, o + 2, most, isOpen);
    o += length;
  }
}

/** Puts another number at `at` into the TCP header at `t`, and the checksum that follows. */
function putNumber(memory: Memory, t: number, at: number, number: number, isOpen: boolean): void {
  const old = getU16(memory, at);
  putU16(memory, at, number);
  if (isOpen) return;
  const field = t + transport.TCP_CHECKSUM;
  // At an odd place, the two bytes are halves of two words that are summed: what one adds, the sum of swapped ones adds swapped (RFC 1071 §2(B)).
  const isOdd = ((at - t) & 1) !== 0;
  const checksum = getU16(memory, field);
  putU16(memory, field, isOdd ? update(checksum, swap(old), swap(number)) : update(checksum, old, number));
}

function swap(number: number): number {
  return ((number & 0xff) << 8) | (number >>> 8);
}

/**
 * GRE header (RFC 2784 §2, with the key and sequence number of RFC 2890 §2).
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    |C| |K|S| Reserved0       | Ver |         Protocol Type         |
 *    |      Checksum (optional)      |       Reserved1 (Optional)    |
 *    |                         Key (optional)                        |
 *    |                 Sequence Number (Optional)                    |
 */
import {
  DROP_GRE_CHECKSUM,
  DROP_GRE_FLAGS,
  DROP_GRE_KEY,
  DROP_GRE_PROTOCOL,
  DROP_GRE_VERSION,
  DROP_TRUNCATED,
  OPTION_CHECKSUM,
  OPTION_KEY,
  OPTION_SEQUENCE,
} from '../src/core/abi';
import { getU16, getU32, putU32 } from './bytes';
import { fold, sum, verifies } from './checksum';
import { hasOption, key, options } from './config';

// From the specification.
export const PROTOCOL_GRE: u32 = 47;
export const GRE_MIN_LENGTH: i32 = 4;
const OPTION_LENGTH: i32 = 4;
const CHECKSUM_PRESENT: u32 = 0x8000;
const KEY_PRESENT: u32 = 0x2000;
const SEQUENCE_PRESENT: u32 = 0x1000;
/** "A receiver MUST discard a packet where any of bits 1-5 are non-zero" (RFC 2784 §2.3), but for those that RFC 2890 gave a meaning. */
const MUST_BE_ZERO: u32 = 0x4c00;
const VERSION_MASK: u32 = 7;
const TYPE_IPV4: u32 = 0x0800;

const FIELDS: i32 = OPTION_CHECKSUM | OPTION_KEY | OPTION_SEQUENCE;

/** Length in bytes of the header that `putGre` writes. */
export function greLength(): i32 {
  return GRE_MIN_LENGTH + OPTION_LENGTH * popcnt<i32>(options() & FIELDS);
}

/**
 * Checks the GRE header at `p`, where `length` bytes of header and payload are; answers its length in bytes, or the drop reason. What the kernel has merged has the
 * checksum of its first packet: GRO has seen to all of them (gre_gro_receive, net/ipv4/gre_offload.c).
 */
export function checkGre(p: usize, length: i32, isMerged: bool): i32 {
  if (length < GRE_MIN_LENGTH) return DROP_TRUNCATED;
  const flags = getU16(p);
  if ((flags & VERSION_MASK) !== 0) return DROP_GRE_VERSION;
  if ((flags & MUST_BE_ZERO) !== 0) return DROP_GRE_FLAGS;
  const keyAt = GRE_MIN_LENGTH + ((flags & CHECKSUM_PRESENT) !== 0 ? OPTION_LENGTH : 0);
  const header = statedLength(p);
  if (length < header) return DROP_TRUNCATED;
  if ((flags & CHECKSUM_PRESENT) !== 0 && !isMerged && !verifies(p, length)) return DROP_GRE_CHECKSUM;
  if (getU16(p + 2) !== TYPE_IPV4) return DROP_GRE_PROTOCOL;
  const keyed = hasOption(OPTION_KEY);
  if (keyed !== ((flags & KEY_PRESENT) !== 0)) return DROP_GRE_KEY;
  if (keyed && getU32(p + <usize>keyAt) !== key()) return DROP_GRE_KEY;
  return header;
}

/** Length in bytes that the header at `p` says it has. */
export function statedLength(p: usize): i32 {
  return GRE_MIN_LENGTH + OPTION_LENGTH * popcnt<i32>(getU16(p) & (CHECKSUM_PRESENT | KEY_PRESENT | SEQUENCE_PRESENT));
}

/** Whether the checked header at `p`, `header` bytes long, has a sequence number that may follow those below `next`; 0 is where a VM begins anew. */
export function isInSequence(p: usize, header: i32, next: u32): bool {
  if ((getU16(p) & SEQUENCE_PRESENT) === 0) return false;
  const number = sequenceOf(p, header);
  return number === 0 || next === 0 || <i32>(number - next) >= 0;
}

/** The sequence number, the last field of the header at `p`. */
export function sequenceOf(p: usize, header: i32): u32 {
  return getU32(p + <usize>(header - OPTION_LENGTH));
}

/** The first 32 bits of our headers: flags and protocol type. */
export function firstWord(): u32 {
  let flags: u32 = 0;
  if (hasOption(OPTION_CHECKSUM)) flags |= CHECKSUM_PRESENT;
  if (hasOption(OPTION_KEY)) flags |= KEY_PRESENT;
  if (hasOption(OPTION_SEQUENCE)) flags |= SEQUENCE_PRESENT;
  return (flags << 16) | TYPE_IPV4;
}

/** Where our headers have the key. */
export function keyOffset(): i32 {
  return hasOption(OPTION_CHECKSUM) ? GRE_MIN_LENGTH + OPTION_LENGTH : GRE_MIN_LENGTH;
}

/** Writes a header of `greLength()` bytes at `p`, before a packet whose bytes sum to `body`, if there is to be a checksum. */
export function putGre(p: usize, body: u64, sequence: u32): void {
  if ((options() & FIELDS) === 0) {
    putU32(p, TYPE_IPV4);
    return;
  }
  putU32(p, firstWord());
  let at = p + GRE_MIN_LENGTH;
  if (hasOption(OPTION_CHECKSUM)) {
    putU32(at, 0);
    at += OPTION_LENGTH;
  }
  if (hasOption(OPTION_KEY)) {
    putU32(at, key());
    at += OPTION_LENGTH;
  }
  if (hasOption(OPTION_SEQUENCE)) putU32(at, sequence);
  if (hasOption(OPTION_CHECKSUM)) store<u16>(p + GRE_MIN_LENGTH, <u16>~fold(sum(p, greLength(), body)));
}

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
} from '../src/core/abi';
import { getU16, getU32, putU32 } from './bytes';
import { verifies } from './checksum';
import { key, keyed } from './config';

// From the specification.
const GRE_MIN_LENGTH: i32 = 4;
const OPTION_LENGTH: i32 = 4;
const CHECKSUM_PRESENT: u32 = 0x8000;
const KEY_PRESENT: u32 = 0x2000;
const SEQUENCE_PRESENT: u32 = 0x1000;
/** "A receiver MUST discard a packet where any of bits 1-5 are non-zero" (RFC 2784 §2.3), but for those that RFC 2890 gave a meaning. */
const MUST_BE_ZERO: u32 = 0x4c00;
const VERSION_MASK: u32 = 7;
const TYPE_IPV4: u32 = 0x0800;

/** Length in bytes of the header that `putGre` writes. */
export function greLength(): i32 {
  return keyed() ? GRE_MIN_LENGTH + OPTION_LENGTH : GRE_MIN_LENGTH;
}

/** Checks the GRE header at `p`, where `length` bytes of header and payload are; answers its length in bytes, or the drop reason. */
export function checkGre(p: usize, length: i32): i32 {
  if (length < GRE_MIN_LENGTH) return DROP_TRUNCATED;
  const flags = getU16(p);
  if ((flags & VERSION_MASK) !== 0) return DROP_GRE_VERSION;
  if ((flags & MUST_BE_ZERO) !== 0) return DROP_GRE_FLAGS;
  const keyAt = GRE_MIN_LENGTH + ((flags & CHECKSUM_PRESENT) !== 0 ? OPTION_LENGTH : 0);
  const sequenceAt = keyAt + ((flags & KEY_PRESENT) !== 0 ? OPTION_LENGTH : 0);
  const header = sequenceAt + ((flags & SEQUENCE_PRESENT) !== 0 ? OPTION_LENGTH : 0);
  if (length < header) return DROP_TRUNCATED;
  if ((flags & CHECKSUM_PRESENT) !== 0 && !verifies(p, length)) return DROP_GRE_CHECKSUM;
  if (getU16(p + 2) !== TYPE_IPV4) return DROP_GRE_PROTOCOL;
  if (keyed() !== ((flags & KEY_PRESENT) !== 0)) return DROP_GRE_KEY;
  if (keyed() && getU32(p + <usize>keyAt) !== key()) return DROP_GRE_KEY;
  return header;
}

/** Writes a header of `greLength()` bytes at `p`. */
export function putGre(p: usize): void {
  if (keyed()) {
    putU32(p, (KEY_PRESENT << 16) | TYPE_IPV4);
    putU32(p + 4, key());
  } else {
    putU32(p, TYPE_IPV4);
  }
}

/** GRE header (RFC 2784, with the key and sequence number fields of RFC 2890). */
import * as abi from '../abi.ts';
import { getI32, getU16, type Memory, putI32, putU16 } from './bytes.ts';
import { ALL_ONES, fold, sum } from './checksum.ts';

// From the specification. Offsets in bytes; checksum, key and sequence number are there if C, K and S say so:
//
//     0                      2               4                     +4    +4
//     | C 0 K S ... version | protocol type | checksum, reserved1 | key | sequence number |

/** Bytes in a header without optional fields, and in each optional field. */
export const BASE_LENGTH = 4;
const FIELD_LENGTH = 4;
const CHECKSUM_PRESENT = 0x8000;
const KEY_PRESENT = 0x2000;
const SEQUENCE_PRESENT = 0x1000;
/**
 * Routing present, strict source route and the upper recursion control bit of RFC 1701: "A receiver MUST discard a
 * packet where any of bits 1-5 are non-zero, unless that receiver implements RFC 1701" (RFC 2784 §2.3); RFC 2890 takes two.
 */
const REFUSED_FLAGS = 0x4c00;
const VERSION_MASK = 0x0007;
/** EtherType of IPv4. */
const TYPE_IPV4 = 0x0800;

/** The OPTION_ bits that add a field. */
const FIELDS = abi.OPTION_CHECKSUM | abi.OPTION_KEY | abi.OPTION_SEQUENCE;

/** Bytes in the header that `putGre` puts. `options` here and below are those that are configured. */
export function greLength(options: number): number {
  if ((options & FIELDS) === 0) return BASE_LENGTH;
  return keyOffset(options) + lengthOf(options, abi.OPTION_KEY) + lengthOf(options, abi.OPTION_SEQUENCE);
}

/** Where the key is, if there is one, in bytes from the start of the header that `putGre` puts. */
export function keyOffset(options: number): number {
  return BASE_LENGTH + lengthOf(options, abi.OPTION_CHECKSUM);
}

/** The first 32 bits of the header that `putGre` puts: flags and type. */
export function firstWord(options: number): number {
  const flags =
    ((options & abi.OPTION_CHECKSUM) === 0 ? 0 : CHECKSUM_PRESENT) |
    ((options & abi.OPTION_KEY) === 0 ? 0 : KEY_PRESENT) |
    ((options & abi.OPTION_SEQUENCE) === 0 ? 0 : SEQUENCE_PRESENT);
  return (flags << 16) | TYPE_IPV4;
}

/** Bytes in the field that the option, one bit, adds. */
function lengthOf(options: number, option: number): number {
  return (options & option) === 0 ? 0 : FIELD_LENGTH;
}

/**
 * Checks the header at `p`; `length` counts the bytes from `p` to the end of the packet. `key` is a signed number. With
 * `isVerified` the kernel has verified checksums: it merged packets after that, and left the first one's where it was.
 * Returns the bytes in the header, or a drop reason.
 */
export function checkGre(
  memory: Memory,
  p: number,
  length: number,
  options: number,
  key: number,
  isVerified: boolean,
): number {
  if (length < BASE_LENGTH) return abi.DROP_TRUNCATED;
  const flags = getU16(memory, p);
  if ((flags & VERSION_MASK) !== 0) return abi.DROP_GRE_VERSION;
  if ((flags & REFUSED_FLAGS) !== 0) return abi.DROP_GRE_FLAGS;

  const keyAt = (flags & CHECKSUM_PRESENT) === 0 ? BASE_LENGTH : BASE_LENGTH + FIELD_LENGTH;
  const header = statedLength(flags);
  if (header > length) return abi.DROP_TRUNCATED;

  const isSummed = (flags & CHECKSUM_PRESENT) !== 0 && !isVerified;
  if (isSummed && sum(memory, p, length) !== ALL_ONES) return abi.DROP_GRE_CHECKSUM;
  if (getU16(memory, p + 2) !== TYPE_IPV4) return abi.DROP_GRE_PROTOCOL;
  // A key identifies "an individual traffic flow within a tunnel" (RFC 2890 §2.1); another's is not for this VM.
  const isKeyed = (options & abi.OPTION_KEY) !== 0;
  if ((flags & KEY_PRESENT) === 0 ? isKeyed : !isKeyed || getI32(memory, p + keyAt) !== key) {
    return abi.DROP_GRE_KEY;
  }
  return header;
}

/** Bytes in a header with these flags. */
export function statedLength(flags: number): number {
  const checksum = (flags & CHECKSUM_PRESENT) === 0 ? 0 : FIELD_LENGTH;
  const key = (flags & KEY_PRESENT) === 0 ? 0 : FIELD_LENGTH;
  return BASE_LENGTH + checksum + key + ((flags & SEQUENCE_PRESENT) === 0 ? 0 : FIELD_LENGTH);
}

/** Whether the header at `p` has a sequence number. */
export function hasSequence(memory: Memory, p: number): boolean {
  return (getU16(memory, p) & SEQUENCE_PRESENT) !== 0;
}

/** That number, as a signed one: the last field of the header that ends at `end`. */
export function sequenceBefore(memory: Memory, end: number): number {
  return getI32(memory, end - FIELD_LENGTH);
}

/**
 * Puts a header of `greLength(options)` bytes at `p`. `innerSum` is the ones-complement sum over the IPv4 packet that
 * follows; it counts, as does `sequence`, only if there is such a field.
 */
export function putGre(
  memory: Memory,
  p: number,
  options: number,
  key: number,
  sequence: number,
  innerSum: number,
): void {
  if ((options & FIELDS) === 0) {
    putI32(memory, p, TYPE_IPV4);
  } else {
    putFields(memory, p, options, key, sequence, innerSum);
  }
}

/** As `putGre`, where there is at least one field. */
function putFields(memory: Memory, p: number, options: number, key: number, sequence: number, innerSum: number): void {
  putI32(memory, p, firstWord(options));
  const keyAt = p + keyOffset(options);
  const isSummed = (options & abi.OPTION_CHECKSUM) !== 0;
  if (isSummed) putI32(memory, p + BASE_LENGTH, 0);
  if ((options & abi.OPTION_KEY) !== 0) putI32(memory, keyAt, key);
  if ((options & abi.OPTION_SEQUENCE) !== 0) putI32(memory, keyAt + lengthOf(options, abi.OPTION_KEY), sequence);
  // All else is there by now: the checksum covers "all the 16 bit words in the GRE header and the payload" (RFC 2784 §2.5).
  if (isSummed) putU16(memory, p + BASE_LENGTH, ~fold(sum(memory, p, greLength(options)) + innerSum));
}

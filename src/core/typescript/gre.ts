/** GRE header (RFC 2784, with the key and sequence number fields of RFC 2890). */
import * as abi from '../abi.ts';
import { getU16, getU32, type Memory, putU16, putU32 } from './bytes.ts';
import { fold, sum, verifies } from './checksum.ts';
import * as config from './config.ts';

// From the specification. Offsets in bytes; checksum, key and sequence number are there if C, K and S say so:
//
//     0                      2               4                     +4    +4
//     | C 0 K S ... version | protocol type | checksum, reserved1 | key | sequence number |

/** IANA protocol number. */
export const PROTOCOL_GRE = 47;
/** Bytes in a header without optional fields, and in each optional field. */
export const GRE_MIN_LENGTH = 4;
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

/** Bytes in the header that `putGre` puts. */
export function greLength(memory: Memory): number {
  const key = config.hasOption(memory, abi.OPTION_KEY) ? FIELD_LENGTH : 0;
  const sequence = config.hasOption(memory, abi.OPTION_SEQUENCE) ? FIELD_LENGTH : 0;
  return keyOffset(memory) + key + sequence;
}

/**
 * Checks the header at `p`; `length` counts the bytes from `p` to the end of the packet. With `isMerged` the kernel has verified
 * checksums: it merged packets after that, and left the first one's where it was. Returns the bytes in the header, or a drop reason.
 */
export function checkGre(memory: Memory, p: number, length: number, isMerged: boolean): number {
  if (length < GRE_MIN_LENGTH) return abi.DROP_TRUNCATED;
  const flags = getU16(memory, p);
  if ((flags & VERSION_MASK) !== 0) return abi.DROP_GRE_VERSION;
  if ((flags & REFUSED_FLAGS) !== 0) return abi.DROP_GRE_FLAGS;

  const isSummed = (flags & CHECKSUM_PRESENT) !== 0;
  const isKeyed = (flags & KEY_PRESENT) !== 0;
  const header = statedLength(memory, p);
  if (header > length) return abi.DROP_TRUNCATED;
  if (isSummed && !isMerged && !verifies(memory, p, length)) return abi.DROP_GRE_CHECKSUM;
  if (getU16(memory, p + 2) !== TYPE_IPV4) return abi.DROP_GRE_PROTOCOL;
  // A key identifies "an individual traffic flow within a tunnel" (RFC 2890 §2.1); another's is not for this VM.
  const keyAt = p + GRE_MIN_LENGTH + (isSummed ? FIELD_LENGTH : 0);
  if (isKeyed !== config.hasOption(memory, abi.OPTION_KEY)) return abi.DROP_GRE_KEY;
  return isKeyed && getU32(memory, keyAt) !== config.key(memory) ? abi.DROP_GRE_KEY : header;
}

/** Bytes that the header at `p` says it has. */
export function statedLength(memory: Memory, p: number): number {
  const flags = getU16(memory, p);
  const checksum = (flags & CHECKSUM_PRESENT) === 0 ? 0 : FIELD_LENGTH;
  const key = (flags & KEY_PRESENT) === 0 ? 0 : FIELD_LENGTH;
  const sequence = (flags & SEQUENCE_PRESENT) === 0 ? 0 : FIELD_LENGTH;
  return GRE_MIN_LENGTH + checksum + key + sequence;
}

/**
 * Whether the header at `p`, `header` bytes long, has a sequence number that is none before those that have come, of which `next` is the
 * lowest that may follow. Numbers wrap (RFC 2890 §2.2). 0 is where a VM begins anew that was restarted.
 */
export function isInSequence(memory: Memory, p: number, header: number, next: number): boolean {
  if ((getU16(memory, p) & SEQUENCE_PRESENT) === 0) return false;
  const number = sequenceOf(memory, p, header);
  return number === 0 || next === 0 || ((number - next) | 0) >= 0;
}

/** The sequence number in the header at `p`: its last field. */
export function sequenceOf(memory: Memory, p: number, header: number): number {
  return getU32(memory, p + header - FIELD_LENGTH);
}

/** The first 32 bits of the header that `putGre` puts: flags and type. */
export function firstWord(memory: Memory): number {
  const options = config.options(memory);
  const checksum = (options & abi.OPTION_CHECKSUM) === 0 ? 0 : CHECKSUM_PRESENT;
  const key = (options & abi.OPTION_KEY) === 0 ? 0 : KEY_PRESENT;
  const sequence = (options & abi.OPTION_SEQUENCE) === 0 ? 0 : SEQUENCE_PRESENT;
  return ((checksum | key | sequence) << 16) | TYPE_IPV4;
}

/** Where the key is, if there is one, in bytes from the start of the header that `putGre` puts. */
export function keyOffset(memory: Memory): number {
  return GRE_MIN_LENGTH + (config.hasOption(memory, abi.OPTION_CHECKSUM) ? FIELD_LENGTH : 0);
}

/**
 * Puts a header of `greLength` bytes at `p`. `body` is the sum of what follows, perhaps in parts that are added up; it counts, as does
 * `sequence`, only if there is such a field.
 */
export function putGre(memory: Memory, p: number, body: number, sequence: number): void {
  const options = config.options(memory);
  putU32(memory, p, firstWord(memory));
  let end = p + GRE_MIN_LENGTH;
  if ((options & abi.OPTION_CHECKSUM) !== 0) {
    putU32(memory, end, 0);
    end += FIELD_LENGTH;
  }
  if ((options & abi.OPTION_KEY) !== 0) {
    putU32(memory, end, config.key(memory));
    end += FIELD_LENGTH;
  }
  if ((options & abi.OPTION_SEQUENCE) !== 0) {
    putU32(memory, end, sequence);
    end += FIELD_LENGTH;
  }
  if ((options & abi.OPTION_CHECKSUM) === 0) return;
  // All else is there by now: the checksum covers "all the 16 bit words in the GRE header and the payload" (RFC 2784 §2.5).
  putU16(memory, p + GRE_MIN_LENGTH, ~fold(sum(memory, p, end - p) + body));
}

/** GRE header (RFC 2784, with the key and sequence number fields of RFC 2890). */
import * as abi from '../abi.ts';
import { getI32, getU16, type Memory, putI32 } from './bytes.ts';
import { ALL_ONES, sum } from './checksum.ts';

// From the specification. Offsets in bytes; checksum, key and sequence number are there if C, K and S say so:
//
//     0                      2               4                     +4    +4
//     | C 0 K S ... version | protocol type | checksum, reserved1 | key | sequence number |

/** Bytes in a header without optional fields, and in each optional field. */
const BASE_LENGTH = 4;
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

/** Bytes in the header that `putGre` puts; `keyed` is 0 or 1. */
export function greLength(keyed: number): number {
  return BASE_LENGTH + FIELD_LENGTH * keyed;
}

/**
 * Checks the header at `p`; `length` counts the bytes from `p` to the end of the packet. `keyed` is 0 or 1, `key` a
 * signed number. Returns the bytes in the header, or a drop reason.
 */
export function checkGre(memory: Memory, p: number, length: number, keyed: number, key: number): number {
  if (length < BASE_LENGTH) return abi.DROP_TRUNCATED;
  const flags = getU16(memory, p);
  if ((flags & VERSION_MASK) !== 0) return abi.DROP_GRE_VERSION;
  if ((flags & REFUSED_FLAGS) !== 0) return abi.DROP_GRE_FLAGS;

  const keyAt = (flags & CHECKSUM_PRESENT) === 0 ? BASE_LENGTH : BASE_LENGTH + FIELD_LENGTH;
  const sequenceAt = (flags & KEY_PRESENT) === 0 ? keyAt : keyAt + FIELD_LENGTH;
  const header = (flags & SEQUENCE_PRESENT) === 0 ? sequenceAt : sequenceAt + FIELD_LENGTH;
  if (header > length) return abi.DROP_TRUNCATED;

  if ((flags & CHECKSUM_PRESENT) !== 0 && sum(memory, p, length) !== ALL_ONES) return abi.DROP_GRE_CHECKSUM;
  if (getU16(memory, p + 2) !== TYPE_IPV4) return abi.DROP_GRE_PROTOCOL;
  // A key identifies "an individual traffic flow within a tunnel" (RFC 2890 §2.1); another's is not for this VM.
  if ((flags & KEY_PRESENT) === 0 ? keyed !== 0 : keyed === 0 || getI32(memory, p + keyAt) !== key) {
    return abi.DROP_GRE_KEY;
  }
  return header;
}

/** Puts a header of `greLength(keyed)` bytes for an IPv4 packet at `p`. */
export function putGre(memory: Memory, p: number, keyed: number, key: number): void {
  if (keyed === 0) {
    putI32(memory, p, TYPE_IPV4);
  } else {
    putI32(memory, p, (KEY_PRESENT << 16) | TYPE_IPV4);
    putI32(memory, p + BASE_LENGTH, key);
  }
}

/** Internet checksum (RFC 1071). */
import { type Memory, putU16 } from './bytes.ts';

// From the specification.

/** The ones-complement sum over data that includes its own, right checksum (RFC 1071 §1). */
export const ALL_ONES = 0xffff;

/**
 * The ones-complement sum of the 16-bit words in `length` bytes from `p`, any alignment; an odd last byte counts as the
 * upper half of a word (RFC 1071 §1). At most 131,072 bytes: so many words of 16 bits fit into 32 without a carry.
 */
export function sum(memory: Memory, p: number, length: number): number {
  const end = p + length;
  // Summed in little-endian and swapped once at the end: the sum does not depend on byte order (RFC 1071 §2(B)).
  let total = 0;
  for (const blocks = end - 15; p < blocks; p += 16) {
    const a = memory.getInt32(p, true);
    const b = memory.getInt32(p + 4, true);
    const c = memory.getInt32(p + 8, true);
    const d = memory.getInt32(p + 12, true);
    total = (total + (a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16)) | 0;
    total = (total + (c & 0xffff) + (c >>> 16) + (d & 0xffff) + (d >>> 16)) | 0;
  }
  for (const words = end - 1; p < words; p += 2) {
    total = (total + memory.getUint16(p, true)) | 0;
  }
  if (p < end) total = (total + memory.getUint8(p)) | 0;
  const folded = fold(total);
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/**
 * Puts at `field` the checksum over the bytes from `start` to `end`, in which the field holds the sum of what else is to
 * be covered: skb_checksum_help. In UDP, 0 would mean that there is none (RFC 768); everywhere else both stand for zero.
 */
export function completeSum(memory: Memory, start: number, end: number, field: number): void {
  const checksum = ~sum(memory, start, end - start) & 0xffff;
  putU16(memory, field, checksum === 0 ? 0xffff : checksum);
}

/**
 * The checksum of a header in which the 16 bits `from` become `to`, wherever they are: "HC' = ~(~HC + ~m + m')"
 * (RFC 1624 §3).
 */
export function updated(checksum: number, from: number, to: number): number {
  return ~fold((~checksum & 0xffff) + (~from & 0xffff) + to) & 0xffff;
}

/** Folds a sum of 16-bit words, an unsigned number of 32 bits, to 16 bits by adding the carries back (RFC 1071 §4.1). */
export function fold(total: number): number {
  // The first addition may carry once more, the second cannot.
  const once = (total & 0xffff) + (total >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

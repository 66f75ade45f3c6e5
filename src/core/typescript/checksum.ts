/** The Internet checksum (RFC 1071). */
import { loadU8, loadU16, loadU32, type Memory } from './bytes.ts';

/** The ones-complement sum over data that includes its own, right checksum (RFC 1071 §1 (3)). */
const ALL_ONES = 0xffff;

/**
 * The ones-complement sum of the 16-bit words in `length` bytes from `p`, any alignment; an odd last byte counts as the upper half of
 * a word. At most 131,072 bytes: so many words of 16 bits fit into 32 without a carry.
 *
 * Sixteen bytes a step: each load of a DataView checks bounds, and with one load a step the benchmark would compare little else. Words are
 * summed in little-endian and swapped once at the end, since the sum does not depend on byte order (RFC 1071 §2 (B)).
 */
export function sum(memory: Memory, p: number, length: number): number {
  const end = p + length;
  let total = 0;
  for (const blocks = end - 15; p < blocks; p += 16) {
    const a = loadU32(memory, p);
    const b = loadU32(memory, p + 4);
    const c = loadU32(memory, p + 8);
    const d = loadU32(memory, p + 12);
    total = (total + (a & 0xffff) + (a >>> 16) + (b & 0xffff) + (b >>> 16)) | 0;
    total = (total + (c & 0xffff) + (c >>> 16) + (d & 0xffff) + (d >>> 16)) | 0;
  }
  for (const words = end - 1; p < words; p += 2) total = (total + loadU16(memory, p)) | 0;
  if (p < end) total = (total + loadU8(memory, p)) | 0;
  const folded = fold(total);
  return ((folded & 0xff) << 8) | (folded >>> 8);
}

/** Folds a sum of 16-bit words, 32 bits, to 16 bits by adding the carries back (RFC 1071 §4.1). */
export function fold(total: number): number {
  // The first addition may carry once more, the second cannot.
  const once = (total & 0xffff) + (total >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** Whether the `length` bytes at `p`, their checksum among them, have no error. */
export function verifies(memory: Memory, p: number, length: number): boolean {
  return sum(memory, p, length) === ALL_ONES;
}

/** What a checksum becomes if one of the 16-bit words that it covers was `from` and is `to`: "HC' = ~(~HC + ~m + m')" (RFC 1624 §3). */
export function update(checksum: number, from: number, to: number): number {
  return ~fold((~checksum & 0xffff) + (~from & 0xffff) + to) & 0xffff;
}

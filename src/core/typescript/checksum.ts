/** The Internet checksum (RFC 1071). */
import type { Memory } from './bytes.ts';

/** The ones-complement sum over data that includes its own, right checksum (RFC 1071 §1 (3)). */
const ALL_ONES = 0xffff;

/**
 * The ones-complement sum of the 16-bit words in `length` bytes from `p`, any alignment; an odd last byte counts as the upper half of
 * a word. At most 131,072 bytes: so many words of 16 bits fit into 32 without a carry.
 */
export function sum(memory: Memory, p: number, length: number): number {
  const end = p + length;
  let total = 0;
  for (; p + 4 <= end; p += 4) {
    const words = memory.getInt32(p);
    total += (words >>> 16) + (words & 0xffff);
  }
  for (; p + 2 <= end; p += 2) total += memory.getUint16(p);
  if (p < end) total += memory.getUint8(p) << 8;
  return fold(total);
}

/** Folds a sum of 16-bit words, less than 2^32, to 16 bits by adding the carries back (RFC 1071 §4.1). */
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

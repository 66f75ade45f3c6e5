/**
 * The Internet checksum (RFC 1071).
 *
 * Sums are taken over 16-bit words as they lie in memory, low byte first: the ones-complement sum is the same in either byte
 * order but for a final swap (RFC 1071 §2 (B)), so `store<u16>(p, checksum)` needs none.
 */

/** Adds the `length` bytes at `p` to the running sum `initial`; an odd last byte counts as if a zero followed. */
export function sum(p: usize, length: i32, initial: u64): u64 {
  let total = initial;
  let rest = length;
  if (ASC_FEATURE_SIMD) {
    // Each 32-bit lane grows by at most 2 * 0xffff a step: room for 32,768 steps, and a packet has at most 1,024.
    if (rest >= 64) {
      let a = i32x4.splat(0);
      let b = i32x4.splat(0);
      let c = i32x4.splat(0);
      let d = i32x4.splat(0);
      do {
        a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(p)));
        b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(v128.load(p, 16)));
        c = i32x4.add(c, i32x4.extadd_pairwise_i16x8_u(v128.load(p, 32)));
        d = i32x4.add(d, i32x4.extadd_pairwise_i16x8_u(v128.load(p, 48)));
        p += 64;
        rest -= 64;
      } while (rest >= 64);
      a = i32x4.add(i32x4.add(a, b), i32x4.add(c, d));
      total += <u64>(<u32>i32x4.extract_lane(a, 0)) + <u64>(<u32>i32x4.extract_lane(a, 1));
      total += <u64>(<u32>i32x4.extract_lane(a, 2)) + <u64>(<u32>i32x4.extract_lane(a, 3));
    }
  }
  while (rest >= 8) {
    const word = load<u64>(p);
    total += (word & 0xffffffff) + (word >> 32);
    p += 8;
    rest -= 8;
  }
  if (rest >= 4) {
    total += <u64>load<u32>(p);
    p += 4;
    rest -= 4;
  }
  if (rest >= 2) {
    total += <u64>load<u16>(p);
    p += 2;
    rest -= 2;
  }
  if (rest > 0) total += <u64>load<u8>(p);
  return total;
}

/** Folds a running sum to the 16-bit ones-complement sum. */
export function fold(total: u64): u32 {
  let folded = (total & 0xffffffff) + (total >> 32);
  folded = (folded & 0xffff) + (folded >> 16);
  folded = (folded & 0xffff) + (folded >> 16);
  folded = (folded & 0xffff) + (folded >> 16);
  return <u32>folded;
}

/** True if the bytes at `p`, their checksum field among them, sum to all ones (RFC 1071 §1 (3)). */
export function verifies(p: usize, length: i32): bool {
  return fold(sum(p, length, 0)) === 0xffff;
}

/** What the checksum becomes when a word changes from `old` to `now` (RFC 1624 §3, equation 3); all as they lie in memory. */
export function update(checksum: u16, old: u16, now: u16): u16 {
  return <u16>~fold(<u64>(~checksum & 0xffff) + <u64>(~old & 0xffff) + <u64>now);
}

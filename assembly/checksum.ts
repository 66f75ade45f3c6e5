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
    // Two sums of 64-bit words: of whole ones, without what is carried out, and of their upper halves, which never overflow. The second tells what the first lacks.
    if (rest >= 64) {
      let a = i64x2.splat(0);
      let b = i64x2.splat(0);
      let c = i64x2.splat(0);
      let d = i64x2.splat(0);
      do {
        const v0 = v128.load(p);
        const v1 = v128.load(p, 16);
        const v2 = v128.load(p, 32);
        const v3 = v128.load(p, 48);
        a = i64x2.add(a, v0);
        b = i64x2.add(b, i64x2.shr_u(v0, 32));
        c = i64x2.add(c, v1);
        d = i64x2.add(d, i64x2.shr_u(v1, 32));
        a = i64x2.add(a, v2);
        b = i64x2.add(b, i64x2.shr_u(v2, 32));
        c = i64x2.add(c, v3);
        d = i64x2.add(d, i64x2.shr_u(v3, 32));
        p += 64;
        rest -= 64;
      } while (rest >= 64);
      a = i64x2.add(a, c);
      b = i64x2.add(b, d);
      const whole = <u64>(i64x2.extract_lane(a, 0) + i64x2.extract_lane(a, 1));
      const upper = <u64>(i64x2.extract_lane(b, 0) + i64x2.extract_lane(b, 1));
      total += whole - (upper << 32) + upper;
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

/** Folds a running sum to the 16-bit ones-complement sum: each half is added to the other, and what is carried out of the lower one is carried in again. */
export function fold(total: u64): u32 {
  const words = <u32>((total + rotl<u64>(total, 32)) >> 32);
  return (words + rotl<u32>(words, 16)) >> 16;
}

/** True if the bytes at `p`, their checksum field among them, sum to all ones (RFC 1071 §1 (3)). */
export function verifies(p: usize, length: i32): bool {
  return fold(sum(p, length, 0)) === 0xffff;
}

/** What the checksum becomes when a word changes from `old` to `now` (RFC 1624 §3, equation 3); all as they lie in memory. */
export function update(checksum: u16, old: u16, now: u16): u16 {
  return <u16>~fold(<u64>(~checksum & 0xffff) + <u64>(~old & 0xffff) + <u64>now);
}

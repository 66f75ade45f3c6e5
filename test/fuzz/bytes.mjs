/** Numbers in network order, and the sum that all checksums are made of. None of it is the core's own code. */

export const u16 = (bytes, at) => (bytes[at] << 8) | bytes[at + 1];

/** 0 where the bytes end before. */
export const u32 = (bytes, at) => (at + 4 > bytes.length ? 0 : (u16(bytes, at) * 0x10000 + u16(bytes, at + 2)) >>> 0);

export function put16(bytes, at, value) {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes, at, value) {
  put16(bytes, at, value >>> 16);
  put16(bytes, at + 2, value);
}

/** The ones-complement sum of 16-bit words (RFC 1071), not complemented. */
export function sum(bytes, start, end, initial = 0) {
  let total = initial;
  let i = start;
  for (; i + 1 < end; i += 2) total += (bytes[i] << 8) | bytes[i + 1];
  if (i < end) total += bytes[i] << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

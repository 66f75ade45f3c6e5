/** Loads and stores in network byte order (RFC 1700); Wasm's own are little-endian. */

export function getU16(p: usize): u32 {
  return ((<u32>load<u8>(p)) << 8) | <u32>load<u8>(p, 1);
}

export function getU32(p: usize): u32 {
  return bswap<u32>(load<u32>(p));
}

export function putU16(p: usize, value: u32): void {
  store<u16>(p, bswap<u16>(<u16>value));
}

export function putU32(p: usize, value: u32): void {
  store<u32>(p, bswap<u32>(value));
}

/** Adds to the f64 at `p`. */
export function addF64(p: usize, value: f64): void {
  store<f64>(p, load<f64>(p) + value);
}

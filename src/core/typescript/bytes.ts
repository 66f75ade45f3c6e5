/**
 * Loads and stores over the core's memory: packets are in network order (RFC 1700), records in little-endian.
 *
 * A u32 is a signed number with the same 32 bits, everywhere in this folder: JavaScript's operators on bits give such numbers, so that
 * two of them are equal if their bits are.
 */

/** The memory of one core. */
export type Memory = DataView<ArrayBuffer>;

// Packets: network order.

/** The 16 bits at `p`, network order. */
export function getU16(memory: Memory, p: number): number {
  return memory.getUint16(p);
}

/** The 32 bits at `p`, network order. */
export function getU32(memory: Memory, p: number): number {
  return memory.getInt32(p);
}

/** Stores the low 16 bits of `value` at `p`, network order. */
export function putU16(memory: Memory, p: number, value: number): void {
  memory.setUint16(p, value);
}

/** Stores the low 32 bits of `value` at `p`, network order. */
export function putU32(memory: Memory, p: number, value: number): void {
  memory.setInt32(p, value);
}

/** Adds to the f64 at `p`. */
export function addF64(memory: Memory, p: number, value: number): void {
  storeF64(memory, p, loadF64(memory, p) + value);
}

// Records: little-endian, docs/abi.md. AssemblyScript has all of these built in.

export function loadU8(memory: Memory, p: number): number {
  return memory.getUint8(p);
}

export function loadU16(memory: Memory, p: number): number {
  return memory.getUint16(p, true);
}

export function loadU32(memory: Memory, p: number): number {
  return memory.getInt32(p, true);
}

export function loadF64(memory: Memory, p: number): number {
  return memory.getFloat64(p, true);
}

/** Stores the low 8 bits of `value`. */
export function storeU8(memory: Memory, p: number, value: number): void {
  memory.setUint8(p, value);
}

/** Stores the low 16 bits of `value`. */
export function storeU16(memory: Memory, p: number, value: number): void {
  memory.setUint16(p, value, true);
}

/** Stores the low 32 bits of `value`. */
export function storeU32(memory: Memory, p: number, value: number): void {
  memory.setInt32(p, value, true);
}

/** Stores `value`, which is from 0 to 2^31 - 1, in 64 bits. */
export function storeU64(memory: Memory, p: number, value: number): void {
  storeU32(memory, p, value);
  storeU32(memory, p + 4, 0);
}

export function storeF64(memory: Memory, p: number, value: number): void {
  memory.setFloat64(p, value, true);
}

/** Copies `size` bytes, a multiple of 4. */
export function copy(memory: Memory, to: number, from: number, size: number): void {
  for (let i = 0; i < size; i += 4) storeU32(memory, to + i, loadU32(memory, from + i));
}

/** Zeroes `size` bytes, a multiple of 4. */
export function clear(memory: Memory, p: number, size: number): void {
  for (let i = 0; i < size; i += 4) storeU32(memory, p + i, 0);
}

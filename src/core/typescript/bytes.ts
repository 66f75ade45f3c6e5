/**
 * Loads and stores over the core's memory: packets in network order (RFC 1700), records in little-endian.
 * 32-bit values travel as signed numbers with the same bits: V8 keeps those unboxed, while an address above 127.255.255.255
 * as an unsigned number would be an allocation wherever it leaves a register.
 */

/** The memory of one core. A DataView needs no alignment, and V8 compiles its loads and stores to one instruction each. */
export type Memory = DataView<ArrayBuffer>;

// Packets: network order.

/** The byte at `p`. */
export function getU8(memory: Memory, p: number): number {
  return memory.getUint8(p);
}

/** The 16 bits at `p`, network order. */
export function getU16(memory: Memory, p: number): number {
  return memory.getUint16(p);
}

/** The 32 bits at `p`, network order, as a signed number. */
export function getI32(memory: Memory, p: number): number {
  return memory.getInt32(p);
}

/** Stores the low 8 bits of `value` at `p`. */
export function putU8(memory: Memory, p: number, value: number): void {
  memory.setUint8(p, value);
}

/** Stores the low 16 bits of `value` at `p`, network order. */
export function putU16(memory: Memory, p: number, value: number): void {
  memory.setUint16(p, value);
}

/** Stores the low 32 bits of `value` at `p`, network order. */
export function putI32(memory: Memory, p: number, value: number): void {
  memory.setInt32(p, value);
}

// Records: little-endian, docs/abi.md.

/** The field of 16 bits at `p`. */
export function loadU16(memory: Memory, p: number): number {
  return memory.getUint16(p, true);
}

/** Stores the low 16 bits of `value` in the field at `p`. */
export function storeU16(memory: Memory, p: number, value: number): void {
  memory.setUint16(p, value, true);
}

/** The field of 32 bits at `p`, as a signed number. */
export function loadI32(memory: Memory, p: number): number {
  return memory.getInt32(p, true);
}

/** Stores the low 32 bits of `value` in the field at `p`. */
export function storeI32(memory: Memory, p: number, value: number): void {
  memory.setInt32(p, value, true);
}

/** The f64 field at `p`. */
export function loadF64(memory: Memory, p: number): number {
  return memory.getFloat64(p, true);
}

/** Stores the f64 field at `p`. */
export function storeF64(memory: Memory, p: number, value: number): void {
  memory.setFloat64(p, value, true);
}

/** Adds to the f64 field at `p`. */
export function addF64(memory: Memory, p: number, value: number): void {
  memory.setFloat64(p, memory.getFloat64(p, true) + value, true);
}

/** Stores `value`, at most 2^31 - 1, in the u64 field at `p`. */
export function storeU64(memory: Memory, p: number, value: number): void {
  memory.setInt32(p, value, true);
  memory.setInt32(p + 4, 0);
}

/** Zeroes the record of `size` bytes, a multiple of 4, at `p`. */
export function clear(memory: Memory, p: number, size: number): void {
  for (let i = 0; i < size; i += 4) memory.setInt32(p + i, 0);
}

/**
 * eBPF instructions (Documentation/bpf/standardization/instruction-set.rst), those that Inlay's programs use,
 * and jumps to labels.
 */

import { distancesIn, type Label, nameOf } from '../labels.ts';

export type Instruction = readonly [
  code: number,
  destination: number,
  source: number,
  offset: number,
  immediate: number,
];
/** A jump whose distance is not known yet. */
export type Jump = { to: Label; code: number; destination: number; source: number; immediate: number };
/** A line of a program; `{ label }` marks the place of the instruction after it. */
export type Line = Instruction | Jump | { label: Label };

/** The register that points to the end of the stack. */
export const STACK = 10;
// Helpers (bpf-helpers(7)).
export const MAP_LOOKUP = 1;
export const SKB_LOAD_BYTES = 26;
const PSEUDO_MAP_FD = 1;
/** The distance of a jump is an s16, in instructions. */
const MAX_DISTANCE = 0x7fff;

/** Register = memory at register + offset. */
export const loadWord = (to: number, from: number, offset: number): Instruction => [0x61, to, from, offset, 0];
export const loadHalf = (to: number, from: number, offset: number): Instruction => [0x69, to, from, offset, 0];
export const loadByte = (to: number, from: number, offset: number): Instruction => [0x71, to, from, offset, 0];
export const storeWord = (to: number, offset: number, from: number): Instruction => [0x63, to, from, offset, 0];
export const storeDouble = (to: number, offset: number, value: number): Instruction => [0x7a, to, 0, offset, value];
export const loadDouble = (to: number, from: number, offset: number): Instruction => [0x79, to, from, offset, 0];
export const storeDoubleFrom = (to: number, offset: number, from: number): Instruction => [0x7b, to, from, offset, 0];
/** Adds a 64-bit register to memory, at once for all processors. */
export const addAtomically = (to: number, offset: number, from: number): Instruction => [0xdb, to, from, offset, 0];
export const set = (to: number, value: number): Instruction => [0xb7, to, 0, 0, value];
export const copy = (to: number, from: number): Instruction => [0xbf, to, from, 0, 0];
export const add = (to: number, value: number): Instruction => [0x07, to, 0, 0, value];
export const addRegister = (to: number, from: number): Instruction => [0x0f, to, from, 0, 0];
export const subtractRegister = (to: number, from: number): Instruction => [0x1f, to, from, 0, 0];
export const orRegister = (to: number, from: number): Instruction => [0x4f, to, from, 0, 0];
/** On the low 32 bits; the others become zero. */
export const and32 = (to: number, value: number): Instruction => [0x54, to, 0, 0, value | 0];
export const or32 = (to: number, value: number): Instruction => [0x44, to, 0, 0, value | 0];
export const xor32 = (to: number, from: number): Instruction => [0xac, to, from, 0, 0];
export const copy32 = (to: number, from: number): Instruction => [0xbc, to, from, 0, 0];
export const multiply32 = (to: number, value: number): Instruction => [0x24, to, 0, 0, value | 0];
export const modulo32 = (to: number, value: number): Instruction => [0x94, to, 0, 0, value | 0];
/** On all 64 bits. */
export const shiftLeft64 = (to: number, count: number): Instruction => [0x67, to, 0, 0, count];
export const shiftLeft = (to: number, count: number): Instruction => [0x64, to, 0, 0, count];
export const shiftRight = (to: number, count: number): Instruction => [0x74, to, 0, 0, count];
export const fromNetwork16 = (register: number): Instruction => [0xdc, register, 0, 0, 16];
export const fromNetwork32 = (register: number): Instruction => [0xdc, register, 0, 0, 32];
/** Calls one of the kernel's helpers. */
export const call = (helper: number): Instruction => [0x85, 0, 0, 0, helper];
export const exit: Instruction = [0x95, 0, 0, 0, 0];
/** Register = the map: two instructions. */
export const loadMap = (to: number, fd: number): Instruction[] => [
  [0x18, to, PSEUDO_MAP_FD, 0, fd],
  [0, 0, 0, 0, 0],
];

export const jump = (to: Label): Jump => jumpOn(0x05, 0, 0, to);
export const jumpIfEqual = (register: number, value: number, to: Label): Jump => jumpOn(0x15, register, value, to);
export const jumpUnlessEqual = (register: number, value: number, to: Label): Jump => jumpOn(0x55, register, value, to);
/** Compares all 64 bits, without sign. */
export const jumpUnlessBelow = (register: number, value: number, to: Label): Jump => jumpOn(0x35, register, value, to);
/** Compares the low 32 bits. */
export const jumpIfEqual32 = (register: number, value: number, to: Label): Jump => jumpOn(0x16, register, value, to);
export const jumpUnlessEqual32 = (register: number, value: number, to: Label): Jump =>
  jumpOn(0x56, register, value, to);
export const jumpUnlessSame32 = (register: number, other: number, to: Label): Jump =>
  jumpOnRegister(0x5e, register, other, to);
/**
 * Compares all 64 bits. The verifier understands a comparison of a packet pointer with the end of the packet
 * only in this form.
 */
export const jumpUnlessAbove = (register: number, other: number, to: Label): Jump =>
  jumpOnRegister(0xbd, register, other, to);

function jumpOn(code: number, destination: number, value: number, to: Label): Jump {
  return { to, code, destination, source: 0, immediate: value | 0 };
}

function jumpOnRegister(code: number, destination: number, source: number, to: Label): Jump {
  return { to, code, destination, source, immediate: 0 };
}

/** Puts the distances into the jumps. */
export function assemble(lines: readonly Line[]): Instruction[] {
  const distanceOf = distancesIn(lines);
  let next = 0;
  return lines.flatMap((line): Instruction[] => {
    if ('label' in line) return [];
    next++; // A distance of 0 is to the next instruction.
    if (!('to' in line)) return [line];
    const { to, code, destination, source, immediate } = line;
    const distance = distanceOf(to, next);
    if (distance > MAX_DISTANCE || distance < -MAX_DISTANCE - 1)
      throw new Error(`label ${nameOf(to)} is ${distance} instructions away: expected at most ${MAX_DISTANCE}`);
    return [[code, destination, source, distance, immediate]];
  });
}

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

/** Registers: the result of a call, and its arguments, which it destroys. */
export const R0 = 0;
export const R1 = 1;
export const R2 = 2;
export const R3 = 3;
export const R4 = 4;
export const R5 = 5;
/** Those that a call leaves alone. */
export const R6 = 6;
export const R7 = 7;
export const R8 = 8;
export const R9 = 9;
/** The register that points to the end of the stack. */
export const STACK = 10;
// Helpers (bpf-helpers(7)).
export const MAP_LOOKUP = 1;
export const SKB_STORE_BYTES = 9;
export const SKB_LOAD_BYTES = 26;
export const GET_HASH_RECALC = 34;
export const SKB_PULL_DATA = 39;
export const SKB_ADJUST_ROOM = 50;
/** Linux 5.8. */
export const CSUM_LEVEL = 135;
/** Linux 5.10. */
export const REDIRECT_NEIGH = 152;
export const REDIRECT_PEER = 155;
/** ns of CLOCK_MONOTONIC, as of the last tick. Linux 5.11. */
export const KTIME_GET_COARSE_NS = 160;
/** Linux 5.12. */
export const CHECK_MTU = 163;
const PSEUDO_MAP_FD = 1;
const PSEUDO_MAP_VALUE = 2;
const [STORE_WORD, STORE_HALF, STORE_BYTE] = [0x63, 0x6b, 0x73] as const;
/** The distance of a jump is an s16, in instructions. */
const MAX_DISTANCE = 0x7fff;

/** Register = memory at register + offset. */
export const loadWord = (to: number, from: number, offset: number): Instruction => [0x61, to, from, offset, 0];
export const loadHalf = (to: number, from: number, offset: number): Instruction => [0x69, to, from, offset, 0];
export const loadByte = (to: number, from: number, offset: number): Instruction => [0x71, to, from, offset, 0];
export const storeHalf = (to: number, offset: number, from: number): Instruction => [STORE_HALF, to, from, offset, 0];
export const storeByte = (to: number, offset: number, from: number): Instruction => [STORE_BYTE, to, from, offset, 0];
/** Memory = a number. */
export const storeWordOf = (to: number, offset: number, value: number): Instruction => [0x62, to, 0, offset, value | 0];
export const storeHalfOf = (to: number, offset: number, value: number): Instruction => [0x6a, to, 0, offset, value];
export const storeWord = (to: number, offset: number, from: number): Instruction => [STORE_WORD, to, from, offset, 0];
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
export const multiplyRegister = (to: number, from: number): Instruction => [0x2f, to, from, 0, 0];
/** Without sign; 0 if the divisor is 0. */
export const divideRegister = (to: number, from: number): Instruction => [0x3f, to, from, 0, 0];
export const xor = (to: number, value: number): Instruction => [0xa7, to, 0, 0, value];
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
export const shiftRight64 = (to: number, count: number): Instruction => [0x77, to, 0, 0, count];
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

/** Register = where the value of a map is that has one value: two instructions. Needs Linux 5.2. */
export const loadMapValue = (to: number, fd: number): Instruction[] => [
  [0x18, to, PSEUDO_MAP_VALUE, 0, fd],
  [0, 0, 0, 0, 0],
];

export const jump = (to: Label): Jump => jumpOn(0x05, 0, 0, to);
export const jumpIfEqual = (register: number, value: number, to: Label): Jump => jumpOn(0x15, register, value, to);
export const jumpUnlessEqual = (register: number, value: number, to: Label): Jump => jumpOn(0x55, register, value, to);
/** These compare all 64 bits, without sign. */
export const jumpUnlessBelow = (register: number, value: number, to: Label): Jump => jumpOn(0x35, register, value, to);
export const jumpIfBelow = (register: number, value: number, to: Label): Jump => jumpOn(0xa5, register, value, to);
export const jumpIfAbove = (register: number, value: number, to: Label): Jump => jumpOn(0x25, register, value, to);
export const jumpIfAboveRegister = (register: number, other: number, to: Label): Jump =>
  jumpOnRegister(0x2d, register, other, to);
export const jumpUnlessBelowRegister = (register: number, other: number, to: Label): Jump =>
  jumpOnRegister(0x3d, register, other, to);
export const jumpIfBelowRegister = (register: number, other: number, to: Label): Jump =>
  jumpOnRegister(0xad, register, other, to);
export const jumpIfNegative = (register: number, to: Label): Jump => jumpOn(0xc5, register, 0, to);
/** If any of these bits is set. */
export const jumpIfAny = (register: number, bits: number, to: Label): Jump => jumpOn(0x45, register, bits, to);
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

/** Puts the distances into the jumps, and adds what old kernels need. */
export function assemble(program: readonly Line[]): Instruction[] {
  const lines = program.flatMap(unbounded);
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

/**
 * Linux 5.16 to 6.7 takes what is stored where 8 bytes of the stack begin for a saved register, if it knows bounds of it. Without
 * CAP_PERFMON it then refuses to store anything else in these 8 bytes (check_stack_write_fixed_off in kernel/bpf/verifier.c). It knows
 * none of what was swapped: here twice, so that the bytes that are stored stay as they are. A number that the instruction has itself has
 * to be stored by a register there.
 */
function unbounded(line: Line): Line[] {
  if ('label' in line || 'to' in line) return [line];
  const [code, destination, source, offset] = line;
  const swap = { [STORE_BYTE]: fromNetwork16, [STORE_HALF]: fromNetwork16, [STORE_WORD]: fromNetwork32 }[code];
  if (!swap || destination !== STACK || offset % 8 !== 0) return [line];
  return [swap(source), swap(source), line];
}

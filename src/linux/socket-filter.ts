/**
 * Filters for sockets (Documentation/networking/filter.rst, <linux/filter.h>), mostly classic BPF: which of
 * its packets a socket takes.
 */
import { distancesIn, type Label, nameOf } from './labels.ts';
import * as native from './native.ts';

/** struct sock_filter: code, k, and how many instructions a comparison skips. */
export type SocketFilter = readonly (readonly [code: number, k: number, ifTrue?: number, ifFalse?: number])[];
/**
 * `{ label }` marks the place of the instruction after it; a comparison without a label for one of its
 * results goes on to the next instruction.
 */
export type Line =
  | readonly [code: number, k: number]
  | { code: number; k: number; ifTrue: Label | undefined; ifFalse: Label | undefined }
  | { label: Label };

// <linux/bpf_common.h>; loads are in network order.
export const LD_WORD = 0x20;
export const LD_HALF = 0x28;
export const LD_BYTE = 0x30;
export const LD_LENGTH = 0x80;
export const LD_WORD_AT_X = 0x40;
export const LDX_HEADER_LENGTH = 0xb1; // X = 4 * (byte k & 15)
export const LDX_MEMORY = 0x61;
export const STORE = 0x02;
export const SUBTRACT_X = 0x1c;
export const ADD_X = 0x0c;
export const MULTIPLY = 0x24;
export const SHIFT_RIGHT = 0x74;
export const MODULO = 0x94;
export const JUMP = 0x05;
export const JUMP_IF_EQUAL = 0x15;
export const JUMP_IF_AT_LEAST = 0x35;
export const JUMP_IF_ANY_BIT = 0x45;
export const RETURN = 0x06;
/** What RETURN gives a packet that is taken: more bytes than any has. */
export const ALL = 0x7fffffff;
/** The distances of a comparison are u8. JUMP has a u32, so it goes to any place further on. */
const MAX_DISTANCE = 0xff;

export const jump = (to: Label): Line => ({ code: JUMP, k: 0, ifTrue: to, ifFalse: undefined });
export const jumpIfEqual = (k: number, ifTrue?: Label, ifFalse?: Label): Line => {
  return { code: JUMP_IF_EQUAL, k, ifTrue, ifFalse };
};
export const jumpIfAnyBit = (bits: number, ifTrue?: Label, ifFalse?: Label): Line => {
  return { code: JUMP_IF_ANY_BIT, k: bits, ifTrue, ifFalse };
};
export const jumpIfAtLeast = (k: number, ifTrue?: Label, ifFalse?: Label): Line => {
  return { code: JUMP_IF_AT_LEAST, k, ifTrue, ifFalse };
};

/** Puts the distances into the jumps. All jumps go forward. */
export function assemble(lines: readonly Line[]): SocketFilter {
  const distanceOf = distancesIn(lines);
  let next = 0;
  const distance = (label: Label | undefined, most: number): number => {
    if (label === undefined) return 0;
    const found = distanceOf(label, next);
    if (found < 0) throw new Error(`label ${nameOf(label)} is behind a jump to it: expected only jumps forward`);
    if (found > most) throw new Error(`label ${nameOf(label)} is ${found} instructions away: expected at most ${most}`);
    return found;
  };
  return lines.flatMap((line): SocketFilter[number][] => {
    if ('label' in line) return [];
    next++; // A distance of 0 is to the next instruction.
    if (!('code' in line)) return [line];
    const { code, k, ifTrue, ifFalse } = line;
    if (code === JUMP) return [[JUMP, distance(ifTrue, Number.POSITIVE_INFINITY)]];
    return [[code, k, distance(ifTrue, MAX_DISTANCE), distance(ifFalse, MAX_DISTANCE)]];
  });
}

const INSTRUCTION_SIZE = 8;
const FPROG_SIZE = 16;

export function attachSocketFilter(fd: number, instructions: SocketFilter): void {
  const program = new Uint8Array(instructions.length * INSTRUCTION_SIZE);
  const view = new DataView(program.buffer);
  for (const [i, [code, k, ifTrue = 0, ifFalse = 0]] of instructions.entries()) {
    const at = i * INSTRUCTION_SIZE;
    view.setUint16(at, code, true);
    view.setUint8(at + 2, ifTrue);
    view.setUint8(at + 3, ifFalse);
    view.setUint32(at + 4, k, true);
  }
  // struct sock_fprog { unsigned short length; struct sock_filter *filter; }
  const fprog = native.structure(FPROG_SIZE, { 8: program });
  fprog.view.setUint16(0, instructions.length, true);
  const set = native.setsockopt(fd, native.SOL_SOCKET, native.SO_ATTACH_FILTER, fprog.bytes, FPROG_SIZE);
  native.must(set, 'setsockopt', 'SO_ATTACH_FILTER');
}

/**
 * Attaches an eBPF program of type SOCKET_FILTER instead, which then the socket holds. It replaces any filter
 * before.
 */
export function attachSocketProgram(fd: number, program: number): void {
  const set = native.setsockopt(fd, native.SOL_SOCKET, native.SO_ATTACH_BPF, native.int(program), 4);
  native.must(set, 'setsockopt', 'SO_ATTACH_BPF');
}

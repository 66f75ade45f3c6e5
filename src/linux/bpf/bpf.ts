/** eBPF programs and maps (bpf(2), <linux/bpf.h>, Documentation/bpf/standardization/instruction-set.rst), as far as Inlay writes any. */
import os from 'node:os';
import * as native from '../native.ts';

/** bpf(2), by architecture (<asm/unistd.h>). */
const SYSCALL_NUMBERS: Partial<Record<string, number>> = { x64: 321, arm64: 280 };

const BPF_MAP_CREATE = 0;
const BPF_MAP_LOOKUP_ELEM = 1;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_PROG_LOAD = 5;
const BPF_LINK_CREATE = 28;
const BPF_PROG_TYPE_SCHED_CLS = 3;
const PROG_ATTR_SIZE = 48;
const MAP_ATTR_SIZE = 20;
const ELEMENT_ATTR_SIZE = 32;
const LINK_ATTR_SIZE = 16;

export const BPF_MAP_TYPE_ARRAY = 2;
export const BPF_MAP_TYPE_PERCPU_ARRAY = 6;
export const BPF_TCX_INGRESS = 46;

export type Instruction = readonly [
  code: number,
  destination: number,
  source: number,
  offset: number,
  immediate: number,
];

/** The register that points to the end of the stack. */
export const STACK = 10;
const PSEUDO_MAP_FD = 1;

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
export const shiftLeft = (to: number, count: number): Instruction => [0x64, to, 0, 0, count];
export const shiftRight = (to: number, count: number): Instruction => [0x74, to, 0, 0, count];
export const fromNetwork16 = (register: number): Instruction => [0xdc, register, 0, 0, 16];
export const call = (helper: number): Instruction => [0x85, 0, 0, 0, helper];
export const exit: Instruction = [0x95, 0, 0, 0, 0];
/** Register = the map: two instructions. */
export const loadMap = (to: number, fd: number): Instruction[] => [
  [0x18, to, PSEUDO_MAP_FD, 0, fd],
  [0, 0, 0, 0, 0],
];
export const skip = (count: number): Instruction => [0x05, 0, 0, count, 0];
export const skipIfEqual = (register: number, value: number, count: number): Instruction => [
  0x15,
  register,
  0,
  count,
  value,
];
export const skipUnlessEqual = (register: number, value: number, count: number): Instruction => [
  0x55,
  register,
  0,
  count,
  value,
];
/** Compares the low 32 bits. */
export const skipIfEqual32 = (register: number, value: number, count: number): Instruction => [
  0x16,
  register,
  0,
  count,
  value | 0,
];
export const skipUnlessSame32 = (register: number, other: number, count: number): Instruction => [
  0x5e,
  register,
  other,
  count,
  0,
];
/** Compares pointers into a packet with its end, as the verifier wants it. */
export const skipUnlessAbove = (register: number, other: number, count: number): Instruction => [
  0xbd,
  register,
  other,
  count,
  0,
];
/** A program in which jumps go to labels. */
export type Line = Instruction | { label: string } | { goto: string; when: Instruction };

/** Puts the distances into the jumps. */
export function assemble(lines: readonly Line[]): Instruction[] {
  const places = new Map<string, number>();
  let count = 0;
  for (const line of lines) {
    if ('label' in line) places.set(line.label, count);
    else count++;
  }
  let at = 0;
  return lines.flatMap((line): Instruction[] => {
    if ('label' in line) return [];
    at++;
    if (!('goto' in line)) return [line];
    const [code, destination, source, , immediate] = line.when;
    const place = places.get(line.goto);
    if (place === undefined) throw new Error(`no label ${line.goto}`);
    return [[code, destination, source, place - at, immediate]];
  });
}

/** union bpf_attr, as far as a command has it. */
type Attributes = Pick<ReturnType<typeof native.structure>, 'bytes' | 'view'>;

/** Loads a program of type SCHED_CLS (bpf-helpers(7)); returns its descriptor. */
export function loadProgram(instructions: readonly Instruction[], what: string): number {
  const program = new Uint8Array(instructions.length * 8);
  const view = new DataView(program.buffer);
  for (const [i, [code, destination, source, offset, immediate]] of instructions.entries()) {
    view.setUint8(i * 8, code);
    view.setUint8(i * 8 + 1, (source << 4) | destination);
    view.setInt16(i * 8 + 2, offset, true);
    view.setInt32(i * 8 + 4, immediate, true);
  }
  const license = new TextEncoder().encode('MIT\0');
  const attributes = native.structure(PROG_ATTR_SIZE, { 8: program, 16: license });
  attributes.view.setUint32(0, BPF_PROG_TYPE_SCHED_CLS, true);
  attributes.view.setUint32(4, instructions.length, true);
  return must(BPF_PROG_LOAD, attributes, what);
}

/** Attaches a program to a link, until that goes. Needs Linux 6.6. */
export function attachTcx(program: number, ifindex: number, place: number, what: string): void {
  const attributes = native.structure(LINK_ATTR_SIZE, {});
  for (const [i, word] of [program, ifindex, place].entries()) attributes.view.setUint32(i * 4, word, true);
  must(BPF_LINK_CREATE, attributes, what);
}

/** A map; keys are u32. It lives as long as its descriptor or a program that uses it. */
export class BpfMap {
  readonly fd: number;
  readonly #element: Attributes;
  readonly #key: Uint32Array;
  readonly #value: BigUint64Array;

  /** `valueSize` is in bytes, a multiple of 8; with PERCPU there is a value for each of `cpus`. */
  constructor(type: number, valueSize: number, capacity: number, cpus = 1) {
    const attributes = native.structure(MAP_ATTR_SIZE, {});
    for (const [i, word] of [type, 4, valueSize, capacity].entries()) attributes.view.setUint32(i * 4, word, true);
    this.fd = must(BPF_MAP_CREATE, attributes, 'of a map');
    const element = native.structure(ELEMENT_ATTR_SIZE, { 8: new Uint8Array(4), 16: new Uint8Array(valueSize * cpus) });
    element.view.setUint32(0, this.fd, true);
    this.#element = element;
    this.#key = new Uint32Array(element.bytes.buffer, element.pointed[8].byteOffset, 1);
    this.#value = new BigUint64Array(element.bytes.buffer, element.pointed[16].byteOffset, (valueSize / 8) * cpus);
  }

  /** The value, good until the next call; undefined if there is none. */
  get(key: number): BigUint64Array | undefined {
    this.#key[0] = key;
    return bpf(BPF_MAP_LOOKUP_ELEM, this.#element) < 0 ? undefined : this.#value;
  }

  put(key: number, value: readonly bigint[]): void {
    this.#key[0] = key;
    this.#value.set(value);
    must(BPF_MAP_UPDATE_ELEM, this.#element, 'of a map');
  }

  close(): void {
    native.close(this.fd);
  }
}

function must(command: number, attributes: Attributes, what: string): number {
  return native.must(bpf(command, attributes), 'bpf', what);
}

function bpf(command: number, { bytes, view }: Attributes): number {
  const number = SYSCALL_NUMBERS[os.arch()];
  if (number === undefined) throw new Error(`bpf(2) has no known number on ${os.arch()}`);
  return native.syscall(number, command, bytes, view.byteLength);
}

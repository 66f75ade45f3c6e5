/** eBPF programs that see packets: those of a device, or of a socket (bpf(2), bpf-helpers(7)). */
import * as native from '../native.ts';
import type { Instruction } from './assembler.ts';
import { bpf, mustBpf } from './syscall.ts';

// <linux/bpf.h>
const BPF_PROG_LOAD = 5;
const BPF_OBJ_GET_INFO_BY_FD = 15;
export const BPF_PROG_TYPE_SOCKET_FILTER = 1;
const BPF_PROG_TYPE_SCHED_CLS = 3;
/** struct bpf_insn */
const INSTRUCTION_SIZE = 8;
const PROG_ATTR_SIZE = 48;
const INFO_ATTR_SIZE = 16;
/**
 * Bytes of the beginning of struct bpf_prog_info: u32 type, u32 id. The kernel gives as many bytes as it is
 * asked for.
 */
const PROG_INFO_SIZE = 8;
const PROG_INFO_ID = 4;
/** Of our programs. MIT alone is not enough for some of the kernel's helpers (license_is_gpl_compatible in <linux/license.h>). */
const LICENSE = 'Dual MIT/GPL';
/** The kernel stops looking at a program where a signal comes (do_check in kernel/bpf/verifier.c). */
const LOAD_ATTEMPTS = 5;

/** Loads a program, for a device unless `type` says otherwise; returns its descriptor. */
export function loadProgram(
  instructions: readonly Instruction[],
  what: string,
  type = BPF_PROG_TYPE_SCHED_CLS,
): number {
  const license = new TextEncoder().encode(`${LICENSE}\0`);
  const attributes = native.structure(PROG_ATTR_SIZE, { 8: encode(instructions), 16: license });
  attributes.view.setUint32(0, type, true);
  attributes.view.setUint32(4, instructions.length, true);
  for (let attempt = 1; ; attempt++) {
    const program = bpf(BPF_PROG_LOAD, attributes);
    if (program >= 0) return program;
    if (native.errno() !== native.EAGAIN || attempt === LOAD_ATTEMPTS) return native.must(program, 'bpf', what);
  }
}

/**
 * The kernel's number of a program, which no other loaded program has. A filter that runs the program says it
 * (TCA_BPF_ID).
 */
export function programId(program: number): number {
  const attributes = native.structure(INFO_ATTR_SIZE, { 8: new Uint8Array(PROG_INFO_SIZE) });
  attributes.view.setUint32(0, program, true);
  attributes.view.setUint32(4, PROG_INFO_SIZE, true);
  mustBpf(BPF_OBJ_GET_INFO_BY_FD, attributes, 'for the id of a program');
  const info = attributes.pointed[8];
  return new DataView(info.buffer, info.byteOffset).getUint32(PROG_INFO_ID, true);
}

/** As the kernel takes them. */
export function encode(instructions: readonly Instruction[]): Uint8Array {
  const program = new Uint8Array(instructions.length * INSTRUCTION_SIZE);
  const view = new DataView(program.buffer);
  for (const [i, [code, destination, source, offset, immediate]] of instructions.entries()) {
    const at = i * INSTRUCTION_SIZE;
    view.setUint8(at, code);
    view.setUint8(at + 1, (source << 4) | destination);
    view.setInt16(at + 2, offset, true);
    view.setInt32(at + 4, immediate, true);
  }
  return program;
}

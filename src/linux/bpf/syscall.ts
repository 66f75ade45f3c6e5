/** bpf(2), which the C library has no function for. */
import os from 'node:os';
import * as native from '../native.ts';
import { SystemError } from '../system-error.ts';

/** By architecture (<asm/unistd.h>). */
const SYSCALL_NUMBERS: Partial<Record<string, number>> = { x64: 321, arm64: 280 };

/** union bpf_attr, as much of it as a command has. */
export type Attributes = Pick<ReturnType<typeof native.structure>, 'bytes' | 'view'>;

/**
 * Does one command: returns its result, or -1 as any system call. Throws ENOSYS where the call's number is
 * not known, as a kernel without bpf(2) answers.
 */
export function bpf(command: number, { bytes, view }: Attributes): number {
  const number = SYSCALL_NUMBERS[os.arch()];
  if (number === undefined)
    throw new SystemError('bpf', os.constants.errno.ENOSYS, `has no known number on ${os.arch()}`);
  return native.syscall(number, command, bytes, view.byteLength);
}

/** The same, but throws whatever error there is; `what` says on what it was done. */
export function mustBpf(command: number, attributes: Attributes, what: string): number {
  return native.must(bpf(command, attributes), 'bpf', what);
}

/** Why a program or a map could not be had. */
import { errorCode } from '../../errors.ts';
import { SystemError } from '../system-error.ts';

/** In words: bpf(2) asks for CAP_BPF beside CAP_NET_ADMIN (bpf_prog_load in kernel/bpf/syscall.c). */
export function bpfObstacle(cause: unknown): string {
  if (cause instanceof SystemError && cause.syscall === 'bpf' && cause.code === 'EPERM') return 'CAP_BPF is missing';
  return errorCode(cause) ?? (cause as Error).message;
}

/**
 * The programs of the fast path (Documentation/bpf/standardization/instruction-set.rst, bpf-helpers(7)), made from
 * the mapping and the configuration. What they take is what the core would have forwarded, byte for byte; all else
 * goes its ordinary way.
 */
import type { Config } from '../../../config/config.ts';
import * as bpf from '../../../linux/bpf/assembler.ts';
import { loadProgram } from '../../../linux/bpf/program.ts';
import { ROOM_DECAP_GRE, ROOM_DECAP_UDP } from '../../../linux/bpf/skb.ts';
import { testRun } from '../../../linux/bpf/test-run.ts';
import * as native from '../../../linux/native.ts';
import type { Address } from '../../../mesh/address.ts';
import type { Mapping } from '../../../mesh/mapping.ts';
import { adjustRoom } from './frame.ts';
import { inbound } from './inbound.ts';
import { SKB } from './packet.ts';

export type Format = 'gre' | 'gre-udp';

/** What the programs are made from. */
export interface ProgramOptions extends Pick<Config, 'key' | 'ttl' | 'dscp' | 'ecn' | 'clampMss'> {
  mappings: readonly Mapping[];
  local: Address;
  /** What packets are sent as, and what those look like that are taken. */
  encapsulation: Format;
  receives: readonly Format[];
  /** Whether the kernel can be told which tunnel it takes headers of (BPF_F_ADJ_ROOM_DECAP_*, Linux 7). */
  hasDecapFlags?: boolean;
}

export { outbound } from './outbound.ts';
export { inbound };

/** IPv4 in a frame, with more than what is taken off (RFC 791 §3.1). */
const TRIAL = Uint8Array.from({ length: 98 }, (_, i) => ({ 12: 0x08, 14: 0x45, 17: 84, 22: 64, 23: 47 })[i] ?? 0);

/**
 * Whether the kernel can be told which tunnel's headers are taken off, so that it forgets that a merged packet was one of a tunnel
 * (Linux 7). Others refuse flags that they do not know, when the program runs. Throws SystemError, such as EPERM without CAP_BPF.
 */
export function hasDecapFlags(): boolean {
  return [ROOM_DECAP_GRE, ROOM_DECAP_UDP].every((flag) => {
    const lines = [bpf.copy(SKB, bpf.R1), ...adjustRoom(-24, flag), bpf.set(bpf.R0, 1), { label: 'pass' }, bpf.exit];
    const program = loadProgram(bpf.assemble(lines), 'to try flags');
    try {
      return testRun(program, TRIAL) === 1;
    } finally {
      native.close(program);
    }
  });
}

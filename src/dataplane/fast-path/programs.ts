/**
 * The programs of the fast path (Documentation/bpf/standardization/instruction-set.rst, bpf-helpers(7)), made from
 * the mapping and the configuration. What they take is what the core would have forwarded, byte for byte; all else
 * goes its ordinary way.
 */
import type { Config } from '../../config/config.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';

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

export { inbound } from './inbound.ts';
export { outbound } from './outbound.ts';

/** The programs of the fast path, made from the mapping and the configuration. */
import type { Config } from '../../config/config.ts';
import type { Line } from '../../linux/bpf/assembler.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import type { MapFds } from './state.ts';

/** What the programs are made from. */
export interface ProgramOptions extends Pick<Config, 'key' | 'ttl' | 'dscp' | 'ecn' | 'clampMss'> {
  mappings: readonly Mapping[];
  local: Address;
  encapsulation: 'gre' | 'gre-udp';
}

/** Where packets of containers come in, at the host's end of each veth. */
export function outbound(_options: ProgramOptions, _maps: MapFds): Line[] {
  throw new Error('not made yet');
}

/** Where packets of the underlay come in, at the device that leads to other VMs. */
export function inbound(_options: ProgramOptions, _maps: MapFds): Line[] {
  throw new Error('not made yet');
}

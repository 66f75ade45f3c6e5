/** The programs of the fast path, as text for people. */
import type { Config } from '../../config/config.ts';
import { assemble } from '../../linux/bpf/assembler.ts';
import { listing } from '../../linux/bpf/listing.ts';
import type { NetworkPlan } from '../../machine/state.ts';
import { programOptions } from './loaded.ts';
import { inbound, outbound } from './programs/programs.ts';

/** In place of descriptors. */
const MAPS = { settings: 1, slots: 2, vms: 3, counts: 4 };

export type ProgramName = 'outbound' | 'inbound';
export type Listings = Record<ProgramName, string[]>;

/** What a VM of this configuration loads, one instruction a line. */
export function listings(config: Config, plan: Pick<NetworkPlan, 'mappings' | 'local'>): Listings {
  const options = programOptions(config, plan);
  const maps = new Map(Object.entries(MAPS).map(([name, fd]) => [fd, name]));
  const list = (program: typeof outbound) => listing(assemble(program(options, MAPS)), { maps });
  return { outbound: list(outbound), inbound: list(inbound) };
}

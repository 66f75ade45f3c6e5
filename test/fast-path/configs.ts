/** Configurations of the fast path, and addresses under them. */
import type { CoreConfig } from '../../src/core/index.ts';
import { address, prefix } from '../golden.ts';

const mapping = (overlay: string, underlay: string) => {
  const [over, under] = [prefix(overlay), prefix(underlay)];
  return {
    overlay: Number(over.bits),
    overlayLength: over.length,
    underlay: Number(under.bits),
    underlayLength: under.length,
  };
};
const number = (text: string) => Number(address(text).bits);

const TEN = mapping('10.0.0.0/8', '192.168.0.0/16');
const CLASS_E = mapping('240.0.0.0/4', '192.168.0.0/16');
const HERE = number('192.168.16.32');
const plain: CoreConfig = { local: HERE, mappings: [TEN] };

export interface NamedConfig {
  name: string;
  config: CoreConfig;
}

export const CONFIGS: readonly NamedConfig[] = [
  { name: 'gre', config: plain },
  { name: 'gre with a key', config: { ...plain, key: 0xdecafbad } },
  { name: 'gre-udp', config: { ...plain, encapsulation: 'gre-udp' } },
  { name: 'gre-udp with key 0', config: { ...plain, encapsulation: 'gre-udp', key: 0 } },
  { name: 'outer TTL inherited', config: { ...plain, ttl: 'inherit' } },
  { name: 'outer TTL inherited, gre-udp', config: { ...plain, ttl: 'inherit', encapsulation: 'gre-udp' } },
  { name: 'outer TTL 1', config: { ...plain, ttl: 1 } },
  { name: 'DSCP 46', config: { ...plain, dscp: 46 } },
  { name: 'DSCP uniform', config: { ...plain, dscp: 'uniform' } },
  { name: 'DSCP uniform, gre-udp', config: { ...plain, dscp: 'uniform', encapsulation: 'gre-udp' } },
  { name: 'ECN compatibility', config: { ...plain, ecn: 'compatibility' } },
  { name: 'DSCP uniform, ECN compatibility', config: { ...plain, dscp: 'uniform', ecn: 'compatibility' } },
  { name: 'TCP clamped', config: { ...plain, clampMss: true } },
  { name: 'a narrow underlay', config: { ...plain, mtu: 576 } },
  { name: '240/4 over a /16', config: { local: HERE, mappings: [CLASS_E] } },
  {
    name: '240/4 over a /17',
    config: { local: HERE, mappings: [mapping('240.0.0.0/4', '192.168.0.0/17')] },
  },
  {
    name: '10/8 over a /21',
    config: { local: number('172.16.8.5'), mappings: [mapping('10.0.0.0/8', '172.16.8.0/21')] },
  },
  { name: 'two mappings of one underlay', config: { local: HERE, mappings: [TEN, CLASS_E] } },
  {
    name: 'a mapping of others',
    config: { local: HERE, mappings: [mapping('11.0.0.0/8', '172.16.0.0/16'), TEN] },
  },
  {
    name: 'two bits for containers',
    config: { local: number('192.128.1.5'), mappings: [mapping('10.0.0.0/8', '192.128.0.0/10')] },
  },
];

/** Overlay addresses: by VM, index, and the mapping's place. */
export function overlayOf({ mappings }: CoreConfig, vm: number, index: number, which = 0): number {
  const of = mappings[which] as (typeof mappings)[number];
  const bits = of.underlayLength - of.overlayLength;
  return (of.overlay + (vm - of.underlay) * 2 ** bits + index) >>> 0;
}

/** The place of the mapping that has the VM. */
export function mappingOf({ mappings }: CoreConfig, vm: number): number {
  return mappings.findIndex(
    ({ underlay, underlayLength }) => vm >= underlay && vm < underlay + 2 ** (32 - underlayLength),
  );
}

/** The highest index of a slice: nobody's. */
export function lastIndex({ mappings }: CoreConfig, which: number): number {
  const of = mappings[which] as (typeof mappings)[number];
  return 2 ** (of.underlayLength - of.overlayLength) - 1;
}

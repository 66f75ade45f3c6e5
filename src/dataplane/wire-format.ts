/** What packets look like on the underlay, as a firewall's rule names it. */
import type { Config } from '../config/config.ts';
import { GRE_UDP_PORT } from '../core/abi.ts';
import type { Encapsulation } from '../core/config.ts';
import { IPPROTO_GRE, IPPROTO_UDP, VXLAN_PORT } from '../linux/protocols.ts';
import type { OuterFormat } from '../machine/remarks/remark.ts';

export const OUTER: Readonly<Record<Config['encapsulation'], OuterFormat>> = {
  gre: { protocol: IPPROTO_GRE },
  'gre-udp': { protocol: IPPROTO_UDP, port: GRE_UDP_PORT },
  vxlan: { protocol: IPPROTO_UDP, port: VXLAN_PORT },
};

export function wireFormat(encapsulation: Config['encapsulation']): string {
  const { protocol, port } = OUTER[encapsulation];
  return port === undefined ? `IP protocol ${protocol}` : `UDP port ${port}`;
}

/** The configuration has been checked: vxlan is the kernel's alone. */
export function encapsulationOf({ encapsulation }: Pick<Config, 'encapsulation'>): Encapsulation {
  return encapsulation === 'vxlan' ? 'gre' : encapsulation;
}

/** Node's UDP sockets cannot set the ECN field. */
export function outerEcnOf({
  engine,
  encapsulation,
  ecn,
}: Pick<Config, 'engine' | 'encapsulation' | 'ecn'>): Config['ecn'] {
  return engine === 'portable' && encapsulation === 'gre-udp' ? 'compatibility' : ecn;
}

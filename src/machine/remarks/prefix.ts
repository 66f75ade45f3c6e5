/**
 * An underlay prefix that is longer than that of the network the VM is in. That alone is no mistake: other
 * machines may share the network. But where packets are dropped as if another VM computed other slices, it
 * tells the likely cause: VMs with different underlay prefixes.
 */
import { ipv4Number } from '../../linux/netlink/ipv4.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { addresses } from '../../linux/netlink/rtnetlink.ts';
import { formatPrefix, network } from '../../mesh/address.ts';
import { ownMapping } from './packets.ts';
import type { Remark, Vantage } from './remark.ts';

/** Packets that were dropped, as those of VMs with other prefixes are. */
export interface Signs {
  /** How many, ever. */
  packets: number;
  /** Why, in words. */
  reasons: string;
}

/** ms after the last such packet for which the remark stays. */
const LASTING = 60_000;

export class PrefixLookOut {
  readonly #netlink: Netlink;
  #before = 0;
  #seen = -Infinity;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  look(vantage: Vantage, { packets, reasons }: Signs, now: number): Remark[] {
    if (packets > this.#before) this.#seen = now;
    this.#before = packets;
    if (now - this.#seen > LASTING) return [];
    return this.#remarks(vantage, reasons);
  }

  #remarks(vantage: Vantage, reasons: string): Remark[] {
    const mapping = ownMapping(vantage);
    const index = vantage.underlay?.device.index;
    if (!mapping || index === undefined) return [];
    const { local } = vantage.plan;
    const own = addresses(this.#netlink, index).find((each) => ipv4Number(each.local) === Number(local.bits));
    if (!own || own.prefixLength >= mapping.underlay.length) return [];
    const onLink = formatPrefix(network(local, own.prefixLength));
    const underlay = formatPrefix(mapping.underlay);
    return [
      {
        key: 'prefix',
        what: `packets of other VMs are dropped (${reasons}), and the underlay prefix ${underlay} is only a part of this VM's network ${onLink}`,
        hint: `all VMs need the same --overlay and --underlay: compare with the mappings that inlay status shows on the others`,
      },
    ];
  }
}

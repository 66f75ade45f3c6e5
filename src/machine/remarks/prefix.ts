/**
 * An underlay prefix that is longer than that of the network the VM is in. That alone is no mistake: other
 * machines may share the network. But where packets are dropped as if another VM computed other slices, it
 * tells the likely cause: VMs with different underlay prefixes.
 */
import { DROP_FOREIGN_DESTINATION, DROP_FOREIGN_UNDERLAY, DROP_SPOOFED_SOURCE } from '../../core/abi.ts';
import type { DirectionCounters } from '../../core/core.ts';
import { verdictName } from '../../core/verdict.ts';
import { ipv4Number } from '../../linux/netlink/ipv4.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { addresses } from '../../linux/netlink/rtnetlink.ts';
import { formatPrefix, network } from '../../mesh/address.ts';
import { ownMapping } from './packets.ts';
import type { Remark, Vantage } from './remark.ts';

/** Inbound packets that VMs with other prefixes send. */
const SIGNS = [DROP_SPOOFED_SOURCE, DROP_FOREIGN_UNDERLAY, DROP_FOREIGN_DESTINATION];
/** ms after the last such packet for which the remark stays. */
const LASTING = 60_000;

export class PrefixLookOut {
  readonly #netlink: Netlink;
  #before: readonly number[] = [];
  #seen = -Infinity;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  look(vantage: Vantage, { drops }: Pick<DirectionCounters, 'drops'>, now: number): Remark[] {
    const grown = SIGNS.filter((reason) => (drops[-reason] ?? 0) > (this.#before[-reason] ?? 0));
    this.#before = drops;
    if (grown.length > 0) this.#seen = now;
    if (now - this.#seen > LASTING) return [];
    return this.#remarks(vantage);
  }

  #remarks(vantage: Vantage): Remark[] {
    const mapping = ownMapping(vantage);
    const index = vantage.underlay?.device.index;
    if (!mapping || index === undefined) return [];
    const { local } = vantage.plan;
    const own = addresses(this.#netlink, index).find((each) => ipv4Number(each.local) === Number(local.bits));
    if (!own || own.prefixLength >= mapping.underlay.length) return [];
    const onLink = formatPrefix(network(local, own.prefixLength));
    const underlay = formatPrefix(mapping.underlay);
    const names = SIGNS.map(verdictName).join(', ');
    return [
      {
        key: 'prefix',
        what: `packets of other VMs are dropped (${names}), and the underlay prefix ${underlay} is only a part of this VM's network ${onLink}`,
        hint: `all VMs need the same --overlay and --underlay: compare with the mappings that inlay status shows on the others`,
      },
    ];
  }
}

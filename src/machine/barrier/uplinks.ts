/** The devices by which other VMs are reached: tunnels are taken, and ICMP is believed, from these alone. */

import type { Device } from '../../linux/netfilter/packet.ts';
import { addressOf } from '../../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../../linux/netlink/link.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { addresses, findLink } from '../../linux/netlink/rtnetlink.ts';
import { contains } from '../../mesh/address.ts';
import type { NetworkPlan } from '../state.ts';
import { wayToOthers } from '../underlay.ts';

const HOST = 32;
/** Kinds of devices that are uplinks only if the way to other VMs leads through them. */
const GUESTS: readonly (string | undefined)[] = ['bridge', 'tun'];
/** Looks at all addresses take one part in so many of the time, at most: a machine may have thousands. */
const SHARE = 50;

export class Uplinks {
  readonly #netlink: Netlink;
  /** Interface indexes of the devices of the route to other VMs, as long as there was one. */
  #onTheWay: readonly number[] = [];
  /** Those that have an address in the underlay. */
  #inUnderlay: readonly number[] = [];
  /** When addresses are looked at next, in ms. */
  #due = 0;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** The devices, in the order of their names. */
  devices(plan: NetworkPlan): Device[] {
    const { mappings, local, device } = plan;
    const hops = wayToOthers(this.#netlink, mappings, local)?.hops;
    // While a link is down there is no route; it comes back by the same device.
    if (hops && hops.length > 0) this.#onTheWay = hops;
    const begin = performance.now();
    if (begin >= this.#due) {
      this.#inUnderlay = this.#look(plan);
      const end = performance.now();
      this.#due = end + SHARE * (end - begin);
    }
    const all = [...new Set([...this.#onTheWay, ...this.#inUnderlay])];
    const found = all.flatMap((index): Device[] => {
      const name = findLink(this.#netlink, index)?.name;
      // A route of others may lead the underlay into the overlay.
      return name === undefined || name === device ? [] : [{ name, index }];
    });
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #look({ mappings }: NetworkPlan): number[] {
    // If the list changes while it is read, what was read has to do until the next look.
    const found = addresses(this.#netlink, 0, () => true);
    return found.flatMap(({ local: bytes, index, prefixLength }) => {
      const address = addressOf(bytes);
      const isIn = address && mappings.some(({ underlay }) => contains(underlay, address));
      // This VM's own address may be at the loopback device, and that is no way to anyone.
      // An address without a network, such as one that is borrowed, leads to nobody else.
      const isWay = isIn && index !== LOOPBACK && prefixLength < HOST && !this.#leadsToGuests(index);
      return isWay ? [index] : [];
    });
  }

  /** Networks of other guests of this machine may be inside the underlay prefix, as libvirt's and docker's often are. */
  #leadsToGuests(index: number): boolean {
    return GUESTS.includes(findLink(this.#netlink, index)?.info?.kind);
  }
}

/** Keeps the program of mark.ts where packets of the underlay come in: at each device that a route to other VMs leaves by. */

import * as native from '../../linux/native.ts';
import { addressOf } from '../../linux/netlink/ipv4.ts';
import { IFF_LOOPBACK } from '../../linux/netlink/link.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTN_UNICAST } from '../../linux/netlink/route.ts';
import { addresses, findLink, routes } from '../../linux/netlink/rtnetlink.ts';
import { attachFilter } from '../../machine/filter.ts';
import type { Journal } from '../../machine/journal.ts';
import { type Address, overlaps, type Prefix } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import { VXLAN_PORT } from '../kernel/device.ts';
import { loadMarkProgram } from './mark.ts';
import { ETHERNET_HEADER } from './skb.ts';

/** Bytes before the IP header, by the type of the device (<linux/if_arp.h>): ARPHRD_ETHER, _PPP, _RAWIP, _TUNNEL and _NONE, such as WireGuard's. */
const LINK_HEADERS = new Map([
  [1, ETHERNET_HEADER],
  [512, 0],
  [519, 0],
  [768, 0],
  [0xfffe, 0],
]);

export class UnderlayMarks {
  readonly #mappings: readonly Mapping[];
  readonly #local: Address;
  readonly #vni: number;
  /** Devices that have the program. */
  #ifindexes = new Set<number>();
  /** By the length of the link-layer header. */
  readonly #programs = new Map<number, number>();

  constructor(mappings: readonly Mapping[], local: Address, vni: number) {
    this.#vni = vni;
    this.#mappings = mappings;
    this.#local = local;
  }

  /** Whether packets to other VMs may take this route. */
  concerns({ dst, dstLength, type }: Pick<Route, 'dst' | 'dstLength' | 'type'>): boolean {
    const to: Prefix = { width: 32, bits: addressOf(dst)?.bits ?? 0n, length: dstLength };
    return type === RTN_UNICAST && this.#mappings.some(({ underlay }) => overlaps(to, underlay));
  }

  /** Whether the program is to be at a device. */
  isAt(ifindex: number): boolean {
    return this.#ifindexes.has(ifindex);
  }

  /** Puts the program at each such device; returns where that failed. To be called again when addresses or routes change. */
  attach(netlink: Netlink, overlay: string, journal: Journal): { device: string; error: Error }[] {
    const failures: { device: string; error: Error }[] = [];
    this.#ifindexes = this.#devices(netlink);
    for (const index of this.#ifindexes) {
      const link = findLink(netlink, index);
      if (!link?.name || link.name === overlay || link.flags & IFF_LOOPBACK) continue;
      try {
        attachFilter(netlink, link.name, 'ingress', this.#programFor(link.type), journal);
      } catch (error) {
        failures.push({ device: link.name, error: error as Error });
      }
    }
    return failures;
  }

  #programFor(type: number): number {
    const linkHeader = LINK_HEADERS.get(type);
    if (linkHeader === undefined)
      throw new Error(`a device of type ${type}, whose packets begin in a way that is not known`);
    const known = this.#programs.get(linkHeader);
    const options = { mappings: this.#mappings, local: this.#local, port: VXLAN_PORT, vni: this.#vni, linkHeader };
    const program = known ?? loadMarkProgram(options);
    this.#programs.set(linkHeader, program);
    return program;
  }

  close(): void {
    for (const fd of this.#programs.values()) native.close(fd);
  }

  #devices(netlink: Netlink): Set<number> {
    const own = addresses(netlink).filter(({ local }) => addressOf(local)?.bits === this.#local.bits);
    const ways = routes(netlink, { table: RT_TABLE_MAIN }).filter((route) => this.concerns(route));
    const hops = ways.flatMap(({ oif, multipath = [] }) => [
      ...(oif === undefined ? [] : [oif]),
      ...multipath.map(({ ifindex }) => ifindex),
    ]);
    return new Set([...own.map(({ index }) => index), ...hops]);
  }
}

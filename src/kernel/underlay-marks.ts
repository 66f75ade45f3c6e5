/** Keeps the program of mark.ts where packets of the underlay come in: at each device that a route to other VMs leaves by. */
import { type Address, overlaps, type Prefix } from '../address.ts';
import * as native from '../io/linux/native.ts';
import type { Journal } from '../journal.ts';
import type { Mapping } from '../mapping.ts';
import { addressOf } from '../netlink/ipv4.ts';
import { IFF_LOOPBACK } from '../netlink/link.ts';
import type { Netlink } from '../netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTN_UNICAST } from '../netlink/route.ts';
import { addresses, findLink, routes } from '../netlink/rtnetlink.ts';
import { attachFilter } from '../setup/filter.ts';
import { VXLAN_PORT } from './device.ts';
import { loadMarkProgram } from './mark.ts';

/** ARPHRD_ETHER (<linux/if_arp.h>): its packets begin with an Ethernet header, those of all other devices here with the IP header. */
const ARPHRD_ETHER = 1;
const ETHERNET_HEADER = 14;

export class UnderlayMarks {
  readonly #mappings: readonly Mapping[];
  readonly #local: Address;
  /** Devices that have the program. */
  #ifindexes = new Set<number>();
  /** By the length of the link-layer header. */
  readonly #programs = new Map<number, number>();

  constructor(mappings: readonly Mapping[], local: Address) {
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

  /** Puts the program at each such device. To be called again when addresses or routes change. Throws NetlinkError or SystemError. */
  attach(netlink: Netlink, overlay: string, journal: Journal): void {
    this.#ifindexes = this.#devices(netlink);
    for (const index of this.#ifindexes) {
      const link = findLink(netlink, index);
      if (!link?.name || link.name === overlay || link.flags & IFF_LOOPBACK) continue;
      const linkHeader = link.type === ARPHRD_ETHER ? ETHERNET_HEADER : 0;
      const program = this.#programs.get(linkHeader) ?? loadMarkProgram(this.#local, VXLAN_PORT, linkHeader);
      this.#programs.set(linkHeader, program);
      attachFilter(netlink, link.name, 'ingress', program, journal);
    }
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

/** Where the program of mark.ts belongs: where packets of the underlay come in, at each device that a route to other VMs leaves by. */
import { BPF_MAP_TYPE_ARRAY, BpfMap } from '../../linux/bpf/map.ts';
import * as native from '../../linux/native.ts';
import { addressOf } from '../../linux/netlink/ipv4.ts';
import { IFF_LOOPBACK } from '../../linux/netlink/link.ts';
import type { Message } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTN_LOCAL, RTN_UNICAST, route } from '../../linux/netlink/route.ts';
import { addresses, findLink, routes } from '../../linux/netlink/rtnetlink.ts';
import { VXLAN_PORT } from '../../linux/protocols.ts';
import type { Trouble } from '../../machine/machine.ts';
import type { FilterThing, NetworkPlan } from '../../machine/state.ts';
import { overlaps, type Prefix } from '../../mesh/address.ts';
import { ETHERNET_HEADER } from './header-loads.ts';
import { loadMarkProgram } from './mark.ts';

/** Bytes before the IP header, by the type of the device (<linux/if_arp.h>): ARPHRD_ETHER, _PPP, _RAWIP, _TUNNEL and _NONE, such as WireGuard's. */
const LINK_HEADERS = new Map([
  [1, ETHERNET_HEADER],
  [512, 0],
  [519, 0],
  [768, 0],
  [0xfffe, 0],
]);

export class UnderlayMarks {
  readonly #plan: NetworkPlan;
  readonly #vni: number;
  /** The device with our address and those that routes to other VMs leave by, as of the last look at all addresses and routes. */
  #ways = new Set<number>();
  #isStale = true;
  #links: readonly number[] = [];
  #troubles: readonly Trouble[] = [];
  /** By the length of the link-layer header. */
  readonly #programs = new Map<number, number>();
  /** The outer source of the last packet that was doubted. */
  readonly #doubts: BpfMap;

  constructor(plan: NetworkPlan, vni: number) {
    this.#plan = plan;
    this.#vni = vni;
    this.#doubts = new BpfMap(BPF_MAP_TYPE_ARRAY, 8, 1);
  }

  /** Who sent the last packet whose inner source does not live there; a u32 number, undefined if there was none. */
  get doubted(): number | undefined {
    return Number((this.#doubts.get(0)?.[0] ?? 0n) & 0xffffffffn) || undefined;
  }

  get links(): readonly number[] {
    return this.#links;
  }

  get troubles(): readonly Trouble[] {
    return this.#troubles;
  }

  /** Whether packets to other VMs may take the route that a notification is about, or our address moves with it. Then all are looked at. */
  concerns({ view, start, end }: Message): boolean {
    const found = route.get(view, start, end);
    const isOwn = found.type === RTN_LOCAL && addressOf(found.dst)?.bits === this.#plan.local.bits;
    this.#isStale ||= isOwn || this.#isWay(found);
    return this.#isStale;
  }

  /** All are to be looked at again. */
  reload(): void {
    this.#isStale = true;
  }

  /** The filters as they should be now. */
  filters(netlink: Netlink): FilterThing[] {
    if (this.#isStale || [...this.#ways].some((index) => !findLink(netlink, index))) this.#lookAtAll(netlink);
    const found = [...this.#ways].flatMap((index) => {
      const link = findLink(netlink, index);
      return !link?.name || link.name === this.#plan.device || link.flags & IFF_LOOPBACK ? [] : [link];
    });
    this.#links = found.map(({ index }) => index);
    const unknown = found.filter(({ type }) => !LINK_HEADERS.has(type));
    this.#troubles = unknown.map(({ name, type }) => ({
      what: `what comes in by ${name} is not believed: it is a device of type ${type}, whose packets begin in a way that is not known`,
    }));
    return found.flatMap(({ name: device = '', type }): FilterThing[] => {
      const header = LINK_HEADERS.get(type);
      if (header === undefined) return [];
      return [{ kind: 'filter', device, place: 'ingress', program: this.#programFor(header), others: true }];
    });
  }

  #lookAtAll(netlink: Netlink): void {
    const own = addresses(netlink).filter(({ local }) => addressOf(local)?.bits === this.#plan.local.bits);
    const ways = routes(netlink, { table: RT_TABLE_MAIN }).filter((found) => this.#isWay(found));
    const devices = ways.flatMap(({ oif, multipath = [] }) => [
      ...(oif === undefined ? [] : [oif]),
      ...multipath.map(({ ifindex }) => ifindex),
    ]);
    this.#ways = new Set([...own.map(({ index }) => index), ...devices]);
    this.#isStale = false;
  }

  #isWay({ dst, dstLength, type }: Pick<Route, 'dst' | 'dstLength' | 'type'>): boolean {
    const to: Prefix = { width: 32, bits: addressOf(dst)?.bits ?? 0n, length: dstLength };
    return type === RTN_UNICAST && this.#plan.mappings.some(({ underlay }) => overlaps(to, underlay));
  }

  #programFor(linkHeader: number): number {
    const known = this.#programs.get(linkHeader);
    if (known !== undefined) return known;
    const { mappings, local } = this.#plan;
    const program = loadMarkProgram({
      mappings,
      local,
      port: VXLAN_PORT,
      vni: this.#vni,
      linkHeader,
      doubts: this.#doubts.fd,
    });
    this.#programs.set(linkHeader, program);
    return program;
  }

  close(): void {
    for (const fd of this.#programs.values()) native.close(fd);
    this.#doubts.close();
  }
}

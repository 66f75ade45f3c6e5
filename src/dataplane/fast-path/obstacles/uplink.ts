/** The device that leads to other VMs: all packets to them leave by it, and it has Ethernet frames. */
import type { Device } from '../../../linux/netfilter/packet.ts';
import { ARPHRD_ETHER, IFF_UP, type ReceivedLink } from '../../../linux/netlink/link.ts';
import type { Message } from '../../../linux/netlink/message.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { type AnyRoute, anyRoute, RT_TABLE_MAIN } from '../../../linux/netlink/route.ts';
import { findLink } from '../../../linux/netlink/rtnetlink.ts';
import type { NetworkPlan } from '../../../machine/state.ts';
import { describeRoute } from '../../../machine/things/route-text.ts';
import { wayToOthers } from '../../../machine/underlay.ts';
import { formatPrefix, overlaps, type Prefix } from '../../../mesh/address.ts';
import { cannot, type Obstacle } from './obstacle.ts';
import { Pace } from './pace.ts';
import { devicesOf, type NextHop, nextHopOf, prefixOf, routesAbout, waysTo } from './ways.ts';

const VRF = 'vrf';

export interface Uplink extends Device {
  /** Where packets to all other VMs go next, as table main has it; undefined if not all go the same way. */
  nextHop?: NextHop | undefined;
}

export class Uplinks {
  readonly #netlink: Netlink;
  /** The routes of table main to the underlay, as of the last look at all. */
  #routes: readonly AnyRoute[] = [];
  /** The way to other VMs then, as the kernel answers: device, router and source. */
  #way: string | undefined;
  /** What they told then. */
  #found: string | undefined;
  #nextHop: NextHop | undefined;
  #isStale = true;
  readonly #pace = new Pace();

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** The routes of table main that have to do with the underlay. */
  get routes(): readonly AnyRoute[] {
    return this.#routes;
  }

  /** Whether packets to other VMs may take the route that a notification is about. */
  concerns({ view, start, end }: Message, { mappings }: NetworkPlan): boolean {
    const found = anyRoute.get(view, start, end);
    const isWay =
      found.anyTable === RT_TABLE_MAIN && mappings.some(({ underlay }) => overlaps(prefixOf(found), underlay));
    this.#isStale ||= isWay;
    return isWay;
  }

  /** All routes are to be looked at again. */
  reload(): void {
    this.#isStale = true;
  }

  look(plan: NetworkPlan): { uplink?: Uplink; obstacle?: Obstacle } {
    const found = wayToOthers(this.#netlink, plan.mappings, plan.local);
    const index = found?.oif;
    const link = index === undefined ? undefined : findLink(this.#netlink, index);
    if (index === undefined || link?.name === undefined) return { obstacle: cannot('no route leads to other VMs') };
    const trouble = this.#troubleOf(link, plan);
    if (trouble !== undefined) return { obstacle: cannot(trouble) };
    const uplink = { index, name: link.name };
    const { gateway, via, prefsrc } = found ?? {};
    const divided = this.#divided(uplink, `${index} ${gateway} ${via} ${prefsrc}`, plan);
    return divided === undefined
      ? { uplink: { ...uplink, nextHop: this.#nextHop } }
      : { uplink, obstacle: cannot(divided) };
  }

  #troubleOf({ name, type, flags, info, master }: ReceivedLink, { device }: NetworkPlan): string | undefined {
    if (name === device) return `the route to other VMs leads into ${device} itself`;
    if (type !== ARPHRD_ETHER) return `${name}, by which other VMs are reached, is no Ethernet device`;
    if (!(flags & IFF_UP)) return `${name}, by which other VMs are reached, is down`;
    const kindOfMaster = master === undefined ? undefined : findLink(this.#netlink, master)?.info?.kind;
    if (info?.kind === VRF || kindOfMaster === VRF) return `${name}, by which other VMs are reached, belongs to a VRF`;
    return undefined;
  }

  /** The first route that leads VMs elsewhere, in words. */
  #divided(uplink: Uplink, way: string, plan: NetworkPlan): string | undefined {
    // The kernel does not tell of routes that go with their device, and an old one of none that go with their source: what is in
    // the way is looked at again, and what leads another way.
    if (this.#isStale || this.#way !== way || this.#found !== undefined)
      this.#pace.look(() => {
        const underlays = plan.mappings.map(({ underlay }) => underlay);
        const { routes, isWhole } = routesAbout(RT_TABLE_MAIN, underlays);
        this.#routes = routes;
        this.#way = way;
        this.#isStale = !isWhole;
        this.#found = this.#firstElsewhere(underlays, uplink);
        this.#nextHop = nextHopOf(underlays.flatMap((underlay) => waysTo(underlay, routes)));
      });
    return this.#found;
  }

  #firstElsewhere(underlays: readonly Prefix[], uplink: Uplink): string | undefined {
    for (const underlay of underlays)
      for (const each of waysTo(underlay, this.#routes)) {
        const words = this.#elsewhere(each, underlay, uplink);
        if (words !== undefined) return words;
      }
    return undefined;
  }

  #elsewhere(each: AnyRoute, underlay: Prefix, { index, name }: Uplink): string | undefined {
    const devices = devicesOf(each);
    if (devices.length > 0 && devices.every((device) => device === index)) return undefined;
    const words = describeRoute(this.#netlink, each);
    return `not all of ${formatPrefix(underlay)} is reached by ${name} in a plain way: there is a route ${words}`;
  }
}

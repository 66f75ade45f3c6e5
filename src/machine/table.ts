/**
 * Table main, as far as it is about the overlay: who has the routes that ours need, and which routes of
 * others hide slices.
 */
import { addressOf } from '../linux/netlink/ipv4.ts';
import { type Message, NLM_F_APPEND, NLM_F_REPLACE } from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTM_DELROUTE, RTM_NEWROUTE, RTN_UNICAST, route } from '../linux/netlink/route.ts';
import { matchingRoute, routes } from '../linux/netlink/rtnetlink.ts';
import { contains, type Prefix } from '../mesh/address.ts';
import { CATCH_ALL_PROTOCOL, CONTAINER_PROTOCOL, ROUTE_PROTOCOL } from './state.ts';
import { describeRoute } from './things/route-text.ts';

const OURS: readonly number[] = [ROUTE_PROTOCOL, CONTAINER_PROTOCOL, CATCH_ALL_PROTOCOL];
/** Routes of others that are remembered, at most. */
const MAX_HIDING = 64;

/** What a route is known by: a table has one for each prefix, type of service and metric. */
type Key = Pick<Route, 'dst' | 'dstLength' | 'priority'> & { tos?: number };

function keyOf({ dst, dstLength, tos = 0, priority = 0 }: Key): string {
  return `${dst?.join('.') ?? '0.0.0.0'}/${dstLength} ${tos} ${priority}`;
}

/** A route to one or several containers, and the interface index of the device that it leads to. */
export interface ContainerRoute extends Pick<Route, 'dst' | 'dstLength'> {
  link: number;
  hasGone: boolean;
}

export class MainTable {
  readonly #netlink: Netlink;
  /** The overlays' prefixes, and this VM's own slices: its containers have their routes in them. */
  #overlays: readonly Prefix[] = [];
  #own: readonly Prefix[] = [];
  /** The routes at the keys that ours need. */
  readonly #holders = new Map<string, Route>();
  readonly #hiding = new Map<string, Route>();
  /**
   * Interface indexes of the devices that routes inside the own slices were seen to lead to; who has looked
   * at one takes it out. It may have gone since.
   */
  readonly newContainerLinks = new Set<number>();
  /**
   * Routes inside the own slices that have come, been changed or gone, by what they are known by. Who has
   * looked at one takes it out.
   */
  readonly containerRoutes = new Map<string, ContainerRoute>();
  /** Whether one of them is not a route that attaching made. */
  hasForeignRoutes = false;
  /** Interface indexes of devices that a router is reached by: they were seen, and may have gone since. */
  readonly routerLinks = new Set<number>();

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** Reads the table: from then on it is kept up to date by what `hear` is told. */
  load(overlays: readonly Prefix[], own: readonly Prefix[]): void {
    this.#overlays = overlays;
    this.#own = own;
    this.#holders.clear();
    this.#hiding.clear();
    this.newContainerLinks.clear();
    this.containerRoutes.clear();
    this.routerLinks.clear();
    for (const found of routes(this.#netlink, { table: RT_TABLE_MAIN })) this.#note(found);
  }

  /** The first route with this key. Undefined if it is not known, because it was changed, say. */
  holder(wanted: Key): Route | undefined {
    return this.#holders.get(keyOf(wanted));
  }

  /** Looks for a route with this key in the whole table. */
  find(wanted: Key): Route | undefined {
    const key = keyOf(wanted);
    const found = routes(this.#netlink, { table: RT_TABLE_MAIN }).find((each) => keyOf(each) === key);
    if (found) this.#holders.set(key, copyOf(found));
    return found;
  }

  /** Remembers `mine` as the route with its key. */
  hold(mine: Route): void {
    this.#holders.set(keyOf(mine), mine);
  }

  forget(mine: Key): void {
    this.#holders.delete(keyOf(mine));
  }

  /**
   * Takes a notification, and answers whether it concerns the overlay. Notifications of our own changes do
   * not come here.
   */
  hear({ type, flags, view, start, end }: Message): boolean {
    if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return false;
    const found = route.get(view, start, end);
    if (found.table !== RT_TABLE_MAIN) return false;
    const key = keyOf(found);
    // An appended route comes after those with the same key, so the first one stays.
    const isHeld = this.#holders.has(key) && !(type === RTM_NEWROUTE && flags & NLM_F_APPEND);
    if (isHeld) this.#holders.delete(key);
    this.#noteContainer(found, type === RTM_DELROUTE);
    if (type === RTM_DELROUTE) return this.#hiding.delete(idOf(found)) || isHeld || this.#isRepairable(found);
    if (flags & NLM_F_REPLACE) for (const [id, each] of this.#hiding) if (keyOf(each) === key) this.#hiding.delete(id);
    return this.#noteHiding(found) || isHeld;
  }

  /** Whether a route to containers leads to this device now. */
  isContainerLink(index: number): boolean {
    return routes(this.#netlink, { table: RT_TABLE_MAIN, oif: index }).some((each) => this.#isToContainers(each));
  }

  /**
   * Routes of others that hide slices, in words. Each is looked for again: the kernel does not tell of routes
   * that go with their device.
   */
  hiding(): string[] {
    return [...this.#hiding].flatMap(([id, found]) => {
      if (this.#isThere(found)) return [describeRoute(this.#netlink, found)];
      this.#hiding.delete(id);
      return [];
    });
  }

  #isThere(found: Route): boolean {
    const to = addressOf(found.dst);
    if (found.type !== RTN_UNICAST || !to) return true; // A route without a device does not go when a device goes.
    const match = matchingRoute(this.#netlink, to);
    if (!match || match.dstLength < found.dstLength) return false;
    // If a longer prefix matches, this question tells nothing about the route. If the match has the same
    // prefix and is ours, the route is gone: ours comes after it.
    return match.dstLength > found.dstLength || (!OURS.includes(match.protocol) && match.oif === found.oif);
  }

  #note(found: Route): void {
    const key = keyOf(found);
    if (this.#isOverlay(found) || OURS.includes(found.protocol)) {
      if (!this.#holders.has(key)) this.#holders.set(key, copyOf(found));
    }
    this.#noteHiding(found);
    this.#noteContainer(found);
  }

  #noteContainer(found: Route, hasGone = false): void {
    const { oif, dst, dstLength, gateway } = found;
    if (!oif || found.type !== RTN_UNICAST) return;
    // A container that is a router is a container all the same.
    if (gateway && !hasGone && !this.#isOwn(gateway)) this.routerLinks.add(oif);
    if (!this.#isToContainers(found)) return;
    if (!hasGone) this.newContainerLinks.add(oif);
    this.containerRoutes.set(keyOf(found), { dst: dst?.slice(), dstLength, link: oif, hasGone });
    this.hasForeignRoutes ||= found.protocol !== CONTAINER_PROTOCOL;
  }

  #isOwn(gateway: Uint8Array): boolean {
    const address = addressOf(gateway);
    return address !== undefined && this.#own.some((each) => contains(each, address));
  }

  #isToContainers({ dst, dstLength, type, protocol }: Route): boolean {
    if (type !== RTN_UNICAST || protocol === ROUTE_PROTOCOL) return false;
    const prefix = prefixOf({ dst, dstLength });
    return this.#own.some((each) => dstLength >= each.length && contains(each, prefix));
  }

  #isOverlay({ dst, dstLength }: Route): boolean {
    const prefix = prefixOf({ dst, dstLength });
    return [...this.#overlays, ...this.#own].some((each) => each.length === dstLength && contains(each, prefix));
  }

  /** Whether a route that was removed is one of ours. */
  #isRepairable({ protocol, gateway }: Route): boolean {
    return (protocol === ROUTE_PROTOCOL && !gateway) || protocol === CATCH_ALL_PROTOCOL;
  }

  /** A route of others into the overlay, more exact than ours, but not to a container of this VM. */
  #noteHiding(found: Route): boolean {
    if (OURS.includes(found.protocol) || this.#hiding.size >= MAX_HIDING) return false;
    const prefix = prefixOf(found);
    const hides =
      this.#overlays.some((each) => found.dstLength > each.length && contains(each, prefix)) &&
      !this.#own.some((each) => found.dstLength >= each.length && contains(each, prefix));
    if (hides) this.#hiding.set(idOf(found), copyOf(found));
    return hides;
  }
}

/** A copy: the byte arrays of `found` are views of the datagram it came in. */
function copyOf(found: Route): Route {
  return { ...found, dst: found.dst?.slice(), gateway: found.gateway?.slice(), prefsrc: found.prefsrc?.slice() };
}

function prefixOf({ dst, dstLength }: Pick<Route, 'dst' | 'dstLength'>): Prefix {
  return { width: 32, bits: addressOf(dst)?.bits ?? 0n, length: dstLength };
}

/** What tells apart routes of others that have the same key. */
function idOf(found: Route): string {
  return `${keyOf(found)} ${found.oif ?? 0} ${found.type}`;
}

/** Which devices the kernel's routes to the containers of this VM lead to. */
import { ipv4Number } from '../../../linux/netlink/ipv4.ts';
import type { Message } from '../../../linux/netlink/message.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import {
  type Route,
  RT_TABLE_LOCAL,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_LOCAL,
  RTN_UNICAST,
  route,
} from '../../../linux/netlink/route.ts';
import { matchingRoute, routes } from '../../../linux/netlink/rtnetlink.ts';
import { type Address, ipv4, lowBits } from '../../../mesh/address.ts';
import { type Mapping, slicesOf } from '../../../mesh/mapping.ts';

const HOST = 32;
// Offsets in a message: rtm_dst_len and rtm_table.
const DST_LENGTH = 1;
const TABLE = 4;

/** The first and the last of the addresses of one slice that containers can have: not the VM's, nor the one that is kept free. */
interface Range {
  first: number;
  last: number;
}

export class ContainerRoutes {
  readonly #netlink: Netlink;
  readonly #ranges: readonly Range[];
  /** The types of service for which a container may have a route of its own, by the container's address. */
  readonly #special = new Map<number, Set<number>>();

  constructor(netlink: Netlink, mappings: readonly Mapping[], local: Address) {
    this.#netlink = netlink;
    this.#ranges = slicesOf(mappings, local).map(({ bits, width, length }) => {
      const first = Number(bits);
      return { first: first + 2, last: first + Number(lowBits(width - length)) - 1 };
    });
  }

  /** The container whose route may be another now; all if one route may hide those of many; undefined if none. */
  hear({ type, view, start, end }: Message): number | 'all' | undefined {
    if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return undefined;
    const isHost = view.getUint8(start + DST_LENGTH) === HOST;
    // Whatever table main says, table local comes first.
    if (!isHost && view.getUint8(start + TABLE) !== RT_TABLE_LOCAL) return undefined;
    const found = route.get(view, start, end);
    if (!isHost) return this.#hides(found) ? 'all' : undefined;
    const address = this.#containerIn(found);
    if (address !== undefined) this.#noteSpecial(address, found);
    return address;
  }

  /** Of all containers, the interface indexes of the devices behind which they are; undefined where only the kernel can say. */
  read(): Map<number, number | undefined> {
    this.#special.clear();
    const byAddress = new Map<number, Route[]>();
    for (const found of routes(this.#netlink, { table: RT_TABLE_MAIN })) {
      const address = found.table === RT_TABLE_MAIN && found.dstLength === HOST ? this.#containerIn(found) : undefined;
      if (address === undefined) continue;
      this.#noteSpecial(address, found);
      const known = byAddress.get(address);
      if (known) known.push(found);
      else byAddress.set(address, [found]);
    }
    const isHidden = routes(this.#netlink, { table: RT_TABLE_LOCAL }).some((found) => this.#hides(found));
    const links = new Map<number, number | undefined>();
    for (const [address, all] of byAddress) {
      const [only] = all;
      const isUnclear = isHidden || all.length > 1;
      const link = isUnclear || !only ? undefined : linkOf(only);
      if (isUnclear || link !== undefined) links.set(address, link);
    }
    return links;
  }

  /**
   * The device that the kernel would send a packet for a container to; undefined if it is not sent straight to a device, or if not all
   * packets are sent to the same one.
   */
  linkTo(address: number): number | undefined {
    if (this.#isSpecial(address)) return undefined;
    const found = matchingRoute(this.#netlink, ipv4(address));
    return found && linkOf(found);
  }

  /** Containers that had another route for some packets: it may have gone with its device, of which the kernel does not tell. */
  get special(): Iterable<number> {
    return this.#special.keys();
  }

  #isSpecial(address: number): boolean {
    const known = this.#special.get(address);
    if (!known) return false;
    for (const tos of known) {
      const found = matchingRoute(this.#netlink, ipv4(address), undefined, tos);
      // A route of table local hides it. Without rules both tables are one for the kernel, so only the type tells.
      if (found?.table === RT_TABLE_MAIN && found.type !== RTN_LOCAL && found.tos !== tos) known.delete(tos);
    }
    if (known.size === 0) this.#special.delete(address);
    return known.size > 0;
  }

  /** Whether an address is in a slice of this VM. */
  isOwn(bytes: Uint8Array | undefined): boolean {
    const address = ipv4Number(bytes) ?? -1;
    return this.#ranges.some(({ first, last }) => address >= first - 2 && address <= last + 1);
  }

  #containerIn({ dst }: Route): number | undefined {
    const address = ipv4Number(dst);
    if (address === undefined) return undefined;
    return this.#ranges.some(({ first, last }) => address >= first && address <= last) ? address : undefined;
  }

  /** Whether a route of table local is about containers. */
  #hides({ table, dst, dstLength }: Route): boolean {
    if (table !== RT_TABLE_LOCAL) return false;
    const low = ipv4Number(dst) ?? 0;
    const high = low + 2 ** (HOST - dstLength) - 1;
    return this.#ranges.some(({ first, last }) => low <= last && high >= first);
  }

  #noteSpecial(address: number, { tos }: Route): void {
    if (tos !== 0) this.#special.set(address, (this.#special.get(address) ?? new Set()).add(tos));
  }
}

/** The only device that a route leads to, without a gateway and without a limit of its own. */
function linkOf(found: Route): number | undefined {
  const { type, table, dstLength, tos, oif, gateway, via, multipath, nexthop, encapType, metrics } = found;
  const isPlain = type === RTN_UNICAST && table === RT_TABLE_MAIN && dstLength === HOST && tos === 0;
  const isOther = gateway ?? via ?? multipath ?? nexthop ?? encapType ?? metrics?.mtu;
  return isPlain && isOther === undefined ? oif : undefined;
}

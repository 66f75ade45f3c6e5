/** What the routes of one table say about the way to a prefix: by which devices, and what is no plain way. */
import os from 'node:os';
import { addressOf } from '../../../linux/netlink/ipv4.ts';
import { NetlinkError, type Request, request } from '../../../linux/netlink/message.ts';
import { Netlink } from '../../../linux/netlink/netlink.ts';
import {
  type AnyRoute,
  anyRoute,
  RT_TABLE_COMPAT,
  RTM_GETROUTE,
  RTN_THROW,
  RTN_UNICAST,
} from '../../../linux/netlink/route.ts';
import { AF_INET } from '../../../linux/netlink/rtnetlink.ts';
import { contains, overlaps, type Prefix } from '../../../mesh/address.ts';

const { EINTR, ENOENT } = os.constants.errno;
/** Routes of a table that are read, at most. */
const MAX_ROUTES = 50_000;
/** The largest number of a table that the old field has room for. */
const MAX_OLD_TABLE = 255;

export interface TableRoutes {
  /** Those that have to do with the prefixes that were asked for. */
  routes: AnyRoute[];
  /** Whether the table was the same all the while. */
  isWhole: boolean;
}

/** The routes of a table that have to do with these prefixes. Throws an Error if the table is too large. */
export function routesAbout(table: number, prefixes: readonly Prefix[]): TableRoutes {
  // A socket of its own: what is not read goes with it.
  const netlink = Netlink.open();
  const found: AnyRoute[] = [];
  let read = 0;
  try {
    for (const part of netlink.parts(askFor(table), anyRoute)) {
      read += part.length;
      if (read > MAX_ROUTES) throw new Error(`table ${table} has more than ${MAX_ROUTES} routes`);
      found.push(...part.filter((each) => prefixes.some((prefix) => overlaps(prefixOf(each), prefix))).map(copyOf));
    }
    return { routes: found, isWhole: true };
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === EINTR) return { routes: found, isWhole: false };
    throw error;
  } finally {
    netlink.close();
  }
}

function askFor(table: number): Request {
  const which = table > MAX_OLD_TABLE ? { table: RT_TABLE_COMPAT, anyTable: table } : { table };
  const asked = request(RTM_GETROUTE, 0, `routes of table ${table}`, anyRoute, { family: AF_INET, ...which });
  // A table that never had a route does not exist.
  return { ...asked, none: ENOENT };
}

/**
 * The routes that packets to addresses of a prefix may take: for each prefix inside it the one with the best metric, and the best
 * of those that cover all of it.
 */
export function waysTo(prefix: Prefix, all: readonly AnyRoute[]): AnyRoute[] {
  const best = new Map<string, AnyRoute>();
  for (const each of all) {
    const to = prefixOf(each);
    if (!overlaps(to, prefix) || each.type === RTN_THROW) continue;
    const isCover = to.length <= prefix.length;
    const key = isCover ? `${each.tos}` : `${to.bits}/${to.length} ${each.tos}`;
    const known = best.get(key);
    if (!known || isBetter(each, known)) best.set(key, each);
  }
  return [...best.values()];
}

/** The length of the longest route that covers all of a prefix, whatever the type of service; -1 if there is none. */
export function coverOf(prefix: Prefix, all: readonly AnyRoute[]): number {
  const covers = all.filter(({ tos, type, ...rest }) => {
    const to = prefixOf(rest);
    return tos === 0 && type !== RTN_THROW && to.length <= prefix.length && contains(to, prefix);
  });
  return Math.max(-1, ...covers.map(({ dstLength }) => dstLength));
}

/** Interface indexes of the devices that a route leads to; none if it refuses packets, or puts them into a tunnel of its own. */
export function devicesOf({ type, oif, multipath = [], encapType }: AnyRoute): number[] {
  const isTunnel = encapType !== undefined || multipath.some((hop) => hop.encapType !== undefined);
  if (type !== RTN_UNICAST || isTunnel) return [];
  return [...(oif === undefined ? [] : [oif]), ...multipath.map(({ ifindex }) => ifindex)];
}

/** Where packets to VMs go next: to the VM itself, or to a router (IPv4, u32). */
export type NextHop = 'vm' | number;

/** Where all packets that take these routes go next; undefined if that is not the same for all, or no IPv4 router. */
export function nextHopOf(ways: readonly AnyRoute[]): NextHop | undefined {
  const hops = ways.map(({ gateway, via, multipath }): NextHop | undefined => {
    if (via !== undefined || multipath !== undefined) return undefined;
    const router = addressOf(gateway);
    return router === undefined ? 'vm' : Number(router.bits);
  });
  const [first] = hops;
  return hops.every((hop) => hop === first) ? first : undefined;
}

export function prefixOf({ dst, dstLength }: Pick<AnyRoute, 'dst' | 'dstLength'>): Prefix {
  return { width: 32, bits: addressOf(dst)?.bits ?? 0n, length: dstLength };
}

function isBetter(a: AnyRoute, b: AnyRoute): boolean {
  return a.dstLength > b.dstLength || (a.dstLength === b.dstLength && (a.priority ?? 0) < (b.priority ?? 0));
}

/** A copy: the byte arrays of `found` are views of the datagram it came in. */
function copyOf(found: AnyRoute): AnyRoute {
  return { ...found, dst: found.dst?.slice(), gateway: found.gateway?.slice(), via: found.via?.slice() };
}

/** Questions that are asked of rtnetlink in several places. */

import os from 'node:os';
import type { Address as IpAddress } from '../../mesh/address.ts';
import { AF_INET } from '../native.ts';
import { type Address, type AddressRequest, address, RTM_GETADDR } from './address.ts';
import { addressBytes } from './ipv4.ts';
import { link, type ReceivedLink, RTM_GETLINK } from './link.ts';
import { NetlinkError, request } from './message.ts';
import type { Netlink } from './netlink.ts';
import { type Route, type RouteRequest, RTM_F_FIB_MATCH, RTM_GETROUTE, route } from './route.ts';
import { RTM_GETRULE, type Rule, rule } from './rule.ts';

export { AF_INET };

const { ENOENT } = os.constants.errno;

/** The link of that name, or with that index; undefined if there is none. */
export function findLink(netlink: Netlink, which: string | number): ReceivedLink | undefined {
  const body = typeof which === 'string' ? { name: which } : { index: which };
  return orUndefined(['ENODEV', 'EINVAL'], () =>
    netlink.get(request(RTM_GETLINK, 0, `link ${which}`, link, body), link),
  );
}

/**
 * The links of one kind, such as 'vxlan'. The kernel leaves out the others, however many there are, unless it
 * does not know the kind: then it sends all, and there are none. `enough` as in `Netlink.dump`.
 */
export function linksOfKind(
  netlink: Netlink,
  kind: string,
  enough?: (found: readonly ReceivedLink[]) => boolean,
): ReceivedLink[] {
  const asked = request(RTM_GETLINK, 0, `links of kind ${kind}`, link, { info: { kind } });
  const isOther = ({ info }: ReceivedLink) => info?.kind !== kind;
  const all = netlink.dump(asked, link, (found) => found.some(isOther) || enough?.(found) === true);
  return all.filter((found) => !isOther(found));
}

/** IPv4 addresses: all, or those of one link. `enough` as in `Netlink.dump`. */
export function addresses(netlink: Netlink, index = 0, enough?: (found: readonly Address[]) => boolean): Address[] {
  const body: AddressRequest = { family: AF_INET, index };
  return netlink.dump(request(RTM_GETADDR, 0, 'addresses', address, body), address, enough);
}

/** IPv4 routes whose fields, such as table, protocol and oif, are those of the filter. */
export function routes(netlink: Netlink, filter: RouteRequest): Route[] {
  const body = { family: AF_INET, ...filter };
  // A table that never had a route does not exist.
  return netlink.dump({ ...request(RTM_GETROUTE, 0, 'routes', route, body), none: ENOENT }, route);
}

/** All IPv4 rules of policy routing. */
export function rules(netlink: Netlink): Rule[] {
  return netlink.dump(request(RTM_GETRULE, 0, 'rules', rule, { family: AF_INET }), rule);
}

/**
 * The route that a packet would take, from this address if one is given, with what the kernel has learnt of
 * the way: its MTU is the path's. Throws NetlinkError if there is none.
 */
export function routeTowards(netlink: Netlink, to: IpAddress, from?: IpAddress): Route {
  return netlink.get(request(RTM_GETROUTE, 0, 'route to another VM', route, packet(to, from)), route);
}

/** The route, as it stands in its table, that a packet would take, with this type of service; undefined if it would take none. */
export function matchingRoute(netlink: Netlink, to: IpAddress, from?: IpAddress, tos = 0): Route | undefined {
  const body = { ...packet(to, from), flags: RTM_F_FIB_MATCH, tos };
  const none = ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL'];
  return orUndefined(none, () => netlink.get(request(RTM_GETROUTE, 0, 'matching route', route, body), route));
}

function packet(to: IpAddress, from: IpAddress | undefined): RouteRequest {
  return {
    ...{ family: AF_INET, dstLength: to.width, dst: addressBytes(to) },
    ...(from && { srcLength: from.width, src: addressBytes(from) }),
  };
}

/** What `ask` returns; undefined if the kernel refuses it with one of these codes. */
function orUndefined<T>(codes: readonly string[], ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof NetlinkError && codes.includes(error.code)) return undefined;
    throw error;
  }
}

/** Questions that are asked of rtnetlink in several places. */

import type { Address as IpAddress } from '../../mesh/address.ts';
import { AF_INET } from '../native.ts';
import { type Address, type AddressRequest, address, RTM_GETADDR } from './address.ts';
import { addressBytes } from './ipv4.ts';
import { link, type ReceivedLink, RTM_GETLINK } from './link.ts';
import { NetlinkError, request } from './message.ts';
import type { Netlink } from './netlink.ts';
import { type Route, type RouteRequest, RTM_GETROUTE, route } from './route.ts';

export { AF_INET };

/** The link of that name, or with that index; undefined if there is none. */
export function findLink(netlink: Netlink, which: string | number): ReceivedLink | undefined {
  const body = typeof which === 'string' ? { name: which } : { index: which };
  return orUndefined(['ENODEV', 'EINVAL'], () =>
    netlink.get(request(RTM_GETLINK, 0, `link ${which}`, link, body), link),
  );
}

export function links(netlink: Netlink): ReceivedLink[] {
  return netlink.dump(request(RTM_GETLINK, 0, 'links', link, {}), link);
}

/** All IPv4 addresses. */
export function addresses(netlink: Netlink): Address[] {
  const body: AddressRequest = { family: AF_INET };
  return netlink.dump(request(RTM_GETADDR, 0, 'addresses', address, body), address);
}

/** IPv4 routes: those of which the given fields, such as table, protocol and oif, are the same. */
export function routes(netlink: Netlink, filter: RouteRequest): Route[] {
  const body = { family: AF_INET, ...filter };
  // The kernel has no table before its first route.
  return orUndefined(['ENOENT'], () => netlink.dump(request(RTM_GETROUTE, 0, 'routes', route, body), route)) ?? [];
}

/** The route that a packet would take. Throws NetlinkError if there is none. */
export function routeTowards(netlink: Netlink, to: IpAddress, from: IpAddress): Route {
  const body: RouteRequest = {
    family: AF_INET,
    dstLength: to.width,
    dst: addressBytes(to),
    srcLength: from.width,
    src: addressBytes(from),
  };
  return netlink.get(request(RTM_GETROUTE, 0, 'route to another VM', route, body), route);
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

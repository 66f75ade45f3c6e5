/** The routes that attaching makes: claims on addresses, and tombstones (claim.ts). */
import type { Netlink } from '../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTN_UNICAST, RTN_UNREACHABLE } from '../linux/netlink/route.ts';
import { routes } from '../linux/netlink/rtnetlink.ts';
import { CONTAINER_PROTOCOL } from '../machine/state.ts';

/** All claims, or those of one link. */
export function claimsIn(netlink: Netlink, oif?: number): Route[] {
  return containerRoutes(netlink, oif === undefined ? { type: RTN_UNICAST } : { type: RTN_UNICAST, oif });
}

export function tombstonesIn(netlink: Netlink): Route[] {
  return containerRoutes(netlink, { type: RTN_UNREACHABLE });
}

/** Of both kinds, if no type is given. */
export function containerRoutes(netlink: Netlink, filter: { type?: number; oif?: number } = {}): Route[] {
  const found = routes(netlink, { table: RT_TABLE_MAIN, protocol: CONTAINER_PROTOCOL, ...filter });
  const { type, oif } = filter;
  // The kernel filters since Linux 4.20.
  return found.filter(
    (each) =>
      each.protocol === CONTAINER_PROTOCOL &&
      (type === undefined || each.type === type) &&
      (oif === undefined || each.oif === oif),
  );
}

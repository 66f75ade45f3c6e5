/** The container's side: what is set in its network namespace, through a socket that was opened there. */
import os from 'node:os';
import { address, RTM_NEWADDR } from '../linux/netlink/address.ts';
import { changeDevice } from '../linux/netlink/device-settings.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_EXCL, type Request, request } from '../linux/netlink/message.ts';
import { NUD_PERMANENT } from '../linux/netlink/neighbour.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_LOCAL,
  RTN_UNICAST,
  route,
} from '../linux/netlink/route.ts';
import { AF_INET, matchingRoute } from '../linux/netlink/rtnetlink.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import { type Address, formatPrefix, type Prefix } from '../mesh/address.ts';
import { ContainerError } from './reasons.ts';
import { permanentNeighbour, withoutIpv6 } from './veth.ts';

/** A protocol that is not the kernel's, as `ip route` gives it (RTPROT_STATIC, <linux/rtnetlink.h>). */
const RTPROT_STATIC = 4;

/** What a container is to have, and on which of its links. */
export interface Inside {
  link: number;
  ifname: string;
  own: Address;
  gateway: Address;
  /** What the gateway is the way to where another interface has the default route. */
  overlay: Prefix;
}

interface SetUp extends Inside {
  /** Of the host's end of the veth. */
  gatewayMac: Uint8Array;
  /** Whether the gateway is the way to everywhere. */
  isWayOut: boolean;
}

/**
 * Loopback and link up, the address, the routes, and where the gateway is. Answers what the gateway is the way
 * to. Throws ContainerError or NetlinkError.
 */
export function setUpInside(
  netlink: Netlink,
  { link, ifname, own, gateway, overlay, gatewayMac, isWayOut }: SetUp,
): string {
  const [to, via] = [addressBytes(gateway), { oif: link, scope: RT_SCOPE_UNIVERSE, gateway: addressBytes(gateway) }];
  const errors = netlink.tryAll([
    changeDevice(LOOPBACK, { isUp: true }),
    // Before the link is up: from then on it would have an IPv6 address.
    changeDevice(link, withoutIpv6),
    changeDevice(link, { isUp: true }),
    newAddress(link, own),
    newRoute({ oif: link, scope: RT_SCOPE_LINK, dst: to, dstLength: 32 }),
    newRoute(isWayOut ? via : { ...via, dst: addressBytes(overlay), dstLength: overlay.length }),
    permanentNeighbour(link, gateway, gatewayMac),
  ]);
  const error = errors.find((each) => each !== undefined);
  if (!error) return isWayOut ? '0.0.0.0/0' : formatPrefix(overlay);
  if (error.code !== 'EEXIST') throw error;
  throw new ContainerError('interface-exists', `the namespace is on the mesh already, beside ${ifname}`, {
    hint: 'a container has one interface of the mesh: detach the other one first',
    cause: error,
  });
}

/**
 * Whether another network is the way out of the container, whatever the metric of its route: ours would come
 * before it. Undefined if the container has no route at all; else the socket is closed, for there may be a
 * million.
 */
export function hasDefaultRoute(netlink: Netlink): boolean | undefined {
  const body = { family: AF_INET, table: RT_TABLE_MAIN };
  // The table does not exist where there never was a route.
  const asked = { ...request(RTM_GETROUTE, 0, 'routes of the container', route, body), none: ENOENT };
  for (const part of netlink.parts(asked, route)) {
    netlink.close();
    // It comes first.
    return part.some(({ dstLength, type, priority }) => dstLength === 0 && (type === RTN_UNICAST || !priority));
  }
  return undefined;
}
const { ENOENT } = os.constants.errno;

/** What of it is not as it was made; undefined if all is. A container may have a million routes: none is read twice. */
export function wrongInside(netlink: Netlink, { link, ifname, own, gateway, overlay }: Inside): string | undefined {
  // From its own address: plugins of a chain move routes to tables that rules by source lead to.
  const leads = (to: Address) => {
    const found = matchingRoute(netlink, to, own);
    return found?.oif === link ? found : undefined;
  };
  if (leads(own)?.type !== RTN_LOCAL) return `${ifname} does not have its address`;
  if (leads(gateway)?.dstLength !== 32) return `${ifname} has no route to its gateway`;
  // The overlay's own address is nobody's.
  if (String(leads(overlay)?.gateway) !== String(addressBytes(gateway))) return `${ifname} has no route to the mesh`;
  const entry = neighbourAt(netlink, link, addressBytes(gateway));
  if (!entry || (entry.state & NUD_PERMANENT) === 0) return `${ifname} has no lasting entry for its gateway`;
  return undefined;
}

function newAddress(index: number, own: Address): Request {
  const local = addressBytes(own);
  const body = { family: AF_INET, prefixLength: 32, index, local, address: local };
  return request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, () => `address ${local.join('.')}`, address, body);
}

function newRoute(body: RouteRequest): Request {
  const what = () => `route ${body.dst?.join('.') ?? 'default'} in the container`;
  const fixed = { family: AF_INET, table: RT_TABLE_MAIN, protocol: RTPROT_STATIC, type: RTN_UNICAST };
  return request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, what, route, { ...fixed, ...body });
}

/** The container's side: what is set in its network namespace, through a socket that was opened there. */
import { address, RTM_NEWADDR } from '../linux/netlink/address.ts';
import { changeDevice } from '../linux/netlink/device-settings.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_EXCL, type Request, request, written } from '../linux/netlink/message.ts';
import { NUD_PERMANENT } from '../linux/netlink/neighbour.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_NEWROUTE,
  RTN_UNICAST,
  route,
} from '../linux/netlink/route.ts';
import { AF_INET, addresses, routes } from '../linux/netlink/rtnetlink.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import type { Address, Prefix } from '../mesh/address.ts';
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
  /** Of the host's end of the veth. */
  gatewayMac: Uint8Array;
}

/** Loopback and link up, the address, the routes, and where the gateway is. Throws ContainerError or NetlinkError. */
export function setUpInside(netlink: Netlink, inside: Inside): void {
  const { link, ifname, own, gateway, gatewayMac } = inside;
  const { up, defaultRoute } = commonTo(link, gateway);
  const errors = netlink.tryAll([
    ...up,
    newAddress(link, own),
    hasDefaultRoute(netlink) ? overlayRoute(inside) : defaultRoute,
    permanentNeighbour(link, gateway, gatewayMac),
  ]);
  const error = errors.find((each) => each !== undefined);
  if (!error) return;
  if (error.code !== 'EEXIST') throw error;
  throw new ContainerError('interface-exists', `the namespace is on the mesh already, beside ${ifname}`, {
    hint: 'a container has one interface of the mesh: detach the other one first',
    cause: error,
  });
}

/**
 * The requests that are the same for all containers of a VM whose links have the same index, as nearly all
 * have.
 */
function commonTo(link: number, gateway: Address): Common {
  if (common?.link === link && common.gateway === gateway) return common;
  const to = addressBytes(gateway);
  const up = [
    changeDevice(LOOPBACK, { isUp: true }),
    // Before the link is up: from then on it would have an IPv6 address.
    changeDevice(link, withoutIpv6),
    changeDevice(link, { isUp: true }),
    newRoute({ oif: link, scope: RT_SCOPE_LINK, dst: to, dstLength: 32 }),
  ];
  const defaultRoute = newRoute({ oif: link, scope: RT_SCOPE_UNIVERSE, gateway: to });
  common = { link, gateway, up: up.map(written), defaultRoute: written(defaultRoute) };
  return common;
}
interface Common {
  link: number;
  gateway: Address;
  up: Request[];
  defaultRoute: Request;
}
let common: Common | undefined;

/** Whether another network is the way out, whatever the metric of its route: ours would come before it. */
function hasDefaultRoute(netlink: Netlink): boolean {
  return routes(netlink, { table: RT_TABLE_MAIN }).some(
    ({ dstLength, type, priority }) => dstLength === 0 && (type === RTN_UNICAST || !priority),
  );
}

/** What of it is not as it was made; undefined if all is. */
export function wrongInside(netlink: Netlink, { link, ifname, own, gateway, overlay }: Inside): string | undefined {
  const same = (bytes: Uint8Array | undefined, wanted: Address) => String(bytes) === String(addressBytes(wanted));
  if (!addresses(netlink, link).some(({ local }) => same(local, own))) return `${ifname} does not have its address`;
  const found = routes(netlink, { table: RT_TABLE_MAIN, oif: link });
  if (!found.some(({ dst, dstLength }) => dstLength === 32 && same(dst, gateway)))
    return `${ifname} has no route to its gateway`;
  if (!found.some(({ dstLength, gateway: via }) => [0, overlay.length].includes(dstLength) && same(via, gateway)))
    return `${ifname} has no route to the mesh`;
  const entry = neighbourAt(netlink, link, addressBytes(gateway));
  if (!entry || (entry.state & NUD_PERMANENT) === 0) return `${ifname} has no lasting entry for its gateway`;
  return undefined;
}

function newAddress(index: number, own: Address): Request {
  const local = addressBytes(own);
  const body = { family: AF_INET, prefixLength: 32, index, local, address: local };
  return request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, () => `address ${local.join('.')}`, address, body);
}

/** Beside an interface of another network, which has the default route. */
function overlayRoute({ link, gateway, overlay }: Inside): Request {
  const to = { dst: addressBytes(overlay), dstLength: overlay.length };
  return newRoute({ oif: link, scope: RT_SCOPE_UNIVERSE, gateway: addressBytes(gateway), ...to });
}

function newRoute(body: RouteRequest): Request {
  const what = () => `route ${body.dst?.join('.') ?? 'default'} in the container`;
  const fixed = { family: AF_INET, table: RT_TABLE_MAIN, protocol: RTPROT_STATIC, type: RTN_UNICAST };
  return request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, what, route, { ...fixed, ...body });
}

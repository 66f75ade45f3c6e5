/** The host's side of a container: the veth, its settings, the VM's own address, and the neighbour entry. */
import { existsSync, writeFileSync } from 'node:fs';
import { address, RTM_NEWADDR } from '../linux/netlink/address.ts';
import { changeDevice } from '../linux/netlink/device-settings.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { IFF_NOARP, IN6_ADDR_GEN_MODE_NONE, LOOPBACK, link, RTM_DELLINK, RTM_NEWLINK } from '../linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, type Request, request } from '../linux/netlink/message.ts';
import { NUD_PERMANENT, neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from '../linux/netlink/neighbour.ts';
import { RT_SCOPE_LINK, RT_TABLE_MAIN, RTM_NEWROUTE, RTN_UNREACHABLE, route } from '../linux/netlink/route.ts';
import { AF_INET } from '../linux/netlink/rtnetlink.ts';
import { CATCH_ALL_METRIC, CATCH_ALL_PROTOCOL, CONTAINER_PROTOCOL } from '../machine/state.ts';
import type { Address, Prefix } from '../mesh/address.ts';
import { CONTAINER_GROUP, DETACHED_GROUP, type Names, RELEASED_GROUP } from './alias.ts';

/** One queue each: by default the kernel makes one for each possible processor. */
const ONE_QUEUE = { numTxQueues: 1, numRxQueues: 1 };

/** The container's end of a veth, made where it belongs: to move it into a namespace later takes 15 ms. */
export interface Peer {
  ifname: string;
  /** An open network namespace; this process's own unless given. */
  netNsFd?: number;
  /** Without address resolution: every packet goes to the link-layer address that the end itself has. */
  noArp?: boolean;
}

/** Both ends in one message (<linux/veth.h>). */
export function newVeth(
  { hostInterface, hostMac, mac }: Names,
  { ifname, netNsFd, noArp }: Peer,
  mtu: number,
): Request {
  const flags = noArp ? { flags: IFF_NOARP, change: IFF_NOARP } : {};
  const peer = { name: ifname, address: mac, mtu, netNsFd, ...flags, ...ONE_QUEUE };
  return request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, `veth ${hostInterface}`, link, {
    ...{ name: hostInterface, address: hostMac, mtu, group: CONTAINER_GROUP, ...ONE_QUEUE },
    info: { kind: 'veth', data: { peer } },
  });
}

/**
 * Nothing of IPv6 is part of the mesh. Without it the kernel also has less to do for each device. Where the
 * file cannot be written, the guard of the daemon says so.
 */
export function disableIpv6(device: string): void {
  if (!hasIpv6) return;
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '1');
  } catch {}
}
const hasIpv6 = existsSync('/proc/sys/net/ipv6');

/** IPv6 addresses of a link, which nobody asked for. */
export const withoutIpv6 = hasIpv6 ? { addrGenMode: IN6_ADDR_GEN_MODE_NONE } : {};

/**
 * The host's end, up. Without an address it filters by strict reverse paths, so that the container cannot
 * send as another (things/guard.ts has the reasons).
 */
export function hostEnd(index: number): Request {
  const ipv4 = { forwarding: 1, rp_filter: 1, accept_redirects: 0, send_redirects: 0 };
  return changeDevice(index, { isUp: true, ipv4, ...withoutIpv6 });
}

/** The last step: from now on the link is an attachment. */
export function finished(index: number, alias: string): Request {
  return changeDevice(index, { alias });
}

/**
 * The VM's own overlay address at the loopback device, where it stays when the daemon stops and its device
 * goes: the kernel deletes routes whose preferred source goes. With the scope of a link it is no source for
 * anything else. EEXIST tells that it is there.
 */
export function ownAddress(vm: Address): Request {
  const local = addressBytes(vm);
  return request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, `address ${local.join('.')} of lo`, address, {
    ...{ family: AF_INET, prefixLength: 32, scope: RT_SCOPE_LINK, index: LOOPBACK, protocol: CONTAINER_PROTOCOL },
    ...{ local, address: local },
  });
}

/**
 * The catch-all's route (machine/state.ts): without it, what a container sends to other VMs' containers would
 * leave in plain where no daemon has run. EEXIST tells that it is there.
 */
export function catchAll({ length, ...overlay }: Prefix): Request {
  const dst = addressBytes(overlay);
  return request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, () => `unreachable ${dst.join('.')}/${length}`, route, {
    ...{ family: AF_INET, dst, dstLength: length, table: RT_TABLE_MAIN, type: RTN_UNREACHABLE },
    ...{ priority: CATCH_ALL_METRIC, protocol: CATCH_ALL_PROTOCOL },
  });
}

/** Where an address is: an entry that nobody has to ask for, and that stays when the kernel's table is full. */
export function permanentNeighbour(ifindex: number, at: Address, lladdr: Uint8Array): Request {
  const dst = addressBytes(at);
  return request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, () => `neighbour ${dst.join('.')}`, neighbour, {
    ...{ family: AF_INET, ifindex, state: NUD_PERMANENT, dst, lladdr },
  });
}

export function noNeighbour(ifindex: number, at: Address): Request {
  const dst = addressBytes(at);
  return request(RTM_DELNEIGH, 0, `neighbour ${dst.join('.')}`, neighbour, { family: AF_INET, ifindex, dst });
}

export function deleteLink(index: number): Request {
  return request(RTM_DELLINK, 0, `link ${index}`, link, { index });
}

export function markDetached(index: number): Request {
  return ofGroup(index, DETACHED_GROUP);
}

/** Marks a link for `deleteReleased`. */
export function markReleased(index: number): Request {
  return ofGroup(index, RELEASED_GROUP);
}

/** Deletes all that are marked at once: one takes 16 ms and more, and many take hardly longer. */
export function deleteReleased(): Request {
  return request(RTM_DELLINK, 0, 'detached links', link, { group: RELEASED_GROUP });
}

function ofGroup(index: number, group: number): Request {
  return request(RTM_NEWLINK, 0, `group of link ${index}`, link, { index, group });
}

/** What attaching leaves on a machine, for whoever cleans up after a daemon. It is not the daemon's. */
import { address, type Address as Found, RTM_DELADDR } from '../linux/netlink/address.ts';
import { addressBytes, addressOf } from '../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import { request } from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { RT_SCOPE_LINK, RT_TABLE_MAIN, RTN_UNICAST } from '../linux/netlink/route.ts';
import { AF_INET, addresses, routes } from '../linux/netlink/rtnetlink.ts';
import { CONTAINER_PROTOCOL } from '../machine/state.ts';
import { formatAddress } from '../mesh/address.ts';
import type { Mesh } from './mesh.ts';
import { Slice } from './slice.ts';

/** How many containers are attached: those of this mesh, or all. */
export function attachedCount(netlink: Netlink, mesh?: Mesh): number {
  const slice = mesh && new Slice(mesh);
  const found = routes(netlink, { table: RT_TABLE_MAIN, protocol: CONTAINER_PROTOCOL, type: RTN_UNICAST });
  return found.filter(({ dst }) => !slice || slice.containerIn(dst) !== undefined).length;
}

/** The addresses that attaching added to the loopback device: the VM's own in this mesh, or in all. */
export function ownAddresses(netlink: Netlink, mesh?: Mesh): Found[] {
  const gateway = mesh && String(addressBytes(new Slice(mesh).gateway));
  return addresses(netlink, LOOPBACK).filter(({ index, scope, protocol, local }) => {
    // Before Linux 5.18 an address does not tell who made it.
    const isOurs = protocol === CONTAINER_PROTOCOL || (protocol === undefined && gateway !== undefined);
    return index === LOOPBACK && scope === RT_SCOPE_LINK && isOurs && (gateway ?? String(local)) === String(local);
  });
}

/** Removes such an address; returns what was removed, in words. */
export function removeOwnAddress(netlink: Netlink, { prefixLength, local }: Found): string[] {
  const at = addressOf(local);
  if (!local || !at) return [];
  const what = `address ${formatAddress(at)} of lo`;
  const body = { family: AF_INET, index: LOOPBACK, prefixLength, local, address: local };
  const [error] = netlink.tryAll([request(RTM_DELADDR, 0, what, address, body)]);
  if (error && error.code !== 'EADDRNOTAVAIL') throw error;
  return error ? [] : [what];
}

/** Why this machine cannot send to another VM, as far as the kernel says so itself. */
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { NetlinkError, request } from '../linux/netlink/message.ts';
import { NUD_FAILED, NUD_INCOMPLETE, neighbour, RTM_GETNEIGH } from '../linux/netlink/neighbour.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { AF_INET, routeTowards } from '../linux/netlink/rtnetlink.ts';
import { type Address, formatAddress } from '../mesh/address.ts';

/**
 * In words; undefined if nothing is known against it. To be asked when packets have been under way for some
 * seconds: before, a neighbour without an answer is one that has just been asked for.
 */
export function obstacleTowards(netlink: Netlink, vm: Address, local: Address): string | undefined {
  let ifindex: number | undefined;
  let dst = addressBytes(vm);
  try {
    const way = routeTowards(netlink, vm, local);
    ifindex = way.oif;
    dst = way.gateway ?? dst;
  } catch (error) {
    return error instanceof NetlinkError ? `no route to it (${error.code})` : undefined;
  }
  if (ifindex === undefined) return undefined;
  try {
    const asked = request(RTM_GETNEIGH, 0, 'neighbour on the underlay', neighbour, { family: AF_INET, ifindex, dst });
    const { state } = netlink.get(asked, neighbour);
    if ((state & (NUD_FAILED | NUD_INCOMPLETE)) === 0) return undefined;
  } catch {
    return undefined; // Not known: it was not needed of late, or the device has no neighbours.
  }
  const isGateway = Buffer.compare(dst, addressBytes(vm)) !== 0;
  return isGateway ? `the gateway ${dst.join('.')} does not answer ARP` : `${formatAddress(vm)} does not answer ARP`;
}

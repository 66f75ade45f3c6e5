/**
 * Neighbour entries of containers that the kernel does not throw out when its table is full: the table is one
 * for the whole machine (gc_thresh3), and whoever makes it full would take them away from others.
 */
import { NetlinkError, NLM_F_CREATE, NLM_F_REPLACE, request } from '../../linux/netlink/message.ts';
import {
  type Neighbour,
  NTF_EXT_LEARNED,
  NUD_STALE,
  NUD_VALID,
  neighbour,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from '../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import { CONTAINER_PROTOCOL } from '../state.ts';

/** The entry of an address on a link; undefined if there is none. */
export function neighbourAt(netlink: Netlink, ifindex: number, dst: Uint8Array): Neighbour | undefined {
  try {
    const body = { family: AF_INET, ifindex, dst };
    return netlink.get(request(RTM_GETNEIGH, 0, 'neighbour', neighbour, body), neighbour);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
    throw error;
  }
}

/**
 * Exempts an entry from garbage collection. Learnt outside the kernel, as it is then, it still follows a
 * changed address of the container, unlike a permanent one. Its protocol tells that the mark is ours. False
 * if the kernel does not know its link-layer address yet.
 */
export function keepNeighbour(netlink: Netlink, { ifindex, dst, lladdr, state }: Neighbour): boolean {
  if (!dst || !lladdr || (state & NUD_VALID) === 0) return false;
  mark(netlink, { ifindex, dst, lladdr, flags: NTF_EXT_LEARNED, protocol: CONTAINER_PROTOCOL });
  return true;
}

/** Lets the kernel do with the entries of a link what it likes again. */
export function releaseNeighbours(netlink: Netlink, ifindex: number): void {
  const asked = request(RTM_GETNEIGH, 0, 'neighbours', neighbour, { family: AF_INET, filterIfindex: ifindex });
  for (const { dst, lladdr, flags, protocol, ifindex: at } of netlink.dump(asked, neighbour)) {
    if (at !== ifindex || !dst || !lladdr) continue;
    if (protocol === CONTAINER_PROTOCOL && flags & NTF_EXT_LEARNED) mark(netlink, { ifindex, dst, lladdr, flags: 0 });
  }
}

function mark(netlink: Netlink, body: Parameters<typeof neighbour.put>[1]): void {
  const what = `neighbour ${body.dst?.join('.')}`;
  const whole = { family: AF_INET, state: NUD_STALE, ...body };
  const [error] = netlink.tryAll([request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, what, neighbour, whole)]);
  // The device may have gone meanwhile.
  if (error && !['ENODEV', 'ENXIO', 'ENETDOWN'].includes(error.code)) throw error;
}

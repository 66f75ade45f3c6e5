/** What the slot of a container says, from its device and the entry of a neighbour. */
import { ipv4Number } from '../../linux/netlink/ipv4.ts';
import { request } from '../../linux/netlink/message.ts';
import { type Neighbour, NUD_PERMANENT, NUD_VALID, neighbour, RTM_GETNEIGH } from '../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import type { ContainerDevice } from './container-device.ts';
import type { Slot } from './state.ts';

/** Undefined if it is not known where frames for the container go. */
export function slotOf({ index, mac, hostMac }: ContainerDevice, entry: Neighbour | undefined): Slot | undefined {
  const isKnown = entry?.lladdr?.length === hostMac.length && (entry.state & (NUD_PERMANENT | NUD_VALID)) !== 0;
  const to = isKnown ? entry.lladdr?.slice() : mac;
  return to && { link: index, mac: to, hostMac };
}

export function isSameSlot(one: Slot | undefined, other: Slot | undefined): boolean {
  if (!one || !other) return one === other;
  const isEqual = (a: Uint8Array, b: Uint8Array) => a.every((byte, i) => byte === b[i]);
  return one.link === other.link && isEqual(one.mac, other.mac) && isEqual(one.hostMac, other.hostMac);
}

/** Reads all entries of IPv4, to be asked for those of containers. */
export function allNeighbours(netlink: Netlink): (link: number, address: number) => Neighbour | undefined {
  const asked = request(RTM_GETNEIGH, 0, 'neighbours', neighbour, { family: AF_INET });
  const all = new Map(
    netlink.dump(asked, neighbour).map((each) => [keyOf(each.ifindex, ipv4Number(each.dst) ?? 0), each]),
  );
  return (link, address) => all.get(keyOf(link, address));
}

function keyOf(link: number, address: number): string {
  return `${link} ${address}`;
}

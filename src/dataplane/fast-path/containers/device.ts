/** A container's device on this VM, the host's end of its veth: whether packets may go past it, and where to. */
import { hasTcx } from '../../../linux/bpf/tcx.ts';
import { type Filter, filtersAt, hasOurPriority, isOurs } from '../../../linux/netlink/filters.ts';
import { IFF_UP } from '../../../linux/netlink/link.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { type VethEnd, vethEnd } from '../../../linux/netlink/veth.ts';

export interface ContainerDevice {
  /** Interface index. */
  index: number;
  name: string;
  /** Link-layer address. */
  hostMac: Uint8Array;
  /**
   * Whether packets may go past it: it is up, the kernel forwards from it, its other end is in another namespace, and nothing of
   * others sees packets on the way. What is at the other end is the container's, but a program there is one that packets may not go past either.
   */
  isClear: boolean;
  /** Link-layer address of the other end; undefined if that is part of a bridge, which has another. */
  mac: Uint8Array | undefined;
  /** Whether there is a discipline of others where ours would be. */
  isOccupied: boolean;
  /** Whether there is one of ours. */
  hasOurs: boolean;
  /** The number of the program that our filter runs; undefined if there is none. */
  program: number | undefined;
}

/** The discipline that a veth has for outgoing packets, unless somebody gave it another. */
const NO_QUEUE = 'noqueue';
const CLSACT = 'clsact';

/**
 * `discipline` is the one for incoming packets, if there is one; `wasOurs` says that we made it, which only a filter of ours
 * tells otherwise.
 */
export function containerDevice(
  netlink: Netlink,
  end: VethEnd,
  discipline: string | undefined,
  wasOurs: boolean,
): ContainerDevice {
  const { index, name = '', peer, peerNetNsId } = end;
  const filters =
    discipline === CLSACT ? [filtersAt(netlink, index, 'ingress'), filtersAt(netlink, index, 'egress')] : [];
  const [ingress = [], egress = []] = filters;
  const ours = ingress.find(isOurs);
  const isEmpty = ingress.length + egress.length === 0;
  const hasOurs = ours !== undefined || (discipline === CLSACT && wasOurs && isEmpty);
  const isOccupied = discipline !== undefined && !hasOurs;
  const isFree = !isOccupied && egress.length === 0 && ingress.every((found) => isPartOf(ours, found)) && isPlain(end);
  const other = isFree && peer ? vethEnd(netlink, peer, peerNetNsId) : undefined;
  return {
    ...{ index, name, isOccupied, hasOurs, program: ours?.options?.id },
    hostMac: end.address?.slice() ?? new Uint8Array(6),
    isClear: other !== undefined && !other.xdp?.attached,
    mac: other?.master ? undefined : other?.address?.slice(),
  };
}

/** Whether an entry is our filter, or stands for its priority. */
function isPartOf(ours: Filter | undefined, found: Filter): boolean {
  return ours !== undefined && hasOurPriority(found) && (found.handle === 0 || found.handle === ours.handle);
}

function isPlain({ index, flags, master, discipline, xdp, peerNetNsId, afSpec }: VethEnd): boolean {
  return (
    (flags & IFF_UP) !== 0 &&
    afSpec?.ipv4?.settings?.forwarding !== 0 &&
    !master &&
    discipline === NO_QUEUE &&
    !xdp?.attached &&
    peerNetNsId !== undefined &&
    !hasTcx(index, 'ingress', 'egress')
  );
}

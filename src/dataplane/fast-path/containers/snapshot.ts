/**
 * Where the kernel's tables had all containers at one time. It is gone through in slices. Whatever was told to have changed meanwhile
 * is asked about anew.
 */
import { ipv4Number } from '../../../linux/netlink/ipv4.ts';
import { request } from '../../../linux/netlink/message.ts';
import { type Neighbour, neighbour, RTM_GETNEIGH } from '../../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { AF_INET } from '../../../linux/netlink/rtnetlink.ts';
import type { VethEnd } from '../../../linux/netlink/veth.ts';

/** A container as the tables had it. */
export interface FoundContainer {
  address: number;
  /** Interface index of its device; undefined if the kernel is to be asked. */
  link: number | undefined;
  /** Of the neighbour. */
  entry: Neighbour | undefined;
}

export class ContainerSnapshot {
  /** By address, the interface indexes of devices; undefined where the kernel is to be asked. */
  readonly #links: Map<number, number | undefined>;
  /** By interface index. */
  readonly #ends: Map<number, VethEnd>;
  readonly #entries: ReadonlyMap<number, Neighbour>;
  readonly #changed = new Set<number>();

  constructor(netlink: Netlink, links: Map<number, number | undefined>, ends: Map<number, VethEnd>) {
    this.#links = links;
    this.#ends = ends;
    const asked = request(RTM_GETNEIGH, 0, 'neighbours', neighbour, { family: AF_INET });
    this.#entries = new Map(
      netlink.dump(asked, neighbour).map((each) => [keyOf(each.ifindex, ipv4Number(each.dst) ?? 0), each]),
    );
  }

  /** Interface index of a container's device. */
  linkOf(address: number): number | undefined {
    return this.#links.get(address);
  }

  /** The next container, which is not in it any more; undefined if there is none. */
  next(): FoundContainer | undefined {
    for (const [address, to] of this.#links) {
      this.#links.delete(address);
      const link = to === undefined || this.#changed.has(to) ? undefined : to;
      return { address, link, entry: link === undefined ? undefined : this.#entries.get(keyOf(link, address)) };
    }
    return undefined;
  }

  /** A device, once; undefined if it was told to have changed. */
  takeEnd(link: number): VethEnd | undefined {
    const end = this.#ends.get(link);
    this.#ends.delete(link);
    return end;
  }

  /** Leaves a container out that was told to have changed. Returns whether it was there. */
  leaveOut(address: number): boolean {
    return this.#links.delete(address);
  }

  /** A device was told to have changed. */
  distrust(link: number): void {
    this.#changed.add(link);
    this.#ends.delete(link);
  }

  /** Everything may have changed. */
  distrustAll(): void {
    for (const address of this.#links.keys()) this.#links.set(address, undefined);
  }
}

/** One number for both: interface indexes are small. */
function keyOf(link: number, address: number): number {
  return link * 2 ** 32 + address;
}

/** The containers of this VM, and what the programs know of each: its slot. */
import { type Neighbour, NUD_PERMANENT, NUD_VALID } from '../../../linux/netlink/neighbour.ts';
import type { FastPathState, Slot } from '../state.ts';
import type { ContainerDevice } from './device.ts';

/** A container that a route leads to. */
interface Container {
  /** Interface index. */
  link: number;
  /** Undefined if packets may not go past the device. */
  slot: Slot | undefined;
}

export class ContainerSlots {
  readonly #state: Pick<FastPathState, 'setContainer'>;
  /** By address; those that were looked at longest ago come first. */
  readonly #containers = new Map<number, Container>();
  #count = 0;

  constructor(state: Pick<FastPathState, 'setContainer'>) {
    this.#state = state;
  }

  /** How many are set. */
  get count(): number {
    return this.#count;
  }

  /** Interface index of the device that a container is behind; undefined if it is not known. */
  linkOf(address: number): number | undefined {
    return this.#containers.get(address)?.link;
  }

  addresses(): number[] {
    return [...this.#containers.keys()];
  }

  /** So many containers, each in turn. */
  inTurn(count: number): number[] {
    const found: number[] = [];
    for (const address of this.#containers.keys()) {
      if (found.length === count) break;
      found.push(address);
    }
    for (const address of found) {
      const container = this.#containers.get(address) as Container;
      this.#containers.delete(address);
      this.#containers.set(address, container);
    }
    return found;
  }

  /** A container is behind this device. */
  put(address: number, link: number, slot: Slot | undefined): void {
    const known = this.#containers.get(address);
    if (known) known.link = link;
    else this.#containers.set(address, { link, slot: undefined });
    this.#set(address, slot);
  }

  /** It is behind none. */
  remove(address: number): void {
    this.#set(address, undefined);
    this.#containers.delete(address);
  }

  /** Packets for these go their ordinary way. */
  clear(addresses: Iterable<number>): void {
    for (const address of addresses) this.#set(address, undefined);
  }

  #set(address: number, slot: Slot | undefined): void {
    const container = this.#containers.get(address);
    if (!container || isSame(container.slot, slot)) return;
    const isThere = this.#state.setContainer(address, slot) && slot !== undefined;
    this.#count += Number(isThere) - Number(container.slot !== undefined);
    container.slot = isThere ? slot : undefined;
  }
}

/** What the slot of a container says, from its device and its neighbour entry; undefined if it is not known where frames for it go. */
export function slotOf({ index, mac, hostMac }: ContainerDevice, entry: Neighbour | undefined): Slot | undefined {
  const isKnown = entry?.lladdr?.length === hostMac.length && (entry.state & (NUD_PERMANENT | NUD_VALID)) !== 0;
  const to = isKnown ? entry.lladdr?.slice() : mac;
  return to && { link: index, mac: to, hostMac };
}

function isSame(one: Slot | undefined, other: Slot | undefined): boolean {
  if (!one || !other) return one === other;
  const isEqual = (a: Uint8Array, b: Uint8Array) => a.every((byte, i) => byte === b[i]);
  return one.link === other.link && isEqual(one.mac, other.mac) && isEqual(one.hostMac, other.hostMac);
}

/** The devices of all containers: how each was found last, and what is there. */
import { filtersAt, ingressDisciplines, isOurs } from '../../../linux/netlink/filters.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { type VethEnd, vethEnd, vethEnds } from '../../../linux/netlink/veth.ts';
import type { Log } from '../../../log.ts';
import { isAttachedAlone } from '../../../machine/alias.ts';
import { type ContainerDevice, containerDevice } from './device.ts';
import { ContainerFilters } from './filters.ts';

export interface ContainerDevicesOptions {
  netlink: Netlink;
  /** Descriptor of the outbound program. */
  program: number;
  /** Interface indexes of devices that lead to other VMs: no container is behind them, whatever a route says. */
  uplinks: () => readonly number[];
  log: Log;
}

export interface Device extends ContainerDevice {
  /** Of the containers behind it. */
  addresses: Set<number>;
}

/**
 * ms until a new device gets the program, unless the container was attached by itself. A plugin that comes behind ours in a CNI chain (bandwidth) puts a discipline of its own
 * there, and would fail where one is.
 */
const NEW = 1000;
const CLSACT = 'clsact';

export class ContainerDevices {
  readonly #netlink: Netlink;
  readonly #uplinks: () => readonly number[];
  readonly #filters: ContainerFilters;
  /** By interface index. */
  readonly #devices = new Map<number, Device>();
  /** The disciplines for incoming packets of all devices that have one, by interface index: only a dump of all tells of one. */
  #disciplines = new Map<number, string>();
  /** Whether all that was there at the start is known. */
  #wasRead = false;
  /** Devices with a discipline of the kind that we make. */
  readonly #strangers: number[] = [];

  constructor({ netlink, program, uplinks, log }: ContainerDevicesOptions) {
    this.#netlink = netlink;
    this.#uplinks = uplinks;
    this.#filters = new ContainerFilters(netlink, program, log);
  }

  /** As it was found last. */
  get(link: number): Device | undefined {
    return this.#devices.get(link);
  }

  /** The interface indexes of all. */
  links(): number[] {
    return [...this.#devices.keys()];
  }

  /** The names of all. */
  *names(): Generator<string> {
    for (const { name } of this.#devices.values()) yield name;
  }

  /** The device that a route leads to; undefined if no container can be behind it. */
  at(link: number): Device | undefined {
    if (this.#uplinks().includes(link)) return undefined;
    const known = this.#devices.get(link);
    const end = known ? undefined : vethEnd(this.#netlink, link);
    return known ?? (end && this.#note(end, NEW));
  }

  /** Reads what there is, by interface index. The devices that containers can be behind are then to be taken up. */
  read(): Map<number, VethEnd> {
    const disciplines = ingressDisciplines(this.#netlink);
    const ends = new Map(vethEnds(this.#netlink).map((end) => [end.index, end]));
    const uplinks = this.#uplinks();
    for (const link of uplinks) ends.delete(link);
    this.#disciplines = disciplines;
    return ends;
  }

  /** Takes up a device as it was read. */
  take(end: VethEnd): void {
    this.#note(end, this.#wasRead ? NEW : 0);
  }

  /** All that was read first is taken up. */
  setRead(): void {
    if (this.#wasRead) return;
    this.#wasRead = true;
    const uplinks = this.#uplinks();
    for (const [link, kind] of this.#disciplines)
      if (kind === CLSACT && !this.#devices.has(link) && !uplinks.includes(link)) this.#strangers.push(link);
  }

  /**
   * Looks at one of the devices that are no container's: if an earlier daemon left a program there, that still takes packets. False
   * if all have been looked at.
   */
  lookAtStranger(): boolean {
    const link = this.#strangers.pop();
    if (link === undefined) return false;
    const isLeft =
      !this.#devices.has(link) &&
      vethEnd(this.#netlink, link) !== undefined &&
      filtersAt(this.#netlink, link, 'ingress').some(isOurs);
    if (isLeft) this.#filters.leave(link, 0);
    return true;
  }

  /** Looks at a known device. Returns how it is now, and whether that is new. */
  look(link: number): { device: Device | undefined; isNew: boolean } {
    const before = this.#devices.get(link);
    const end = before && vethEnd(this.#netlink, link);
    const device = end && this.#note(end, NEW);
    return { device, isNew: !before || !device || !isSame(before, device) };
  }

  setDiscipline(link: number, kind: string | undefined): void {
    if (kind === undefined) this.#disciplines.delete(link);
    else this.#disciplines.set(link, kind);
  }

  /** The device has gone. */
  drop(link: number): void {
    this.#devices.delete(link);
    this.#disciplines.delete(link);
    this.#filters.forget(link);
  }

  /** A container is no more behind a device. */
  leave(link: number, address: number): void {
    const device = this.#devices.get(link);
    device?.addresses.delete(address);
    if (!device || device.addresses.size > 0) return;
    this.#devices.delete(link);
    // Mostly the device itself goes soon.
    if (device.hasOurs) this.#filters.leave(link, NEW);
    else this.#filters.forget(link);
  }

  /** Puts the program where it is due. Returns devices that are to be looked at again, and whether there is more to do. */
  work(): { refused: number[]; isMore: boolean; isSurprise: boolean } {
    const { made, removed, ...rest } = this.#filters.work((link) => this.#devices.get(link));
    for (const link of made) this.setDiscipline(link, CLSACT);
    for (const link of removed) this.setDiscipline(link, undefined);
    return rest;
  }

  /** Notes how a device is now. */
  #note(end: VethEnd, delay: number): Device {
    const known = this.#devices.get(end.index);
    // Attaching has made the discipline.
    const isAlone = isAttachedAlone(end.alias);
    const wasOurs = known?.hasOurs || isAlone;
    const found = containerDevice(this.#netlink, end, this.#disciplines.get(end.index), wasOurs);
    const device: Device = { ...found, addresses: known?.addresses ?? new Set() };
    this.#devices.set(end.index, device);
    const { index, isClear, isOccupied, program } = device;
    // A program of an earlier daemon is replaced, whatever else is there.
    const isWanted = !isOccupied && program !== this.#filters.id && (isClear || program !== undefined);
    if (isWanted) this.#filters.want(index, isAlone ? 0 : delay);
    else this.#filters.forget(index);
    return device;
  }
}

/** As far as slots depend on it. */
function isSame(one: ContainerDevice, other: ContainerDevice): boolean {
  const macs = ({ mac, hostMac }: ContainerDevice) => `${mac} ${hostMac}`;
  return one.isClear === other.isClear && macs(one) === macs(other);
}

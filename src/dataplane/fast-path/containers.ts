/**
 * Where the containers of this VM are, for the programs: slots follow the kernel's own routes, whoever made them. A slot is cleared
 * as soon as its route, its device or the way past that is not what it was. It is set only after the kernel was asked what it would
 * do with a packet for the container.
 */
import { address as ipAddress, RTM_DELADDR } from '../../linux/netlink/address.ts';
import { filtersAt, ingressDisciplines, isOurs } from '../../linux/netlink/filters.ts';
import { ipv4Bytes, ipv4Number } from '../../linux/netlink/ipv4.ts';
import { IFF_UP, RTM_DELLINK, RTM_NEWLINK } from '../../linux/netlink/link.ts';
import { type Message, request } from '../../linux/netlink/message.ts';
import type { Monitor } from '../../linux/netlink/monitor.ts';
import {
  type Neighbour,
  NUD_PERMANENT,
  NUD_VALID,
  neighbour,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from '../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import { RTM_DELQDISC, RTM_NEWQDISC, TC_H_CLSACT, trafficControl } from '../../linux/netlink/traffic-control.ts';
import { type VethEnd, vethEnd, vethEndIn, vethEnds } from '../../linux/netlink/veth.ts';
import type { Log } from '../../log.ts';
import { type LimitedLog, limitedLog } from '../../log-limit.ts';
import { neighbourAt } from '../../machine/things/container-neighbour.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import { type ContainerDevice, containerDevice } from './container-device.ts';
import { ContainerFilters } from './container-filters.ts';
import { containerMonitor } from './container-monitor.ts';
import { ContainerRoutes } from './container-routes.ts';
import type { FastPathState, Slot } from './state.ts';

export interface FastContainersOptions {
  /** The machine's socket: what it changes is not told to this process. */
  netlink: Netlink;
  state: Pick<FastPathState, 'setContainer'>;
  /** Descriptor of the outbound program. */
  program: number;
  mappings: readonly Mapping[];
  local: Address;
  /** Interface index of the overlay's device; undefined while there is none. */
  overlay: () => number | undefined;
  /** Interface indexes of devices that lead to other VMs: no container is behind them, whatever a route says. */
  uplinks: () => readonly number[];
  log: Log;
}

/** A container that a route leads to. */
interface Container {
  /** Interface index. */
  link: number;
  /** Undefined if packets may not go past the device. */
  slot: Slot | undefined;
}

interface Device extends ContainerDevice {
  /** Of the containers behind it. */
  addresses: Set<number>;
}

/** ms from a notification to a look, because more of them may follow. */
const SETTLE = 5;
/**
 * ms until a new device gets the program. A plugin that comes behind ours in a CNI chain (bandwidth) puts a discipline of its own
 * there, and would fail where one is.
 */
const NEW = 1000;
/** What one look does at most: devices and addresses that the kernel told of; containers in turn. */
const MAX_DUE = 200;
const MAX_IN_TURN = 16;
const CLSACT = 'clsact';

export class FastContainers {
  readonly #options: FastContainersOptions;
  readonly #routes: ContainerRoutes;
  readonly #filters: ContainerFilters;
  readonly #limited: LimitedLog;
  /** By address; those that were looked at longest ago come first. */
  readonly #containers = new Map<number, Container>();
  /** By interface index. */
  readonly #devices = new Map<number, Device>();
  /** The disciplines for incoming packets of all devices that have one, by interface index: only a dump of all tells of one. */
  #disciplines = new Map<number, string>();
  readonly #dueDevices = new Set<number>();
  readonly #dueAddresses = new Set<number>();
  /** Those that could not be looked at: they wait for the next look. */
  readonly #failed = new Set<number>();
  #monitor: Monitor | undefined;
  /** What the monitor leaves out. */
  #overlay = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Whether no notification was lost since all was read. */
  #isWhole = false;
  #closed = false;
  #count = 0;

  /** Reads where all containers are. With the first look, their devices get the program. */
  constructor(options: FastContainersOptions) {
    const { netlink, mappings, local, program, log } = options;
    this.#options = options;
    this.#routes = new ContainerRoutes(netlink, mappings, local);
    this.#filters = new ContainerFilters(netlink, program, log);
    this.#limited = limitedLog(log);
    this.#listen();
    this.#read(0);
  }

  /** How many containers the programs take packets of. */
  get count(): number {
    return this.#count;
  }

  /** Takes a notification of a route. */
  hear(message: Message): void {
    const which = this.#routes.hear(message);
    if (which === undefined) return;
    if (which === 'all') this.#followAll();
    else this.#follow(which);
  }

  /** Reads all anew, because notifications were lost. */
  reload(): void {
    this.#read(NEW);
  }

  /** To be called now and then: puts the program where it is due, and looks at some containers in turn. */
  look(): void {
    if (this.#closed) return;
    this.#listen();
    if (!this.#isWhole) this.reload();
    for (const address of taken(this.#failed, this.#failed.size)) {
      this.#dueAddresses.add(address);
      this.#dueDevices.add(this.#containers.get(address)?.link ?? 0);
    }
    for (const address of first(this.#containers.keys(), MAX_IN_TURN)) {
      const container = this.#containers.get(address) as Container;
      this.#containers.delete(address);
      this.#containers.set(address, container);
      this.#lookAt(container.link, false);
      this.#follow(address);
    }
    this.#work();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#monitor?.close();
  }

  #listen(): void {
    const overlay = this.#options.overlay() ?? 0;
    if (this.#monitor && overlay === this.#overlay) return;
    const before = this.#monitor;
    this.#monitor = undefined;
    const options = { port: this.#options.netlink.port, overlay };
    const lose = () => {
      this.#isWhole = false;
      this.#soon();
    };
    try {
      this.#monitor = containerMonitor(options, {
        onMessages: (messages) => {
          for (const message of messages) this.#take(message);
        },
        onOverrun: lose,
        onFailure: () => {
          this.#monitor = undefined;
          lose();
        },
      });
      this.#overlay = overlay;
    } catch {} // The next look tries again.
    before?.close();
    // What was told between the two was not heard.
    this.#isWhole = false;
  }

  #take(message: Message): void {
    const { type, view, start, end } = message;
    if (type === RTM_DELLINK) {
      const index = view.getInt32(start + INDEX, true);
      this.#disciplines.delete(index);
      this.#drop(index);
    } else if (type === RTM_NEWLINK) {
      const found = vethEndIn(message);
      if (found) this.#change(found.index, (found.flags & IFF_UP) === 0);
    } else if (type === RTM_NEWNEIGH || type === RTM_DELNEIGH) {
      const address = ipv4Number(neighbour.get(view, start, end).dst);
      if (address !== undefined && this.#containers.has(address)) this.#dueAddresses.add(address);
    } else if (type === RTM_DELADDR) {
      // Routes with it as their source go with it, of which the kernel does not tell.
      if (this.#routes.isOwn(ipAddress.get(view, start, end).local)) this.#followAll();
    } else {
      const { ifindex, parent, kind = '' } = trafficControl.get(view, start, end);
      const isIngress = parent >>> 0 === TC_H_CLSACT;
      if (isIngress && type === RTM_NEWQDISC) this.#disciplines.set(ifindex, kind);
      if (isIngress && type === RTM_DELQDISC) this.#disciplines.delete(ifindex);
      this.#change(ifindex, false);
    }
    if (this.#dueDevices.size + this.#dueAddresses.size > 0) this.#soon();
  }

  #soon(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (!this.#isWhole) this.reload();
      this.#work();
    }, SETTLE);
  }

  /** Looks at what is due. */
  #work(): void {
    for (const link of taken(this.#dueDevices, MAX_DUE)) this.#lookAt(link, true);
    for (const address of taken(this.#dueAddresses, MAX_DUE)) this.#follow(address);
    const { made, removed, refused, isMore, isSurprise } = this.#filters.work((link) => this.#devices.get(link));
    for (const link of made) this.#disciplines.set(link, CLSACT);
    for (const link of removed) this.#disciplines.delete(link);
    for (const link of refused) this.#dueDevices.add(link);
    if (isSurprise) this.#isWhole = false;
    if (isMore || isSurprise || this.#dueDevices.size + this.#dueAddresses.size > 0) this.#soon();
  }

  #followAll(): void {
    for (const address of this.#containers.keys()) this.#dueAddresses.add(address);
    this.#soon();
  }

  /** A device may be another than it was. */
  #change(link: number, isDown: boolean): void {
    const device = this.#devices.get(link);
    if (!device) return;
    this.#dueDevices.add(link);
    // Its routes have gone, of which the kernel does not tell.
    if (isDown) for (const address of device.addresses) this.#put(address, undefined);
  }

  /** A device has gone: into another namespace, perhaps. */
  #drop(link: number): void {
    const device = this.#devices.get(link);
    this.#devices.delete(link);
    this.#filters.forget(link);
    for (const address of device?.addresses ?? []) {
      this.#put(address, undefined);
      this.#dueAddresses.add(address);
    }
  }

  /** Looks at a device, and soon at the containers behind it, if it is told to have changed or is found so. */
  #lookAt(link: number, isTold: boolean): void {
    const before = this.#devices.get(link);
    if (!before) return;
    try {
      const end = vethEnd(this.#options.netlink, link);
      if (!end) {
        this.#drop(link);
        return;
      }
      const device = this.#found(end, NEW);
      if (isTold || !isSameDevice(before, device))
        for (const address of device.addresses) this.#dueAddresses.add(address);
    } catch (error) {
      before.isClear = false;
      this.#fail(error, before.addresses);
    }
  }

  /** Asks the kernel where a container is now. */
  #follow(address: number): void {
    const { netlink } = this.#options;
    try {
      this.#place(address, this.#routes.linkTo(address), (link) => neighbourAt(netlink, link, ipv4Bytes(address)));
    } catch (error) {
      this.#fail(error, [address]);
    }
  }

  #fail(error: unknown, addresses: Iterable<number>): void {
    for (const address of addresses) {
      this.#put(address, undefined);
      this.#failed.add(address);
    }
    this.#limited(
      'warn',
      'look',
      { error: String(error) },
      "containers' packets go their ordinary way: the kernel did not answer",
    );
  }

  #read(delay: number): void {
    try {
      // Without it nothing would tell when a slot has to be cleared.
      if (!this.#monitor) throw new Error('no notifications');
      this.#readAll(delay);
      this.#isWhole = true;
    } catch (error) {
      this.#isWhole = false;
      this.#fail(error, this.#containers.keys());
    }
  }

  #readAll(delay: number): void {
    const { netlink, uplinks } = this.#options;
    this.#disciplines = ingressDisciplines(netlink);
    const ends = new Map(vethEnds(netlink).map((end) => [end.index, end]));
    const links = this.#routes.read();
    const others = uplinks();
    for (const link of new Set(links.values())) {
      const end = ends.get(link);
      if (end && !others.includes(link)) this.#found(end, this.#devices.has(link) ? NEW : delay);
    }
    for (const link of [...this.#devices.keys()]) if (!ends.has(link)) this.#drop(link);
    const entries = neighboursOf(netlink);
    for (const address of [...this.#containers.keys()]) if (!links.has(address)) this.#place(address, undefined);
    for (const [address, link] of links) this.#place(address, link, () => entries.get(keyOf(link, address)));
    if (delay > 0) return;
    // What an earlier daemon left: its program still knows containers that have gone.
    for (const [link, kind] of this.#disciplines) {
      const isOther = kind !== CLSACT || !ends.has(link) || this.#devices.has(link) || others.includes(link);
      if (!isOther && filtersAt(netlink, link, 'ingress').some(isOurs)) this.#filters.leave(link, 0);
    }
  }

  /** Notes how a device is now. */
  #found(end: VethEnd, delay: number): Device {
    const known = this.#devices.get(end.index);
    const found = containerDevice(
      this.#options.netlink,
      end,
      this.#disciplines.get(end.index),
      known?.hasOurs ?? false,
    );
    const device: Device = { ...found, addresses: known?.addresses ?? new Set() };
    this.#devices.set(end.index, device);
    const { index, isClear, isTaken, program } = device;
    // A program of an earlier daemon is replaced, whatever else there is.
    if (program === this.#filters.id || isTaken || !(isClear || program !== undefined)) this.#filters.forget(index);
    else this.#filters.want(index, delay);
    return device;
  }

  /** Notes where a container is; undefined if it is behind no device of its own. */
  #place(
    address: number,
    to: number | undefined,
    entryAt: (link: number) => Neighbour | undefined = () => undefined,
  ): void {
    const device = to === undefined ? undefined : this.#deviceAt(to);
    const known = this.#containers.get(address);
    if (known && known.link !== device?.index) this.#leave(address, known);
    if (!device) {
      this.#put(address, undefined);
      this.#containers.delete(address);
      return;
    }
    device.addresses.add(address);
    if (known) known.link = device.index;
    else this.#containers.set(address, { link: device.index, slot: undefined });
    this.#put(address, device.isClear ? slotOf(device, entryAt(device.index)) : undefined);
  }

  /** A device that a route leads to; undefined if no container can be behind it. */
  #deviceAt(link: number): Device | undefined {
    const { netlink, uplinks } = this.#options;
    if (uplinks().includes(link)) return undefined;
    const known = this.#devices.get(link);
    const end = known ? undefined : vethEnd(netlink, link);
    return known ?? (end && this.#found(end, NEW));
  }

  #leave(address: number, { link }: Container): void {
    const device = this.#devices.get(link);
    device?.addresses.delete(address);
    if (!device || device.addresses.size > 0) return;
    this.#devices.delete(link);
    if (device.hasOurs) this.#filters.leave(link, NEW);
    else this.#filters.forget(link);
  }

  #put(address: number, slot: Slot | undefined): void {
    const container = this.#containers.get(address);
    if (!container || isSame(container.slot, slot)) return;
    const isThere = this.#options.state.setContainer(address, slot) && slot !== undefined;
    this.#count += Number(isThere) - Number(container.slot !== undefined);
    container.slot = isThere ? slot : undefined;
  }
}

/** Offset of ifi_index in a message. */
const INDEX = 4;

/** Undefined if it is not known where frames for the container go. */
function slotOf({ index, mac, hostMac }: ContainerDevice, entry: Neighbour | undefined): Slot | undefined {
  const isKnown = entry?.lladdr?.length === hostMac.length && (entry.state & (NUD_PERMANENT | NUD_VALID)) !== 0;
  const to = isKnown ? entry.lladdr?.slice() : mac;
  return to && { link: index, mac: to, hostMac };
}

function isSame(one: Slot | undefined, other: Slot | undefined): boolean {
  if (!one || !other) return one === other;
  return one.link === other.link && isEqual(one.mac, other.mac) && isEqual(one.hostMac, other.hostMac);
}

function isSameDevice(one: ContainerDevice, other: ContainerDevice): boolean {
  const has = (mac: Uint8Array | undefined) => mac?.join();
  return one.isClear === other.isClear && has(one.mac) === has(other.mac) && has(one.hostMac) === has(other.hostMac);
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

/** All entries of IPv4. */
function neighboursOf(netlink: Netlink): Map<string, Neighbour> {
  const asked = request(RTM_GETNEIGH, 0, 'neighbours', neighbour, { family: AF_INET });
  return new Map(netlink.dump(asked, neighbour).map((each) => [keyOf(each.ifindex, ipv4Number(each.dst) ?? 0), each]));
}

function keyOf(link: number, address: number): string {
  return `${link} ${address}`;
}

function first<T>(values: Iterable<T>, count: number): T[] {
  const found: T[] = [];
  for (const value of values) {
    if (found.length === count) break;
    found.push(value);
  }
  return found;
}

/** Up to `count` of the set, which are in it no more. */
function taken<T>(set: Set<T>, count: number): T[] {
  const found = first(set, count);
  for (const value of found) set.delete(value);
  return found;
}

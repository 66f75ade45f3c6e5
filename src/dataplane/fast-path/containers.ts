/**
 * Where the containers of this VM are, for the programs: slots follow the kernel's own routes, whoever made them. A slot is cleared
 * as soon as its route, its device or the way past that is not what it was. It is set only after the kernel was asked what it would
 * do with a packet for the container.
 */
import { ipv4Bytes } from '../../linux/netlink/ipv4.ts';
import type { Message } from '../../linux/netlink/message.ts';
import type { Monitor } from '../../linux/netlink/monitor.ts';
import type { Neighbour } from '../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { type LimitedLog, limitedLog } from '../../log-limit.ts';
import { neighbourAt } from '../../machine/things/container-neighbour.ts';
import type { Address } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import { ContainerDevices, type ContainerDevicesOptions } from './container-devices.ts';
import { containerMonitor } from './container-monitor.ts';
import { ContainerRoutes } from './container-routes.ts';
import { allNeighbours, isSameSlot, slotOf } from './container-slot.ts';
import type { FastPathState, Slot } from './state.ts';

export interface FastContainersOptions extends ContainerDevicesOptions {
  /** The machine's socket: what it changes is not told to this process. */
  netlink: Netlink;
  state: Pick<FastPathState, 'setContainer'>;
  mappings: readonly Mapping[];
  local: Address;
  /** Interface index of the overlay's device; undefined while there is none. */
  overlay: () => number | undefined;
}

/** A container that a route leads to. */
interface Container {
  /** Interface index. */
  link: number;
  /** Undefined if packets may not go past the device. */
  slot: Slot | undefined;
}

/** ms from a notification to a look, because more of them may follow. */
const SETTLE = 5;
/** What one look does at most: devices and addresses that the kernel told of; containers in turn. */
const MAX_DUE = 200;
const MAX_IN_TURN = 16;

export class FastContainers {
  readonly #options: FastContainersOptions;
  readonly #routes: ContainerRoutes;
  readonly #devices: ContainerDevices;
  readonly #limited: LimitedLog;
  /** By address; those that were looked at longest ago come first. */
  readonly #containers = new Map<number, Container>();
  readonly #dueDevices = new Set<number>();
  readonly #dueAddresses = new Set<number>();
  /** Those about which the kernel did not answer: they wait for the next look. */
  readonly #failed = new Set<number>();
  #monitor: Monitor | undefined;
  /** What the monitor leaves out. */
  #overlay = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Until more devices get the program. */
  #more: NodeJS.Timeout | undefined;
  /** Whether no notification was lost since all was read. */
  #isWhole = false;
  #closed = false;
  #count = 0;

  /** Reads where all containers are. With the first look, their devices get the program. */
  constructor(options: FastContainersOptions) {
    const { netlink, mappings, local, log } = options;
    this.#options = options;
    this.#routes = new ContainerRoutes(netlink, mappings, local);
    this.#devices = new ContainerDevices(options);
    this.#limited = limitedLog(log);
    this.#listen();
    this.reload();
  }

  /** How many containers the programs take packets of. */
  get count(): number {
    return this.#count;
  }

  /** The names of the devices that containers are behind. */
  deviceNames(): Iterable<string> {
    return this.#devices.names();
  }

  /** Takes a notification of a route. */
  hear(message: Message): void {
    const which = this.#routes.hear(message);
    if (which === 'all') this.#lose();
    else if (which !== undefined) this.#follow(which);
  }

  /** Reads all anew, because notifications were lost. */
  reload(): void {
    try {
      // Without it nothing would tell when a slot has to be cleared.
      if (!this.#monitor) throw new Error('no notifications');
      this.#read();
      this.#isWhole = true;
    } catch (error) {
      this.#isWhole = false;
      this.#fail(error, [...this.#containers.keys()]);
    }
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
    this.#followSpecial();
    for (const address of first(this.#containers.keys(), MAX_IN_TURN)) {
      const container = this.#containers.get(address) as Container;
      this.#containers.delete(address);
      this.#containers.set(address, container);
      this.#lookAt(container.link, false);
      this.#follow(address);
    }
    this.#work();
    clearTimeout(this.#more);
    this.#putPrograms();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#more);
    this.#monitor?.close();
  }

  #listen(): void {
    const overlay = this.#options.overlay() ?? 0;
    if (this.#monitor && overlay === this.#overlay) return;
    const before = this.#monitor;
    this.#monitor = undefined;
    const change = (link: number, isDown: boolean) => {
      if (isDown) this.#followSpecial();
      const device = this.#devices.get(link);
      if (!device) return;
      if (isDown) this.#clear(device.addresses);
      this.#dueDevices.add(link);
      this.#soon();
    };
    try {
      const options = { port: this.#options.netlink.port, overlay };
      this.#monitor = containerMonitor(options, {
        onDevice: change,
        onGone: (link) => {
          this.#followSpecial();
          this.#drop(link);
        },
        onDiscipline: (link, kind) => this.#devices.setDiscipline(link, kind),
        onNeighbour: (address) => {
          if (!this.#containers.has(address)) return;
          this.#dueAddresses.add(address);
          this.#soon();
        },
        onAddressGone: (address) => {
          if (this.#routes.isOwn(address)) this.#followAll();
        },
        onLost: () => this.#lose(),
        onFailure: () => {
          this.#monitor = undefined;
          this.#lose();
        },
      });
      this.#overlay = overlay;
    } catch {} // The next look tries again.
    before?.close();
    // What was told between the two was not heard.
    this.#isWhole = false;
  }

  /** What is remembered may be wrong. */
  #lose(): void {
    this.#isWhole = false;
    this.#soon();
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
    if (this.#dueDevices.size + this.#dueAddresses.size > 0) this.#soon();
  }

  /** Only by looks, and not for notifications: another daemon may have the programs here. */
  #putPrograms(): void {
    try {
      const { refused, isMore, isSurprise } = this.#devices.work();
      for (const link of refused) this.#dueDevices.add(link);
      if (isSurprise) this.#lose();
      if (refused.length > 0) this.#soon();
      if (isMore && !this.#closed) this.#more = setTimeout(() => this.#putPrograms(), SETTLE);
    } catch (error) {
      this.#limited('warn', 'programs', { error: String(error) }, "programs at containers' devices could not be kept");
    }
  }

  #followSpecial(): void {
    for (const address of this.#routes.special) this.#dueAddresses.add(address);
    if (this.#dueAddresses.size > 0) this.#soon();
  }

  #followAll(): void {
    for (const address of this.#containers.keys()) this.#dueAddresses.add(address);
    this.#soon();
  }

  /** A device has gone: perhaps another route leads to its containers now. */
  #drop(link: number): void {
    const device = this.#devices.get(link);
    this.#devices.drop(link);
    if (!device) return;
    this.#clear(device.addresses);
    for (const address of device.addresses) this.#dueAddresses.add(address);
    this.#soon();
  }

  /** Looks at a device, and soon at the containers behind it, if it was told to have changed or is found so. */
  #lookAt(link: number, isTold: boolean): void {
    const before = this.#devices.get(link);
    if (!before) return;
    try {
      const { device, isNew } = this.#devices.look(link);
      if (!device) this.#drop(link);
      else if (isTold || isNew) for (const address of device.addresses) this.#dueAddresses.add(address);
    } catch (error) {
      before.isClear = false;
      this.#fail(error, [...before.addresses]);
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

  #fail(error: unknown, addresses: readonly number[]): void {
    this.#clear(addresses);
    for (const address of addresses) this.#failed.add(address);
    this.#limited(
      'warn',
      'look',
      { error: String(error) },
      "containers' packets go their ordinary way: the kernel did not answer",
    );
  }

  #read(): void {
    const links = this.#routes.read();
    for (const link of this.#devices.read(new Set(links.values()))) this.#drop(link);
    const entryAt = allNeighbours(this.#options.netlink);
    for (const address of [...this.#containers.keys()]) if (!links.has(address)) this.#place(address, undefined);
    for (const [address, link] of links) this.#place(address, link, () => entryAt(link, address));
  }

  /** Notes where a container is; undefined if it is behind no device of its own. */
  #place(
    address: number,
    to: number | undefined,
    entryAt: (link: number) => Neighbour | undefined = () => undefined,
  ): void {
    const device = to === undefined ? undefined : this.#devices.at(to);
    const known = this.#containers.get(address);
    if (known && known.link !== device?.index) this.#devices.leave(known.link, address);
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

  #clear(addresses: Iterable<number>): void {
    for (const address of addresses) this.#put(address, undefined);
  }

  #put(address: number, slot: Slot | undefined): void {
    const container = this.#containers.get(address);
    if (!container || isSameSlot(container.slot, slot)) return;
    const isThere = this.#options.state.setContainer(address, slot) && slot !== undefined;
    this.#count += Number(isThere) - Number(container.slot !== undefined);
    container.slot = isThere ? slot : undefined;
  }
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

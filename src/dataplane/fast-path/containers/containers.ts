/**
 * Where the containers of this VM are, for the programs. Slots follow the kernel's own routes, whoever made them. A slot is cleared as
 * soon as the kernel tells that its route, its device or the way past the device has changed. It is set only after the kernel was asked
 * what it would do with a packet for the container. With thousands of containers that takes seconds, so it is done in slices.
 */
import { ipv4Bytes } from '../../../linux/netlink/ipv4.ts';
import type { Message } from '../../../linux/netlink/message.ts';
import type { Monitor } from '../../../linux/netlink/monitor.ts';
import type { Neighbour } from '../../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { type LimitedLog, limitedLog } from '../../../log-limit.ts';
import { neighbourAt } from '../../../machine/things/container-neighbour.ts';
import type { Address } from '../../../mesh/address.ts';
import type { Mapping } from '../../../mesh/mapping.ts';
import { Pace } from '../obstacles/pace.ts';
import type { FastPathState } from '../state.ts';
import { ContainerDevices, type ContainerDevicesOptions } from './devices.ts';
import { type ContainerListeners, containerMonitor } from './monitor.ts';
import { ContainerRoutes } from './routes.ts';
import { Slices } from './slices.ts';
import { ContainerSlots, slotOf } from './slots.ts';
import { ContainerSnapshot } from './snapshot.ts';

export interface FastContainersOptions extends ContainerDevicesOptions {
  /** The machine's socket: what it changes is not told to this process. */
  netlink: Netlink;
  state: Pick<FastPathState, 'setContainer'>;
  mappings: readonly Mapping[];
  local: Address;
  /** Interface index of the overlay's device; undefined while there is none. */
  overlay: () => number | undefined;
  /** Told once, when the slots of all containers that were there at the start are set. */
  onFilled?: () => void;
}

/** ms from a notification to a look, because more of them may follow. */
const SETTLE = 5;
/** Containers that one look looks at in turn. */
const MAX_IN_TURN = 16;

export class FastContainers {
  readonly #options: FastContainersOptions;
  readonly #routes: ContainerRoutes;
  readonly #devices: ContainerDevices;
  readonly #slots: ContainerSlots;
  readonly #limited: LimitedLog;
  readonly #dueDevices = new Set<number>();
  readonly #dueAddresses = new Set<number>();
  /** Those about which the kernel did not answer: they wait for the next look. */
  readonly #failed = new Set<number>();
  /** What was read, as far as it is not taken up yet. */
  #snapshot: ContainerSnapshot | undefined;
  /** Of readings: notifications that are lost again and again must not keep this process busy with nothing else. */
  readonly #pace = new Pace();
  #monitor: Monitor | undefined;
  /** What the monitor leaves out. */
  #overlay = 0;
  readonly #slices = new Slices(
    () => this.#readIfLost(),
    () => this.#step(),
  );
  /** Until more devices get the program. */
  #more: NodeJS.Timeout | undefined;
  /** Whether no notification was lost since all was read. */
  #isWhole = false;
  /** Whether the slots of all containers that were there at the start are set. Until then an earlier daemon's programs stay. */
  #isFilled = false;
  #closed = false;

  /** Reads where all containers are. Their slots are set soon, and with the next look their devices get the program. */
  constructor(options: FastContainersOptions) {
    const { netlink, mappings, local, log, state } = options;
    this.#options = options;
    this.#routes = new ContainerRoutes(netlink, mappings, local);
    this.#devices = new ContainerDevices(options);
    this.#slots = new ContainerSlots(state);
    this.#limited = limitedLog(log);
    this.#listen();
    this.reload();
  }

  /** How many containers the programs take packets of. */
  get count(): number {
    return this.#slots.count;
  }

  get isFilled(): boolean {
    return this.#isFilled;
  }

  /** The names of the devices that containers are behind. */
  deviceNames(): Iterable<string> {
    return this.#devices.names();
  }

  /** Takes a notification of a route. */
  hear(message: Message): void {
    const which = this.#routes.hear(message);
    if (which === 'all') {
      this.#slots.clear(this.#slots.addresses());
      this.#lose();
    } else if (which !== undefined) {
      this.#snapshot?.leaveOut(which);
      this.#follow(which);
    }
  }

  /** Reads all anew, because notifications were lost. */
  reload(): void {
    this.#lose();
    this.#readIfLost();
  }

  /** To be called now and then: puts the program where it is due, and looks at some containers in turn. */
  look(): void {
    if (this.#closed) return;
    this.#listen();
    for (const address of this.#failed) {
      this.#dueAddresses.add(address);
      this.#dueDevices.add(this.#slots.linkOf(address) ?? 0);
    }
    this.#failed.clear();
    this.#followSpecial();
    for (const address of this.#slots.inTurn(MAX_IN_TURN)) {
      this.#lookAt(this.#slots.linkOf(address) ?? 0, false);
      this.#follow(address);
    }
    this.#slices.work();
    clearTimeout(this.#more);
    this.#putPrograms();
  }

  close(): void {
    this.#closed = true;
    this.#slices.close();
    clearTimeout(this.#more);
    this.#monitor?.close();
  }

  #listen(): void {
    const overlay = this.#options.overlay() ?? 0;
    if (this.#monitor && overlay === this.#overlay) return;
    const before = this.#monitor;
    try {
      const options = { port: this.#options.netlink.port, overlay };
      this.#monitor = containerMonitor(options, this.#listeners());
      this.#overlay = overlay;
      if (before) before.finish();
      else this.#lose();
    } catch (error) {
      if (this.#monitor === before) return; // The next look tries again.
      this.#limited('debug', 'notifications', { error: String(error) }, 'notifications of containers were lost');
      this.#lose();
    }
  }

  #listeners(): ContainerListeners {
    return {
      onDevice: (link, isDown) => {
        if (isDown) this.#followSpecial();
        this.#snapshot?.distrust(link);
        const device = this.#devices.get(link);
        if (!device) return;
        if (isDown) this.#slots.clear(device.addresses);
        this.#dueDevices.add(link);
        this.#slices.soon(SETTLE);
      },
      onGone: (link) => {
        this.#followSpecial();
        this.#drop(link);
      },
      onDiscipline: (link, kind) => this.#devices.setDiscipline(link, kind),
      onNeighbour: (address) => {
        const isNew = this.#snapshot?.leaveOut(address) ?? false;
        if (isNew || this.#slots.linkOf(address) !== undefined) this.#followSoon([address]);
      },
      onAddressGone: (address) => {
        if (!this.#routes.isOwn(address)) return;
        this.#snapshot?.distrustAll();
        this.#followSoon(this.#slots.addresses());
      },
      onLost: () => this.#lose(),
      onFailure: () => {
        this.#monitor = undefined;
        this.#lose();
      },
    };
  }

  /** What is remembered may be wrong. */
  #lose(): void {
    this.#isWhole = false;
    this.#snapshot = undefined;
    this.#slices.soon(SETTLE);
  }

  #readIfLost(): void {
    if (this.#isWhole) return;
    try {
      // Without it nothing would tell when a slot has to be cleared.
      if (!this.#monitor) throw new Error('no notifications');
      this.#isWhole = this.#pace.look(() => this.#read()) !== undefined;
      if (!this.#isWhole) this.#slices.soon(this.#pace.wait);
    } catch (error) {
      this.#fail(error, this.#slots.addresses());
    }
  }

  /** Whatever is not as it was goes its ordinary way from here on. */
  #read(): void {
    const links = this.#routes.read();
    const ends = this.#devices.read();
    for (const [address, link] of links) if (link !== undefined && !ends.has(link)) links.delete(address);
    const snapshot = new ContainerSnapshot(this.#options.netlink, links, ends);
    for (const link of this.#devices.links()) if (!ends.has(link)) this.#drop(link);
    for (const address of this.#slots.addresses()) {
      if (!links.has(address)) this.#place(address, undefined);
      else if (snapshot.linkOf(address) !== this.#slots.linkOf(address)) this.#slots.clear([address]);
    }
    this.#snapshot = snapshot;
  }

  /** Looks at one device or container that is due: first at what was told to have changed. False if none is due. */
  #step(): boolean {
    for (const link of this.#dueDevices) {
      this.#dueDevices.delete(link);
      this.#lookAt(link, true);
      return true;
    }
    for (const address of this.#dueAddresses) {
      this.#dueAddresses.delete(address);
      this.#follow(address);
      return true;
    }
    return this.#takeUp();
  }

  /** Takes up one container of what was read. */
  #takeUp(): boolean {
    const found = this.#snapshot?.next();
    if (!found) return this.#end();
    const { address, link, entry } = found;
    try {
      if (link === undefined) this.#follow(address);
      else this.#place(address, link, () => entry);
    } catch (error) {
      this.#fail(error, [address]);
    }
    return true;
  }

  /** All that was read is taken up. Returns whether there is more to do. */
  #end(): boolean {
    if (!this.#snapshot) return false;
    this.#devices.setRead();
    try {
      if (this.#devices.lookAtStranger()) return true;
    } catch (error) {
      this.#fail(error, []);
      return true;
    }
    this.#snapshot = undefined;
    if (!this.#isFilled) {
      this.#isFilled = true;
      this.#options.onFilled?.();
    }
    return false;
  }

  /** Only by looks, and not for notifications: another daemon may have the programs here. */
  #putPrograms(): void {
    if (!this.#isFilled) return;
    try {
      const { refused, isMore, isSurprise } = this.#devices.work();
      for (const link of refused) this.#dueDevices.add(link);
      if (isSurprise) this.#lose();
      if (refused.length > 0) this.#slices.soon(SETTLE);
      if (isMore && !this.#closed) this.#more = setTimeout(() => this.#putPrograms(), SETTLE);
    } catch (error) {
      this.#limited('warn', 'programs', { error: String(error) }, "programs at containers' devices could not be kept");
    }
  }

  #followSpecial(): void {
    this.#followSoon(this.#routes.special);
  }

  #followSoon(addresses: Iterable<number>): void {
    for (const address of addresses) this.#dueAddresses.add(address);
    if (this.#dueAddresses.size > 0) this.#slices.soon(SETTLE);
  }

  /** A device has gone: perhaps another route leads to its containers now. */
  #drop(link: number): void {
    this.#snapshot?.distrust(link);
    const device = this.#devices.get(link);
    this.#devices.drop(link);
    if (!device) return;
    this.#slots.clear(device.addresses);
    this.#followSoon(device.addresses);
  }

  /** Looks at a device, and soon at the containers behind it, if it was told to have changed or is found so. */
  #lookAt(link: number, isTold: boolean): void {
    const before = this.#devices.get(link);
    if (!before) return;
    try {
      const { device, isNew } = this.#devices.look(link);
      if (!device) this.#drop(link);
      else if (isTold || isNew) this.#followSoon(device.addresses);
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
    this.#slots.clear(addresses);
    for (const address of addresses) this.#failed.add(address);
    this.#limited(
      'warn',
      'look',
      { error: String(error) },
      "containers' packets go their ordinary way: the kernel did not answer",
    );
  }

  /** Notes where a container is; undefined if it is behind no device of its own. */
  #place(
    address: number,
    to: number | undefined,
    entryAt: (link: number) => Neighbour | undefined = () => undefined,
  ): void {
    const end = to === undefined ? undefined : this.#snapshot?.takeEnd(to);
    if (end) this.#devices.take(end);
    const device = to === undefined ? undefined : this.#devices.at(to);
    const known = this.#slots.linkOf(address);
    if (known !== undefined && known !== device?.index) this.#devices.leave(known, address);
    if (!device) {
      this.#slots.remove(address);
      return;
    }
    device.addresses.add(address);
    this.#slots.put(address, device.index, device.isClear ? slotOf(device, entryAt(device.index)) : undefined);
  }
}

/**
 * Guards containers' devices, whoever made them: each that a route inside our own slice leads to gets the
 * settings of things/guard.ts, and the neighbour entries of its containers stay. Those of attached containers
 * keep their routes, too. There may be thousands. So new devices, and those that the kernel tells of, are
 * looked at soon, and the others in turn, a few at a time.
 */

import { type DeviceSettings, settingsOfDevice } from '../linux/netlink/device-settings.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import type { Monitor } from '../linux/netlink/monitor.ts';
import { NTF_EXT_LEARNED, NUD_PERMANENT } from '../linux/netlink/neighbour.ts';
import { isContainerAlias } from './alias.ts';
import { AttachedDevices, type Attachments } from './attachments.ts';
import { guardMonitor } from './guard-monitor.ts';
import { type Container, GuardedRoutes } from './guarded-routes.ts';
import { GUARD } from './journal.ts';
import { type Machine, type Trouble, troubleOf } from './machine.ts';
import type { GuardThing, NetworkPlan } from './state.ts';
import { keepNeighbour, neighbourAt } from './things/container-neighbour.ts';
import { guardKind, type Uses, unsafeIn, usesOf } from './things/guard.ts';
import type { Context } from './things/kind.ts';
import { wayToOthers } from './underlay.ts';

/** ms from a notification to a look, because more may follow; and between two looks when none comes. */
const SETTLE = 20;
const INTERVAL = 500;
/** What one look does at most: devices that are new or that the kernel told of; others; neighbour entries. */
const MAX_DUE = 200;
const MAX_IN_TURN = 64;
const MAX_NEIGHBOURS = 32;
/** How often one look reads the whole table, to find out whether another route leads to a device. */
const MAX_TABLES = 4;

/** Kinds of devices that lead to other machines; a network card has none. */
const CARDS: readonly (string | undefined)[] = [undefined, 'vlan', 'bond', 'team'];

/** A device that a route inside our own slice leads to, or that is an attached container's. */
export interface GuardedDevice {
  /** As it was found last. */
  found: DeviceSettings;
  uses: Uses;
  /** It leads to other machines, too, so its settings are left as they are. */
  isUplink: boolean;
  /** What could not be set. */
  trouble?: Trouble;
}

export interface GuardOptions {
  machine: Machine;
  plan: () => NetworkPlan;
  attachments: Attachments;
  /** Told what others had changed and is right again, in words. */
  onRepaired: (what: string) => void;
}

export class Guard {
  readonly #options: GuardOptions;
  readonly #context: Context;
  readonly #routes = new GuardedRoutes();
  /** By interface index; those that were looked at longest ago come first. */
  readonly #devices = new Map<number, GuardedDevice>();
  readonly #due = new Set<number>();
  /** Devices to which no route is known any more. */
  readonly #left = new Set<number>();
  readonly #attached: AttachedDevices;
  #monitor: Monitor | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #tick: NodeJS.Timeout;
  #closed = false;

  /** The machine's table has been loaded. */
  constructor(options: GuardOptions) {
    this.#options = options;
    const { machine, attachments } = options;
    this.#context = machine.contextOf(GUARD);
    this.#attached = new AttachedDevices(attachments, options.onRepaired);
    for (const { thing } of machine.journal.entries(GUARD)) {
      if (thing.kind !== 'guard') continue;
      if (settingsOfDevice(machine.netlink, thing.index)?.name === thing.device) this.#left.add(thing.index);
      else this.#context.forget(thing);
    }
    for (const index of attachments.find()) this.#due.add(index);
    this.#tick = setInterval(() => this.#look(true), INTERVAL).unref();
    this.#look(true);
  }

  /** How many containers are attached. */
  get attached(): number {
    return this.#attached.count;
  }

  get devices(): Iterable<GuardedDevice> {
    return this.#devices.values();
  }

  /** Looks soon at what is new. */
  look(): void {
    if (this.#timer || this.#closed) return;
    this.#timer = setTimeout(() => this.#look(false), SETTLE);
  }

  /** Changes of routes were not heard. */
  missed(): void {
    this.#attached.loseAll();
    this.look();
  }

  close(): void {
    this.#closed = true;
    // When the overlay's device goes, nothing else may hold the routes.
    this.#attached.keepSource();
    clearInterval(this.#tick);
    clearTimeout(this.#timer);
    this.#monitor?.close();
  }

  #look(isTurn: boolean): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#listen();
    this.#takeRoutes();
    if (isTurn) this.#attached.keepSource();
    const { machine, plan, onRepaired } = this.#options;
    const { mappings, local, device } = plan();
    const uplink = wayToOthers(machine.netlink, mappings, local)?.oif;
    const own = [LOOPBACK, machine.links.get(device)];
    const repaired: string[] = [];
    const check = (index: number, isWhole: boolean) => {
      const wrong = own.includes(index) ? undefined : this.#check(index, isWhole, uplink);
      if (wrong !== undefined) repaired.push(wrong);
    };
    const lost = this.#attached.keepRoutes((index) => this.#devices.get(index)?.found);
    repaired.push(...lost.repaired);
    for (const index of lost.due) this.#due.add(index);
    for (const index of taken(this.#due, MAX_DUE)) check(index, true);
    if (isTurn) {
      for (const index of first(this.#devices.keys(), MAX_IN_TURN)) check(index, false);
      for (const container of this.#routes.waiting(MAX_NEIGHBOURS)) this.#keepNeighbour(container);
      this.#leaveAll();
    }
    const count = repaired.length > 1 ? ` (${repaired.length} devices)` : '';
    if (repaired.length > 0) onRepaired(`a container's device has ${repaired[0]}${count}`);
    if (this.#due.size > 0) this.look();
  }

  #listen(): void {
    if (this.#monitor) return;
    try {
      this.#monitor = guardMonitor(
        (index) => this.#hear(index),
        () => {
          this.#monitor = undefined;
        },
      );
      // What was told before was not heard.
      this.#hear('all');
    } catch {} // The next look tries again.
  }

  #hear(index: number | 'all'): void {
    const told = index === 'all' ? this.#devices.keys() : this.#devices.has(index) ? [index] : [];
    for (const each of told) this.#due.add(each);
    if (index === LOOPBACK || index === 'all') this.#attached.loseSource();
    if (this.#due.size > 0 || this.#attached.isDue) this.look();
  }

  #takeRoutes(): void {
    const { containerRoutes } = this.#options.machine.table;
    for (const [name, route] of containerRoutes) {
      const left = this.#routes.take(name, route);
      if (left !== undefined) this.#left.add(left);
      if (route.hasGone) this.#attached.lose(route.link);
      else if (!this.#devices.has(route.link)) this.#due.add(route.link);
    }
    containerRoutes.clear();
  }

  /**
   * Looks at a device, and puts right what is unsafe. Returns what others have changed. Unless `isWhole`, what
   * it is used for is taken to be what it was.
   */
  #check(index: number, isWhole: boolean, uplink: number | undefined): string | undefined {
    const { netlink, table } = this.#options.machine;
    const before = this.#devices.get(index);
    this.#devices.delete(index);
    const found = settingsOfDevice(netlink, index);
    if (!found) {
      this.#forget(index);
      return undefined;
    }
    const isAttached = isContainerAlias(found.alias);
    if (isAttached) this.#attached.add(index);
    const isUplink = !isAttached && (index === uplink || CARDS.includes(found.kind) || table.routerLinks.has(index));
    const device: GuardedDevice = { found, uses: { isNumbered: false, hasIpv6: false }, isUplink };
    this.#devices.set(index, device);
    const thing: GuardThing = { kind: 'guard', device: found.name, index };
    const attempt = (work: () => string | undefined) => {
      try {
        return work();
      } catch (error) {
        if (settingsOfDevice(netlink, index)) device.trouble = troubleOf(error);
        else this.#forget(index);
        return undefined;
      }
    };
    const wrong = attempt(() => {
      device.uses = before && !isWhole ? before.uses : usesOf(netlink, found);
      if (isUplink) {
        this.#release(thing);
        return undefined;
      }
      for (const container of this.#routes.settled(index)) this.#keepNeighbour(container);
      if (unsafeIn(found, device.uses).length === 0) return undefined;
      const unsafe = guardKind.ensure(thing, this.#context);
      device.found = settingsOfDevice(netlink, index) ?? found;
      return before && unsafe;
    });
    const lost = isAttached ? attempt(() => this.#attached.keep(found)) : undefined;
    return [wrong, lost].filter((each) => each !== undefined).join(', ') || undefined;
  }

  #keepNeighbour(container: Container): void {
    const { netlink } = this.#options.machine;
    const { link, address } = container;
    const device = this.#devices.get(link);
    if (this.#attached.has(link)) {
      this.#routes.settle(container, true); // Its entry is one of those that attaching made.
      return;
    }
    // On a bridge a container can have as many entries as it likes.
    if (!device || device.isUplink || device.found.kind === 'bridge') return;
    const found = neighbourAt(netlink, link, address);
    const isKept = found !== undefined && ((found.flags & NTF_EXT_LEARNED) | (found.state & NUD_PERMANENT)) !== 0;
    this.#routes.settle(container, isKept || (found !== undefined && keepNeighbour(netlink, found)));
  }

  /** Looks at devices without a known route. */
  #leaveAll(): void {
    const { machine } = this.#options;
    let tables = 0;
    for (const index of taken(this.#left, MAX_IN_TURN)) {
      if (this.#routes.has(index) || this.#attached.has(index)) continue;
      const found = settingsOfDevice(machine.netlink, index);
      if (!found) this.#forget(index);
      else if (tables++ >= MAX_TABLES) this.#left.add(index);
      else if (machine.table.isContainerLink(index)) this.#due.add(index);
      else {
        this.#release({ kind: 'guard', device: found.name, index });
        this.#devices.delete(index);
      }
    }
  }

  /** Takes back what was changed at a device. */
  #release(thing: GuardThing): void {
    const { machine } = this.#options;
    if (!this.#context.isNoted(thing)) return;
    machine.takeBack(thing, this.#context.before(thing));
    this.#context.forget(thing);
  }

  /** The device has gone. */
  #forget(index: number): void {
    this.#devices.delete(index);
    this.#attached.forget(index);
    this.#routes.drop(index);
    this.#context.forget({ kind: 'guard', device: '', index });
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

/**
 * Addresses without a database. The claim on an address is the container's own /32 route in the kernel's
 * table: NLM_F_EXCL lets one of many win, and the route goes when its device goes. Whoever gives an address
 * back leaves a tombstone, an unreachable route whose metrics say until when (seconds since boot) nobody else is
 * to have the address: until then senders, who may still mean the last container, are told that it has gone.
 */

import { secondsSinceBoot } from '../linux/native.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import {
  NetlinkError,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  type Request,
  request,
} from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import {
  type Route,
  type RouteRequest,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../linux/netlink/route.ts';
import { AF_INET, matchingRoute } from '../linux/netlink/rtnetlink.ts';
import { CONTAINER_PROTOCOL } from '../machine/state.ts';
import { formatAddress } from '../mesh/address.ts';
import { ContainerError } from './reasons.ts';
import { claimsIn, containerRoutes } from './routes.ts';
import type { Slice } from './slice.ts';

/** How many numbers are tried one by one before the table is read, which takes longer the more routes it has. */
const PROBES = 16;
/** How many free numbers are remembered from reading the table. */
const REMEMBERED = 256;
/** Instead of who had an address: it is kept for somebody. */
const RESERVED = 0;
/** What the kernel answers where there is no such route. */
const GONE = 'ESRCH';

/** What the routes of this VM's containers are, by container number. */
interface Table {
  live: Set<number>;
  /** Of each number that which lasts longest. */
  tombstones: Map<number, Tombstone>;
  /** All of them: a number has two where somebody who gave it back was killed, and then it was given back again. */
  all: [container: number, tombstone: Tombstone][];
}

interface Tombstone {
  /** Of the cool-down, in seconds since boot. */
  end: number;
  /** Who had the address: a hash (alias.ts). 0 of a reservation. */
  holder: number;
}

export class Claims {
  readonly #netlink: Netlink;
  readonly #slice: Slice;
  /** Seconds. */
  readonly #coolDown: number;
  /** Whether the VM's own address can be the routes' preferred source: where lo is down, it cannot. */
  hasSource = true;
  /** Numbers that were free when the table was read last, from the last to the first that is to be tried. */
  #free: number[] = [];

  constructor(netlink: Netlink, slice: Slice, coolDown: number) {
    this.#netlink = netlink;
    this.#slice = slice;
    this.#coolDown = coolDown;
  }

  /**
   * The number to try first, for the link with this index: the kernel's counter of links goes round. Where few
   * are free, it is one that was free a moment ago.
   */
  candidate(link: number): number {
    return this.#free.pop() ?? (link % this.#slice.capacity) + 1;
  }

  /** Claims a number for a link. EEXIST tells that it is not free. */
  request(container: number, link: number): Request {
    return this.#request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, this.#live(container, link));
  }

  /** Claims the next free number after `from`, which was not. Throws ContainerError if there is none. */
  next(from: number, link: number): number {
    const { capacity } = this.#slice;
    const after = (container: number) => (container % capacity) + 1;
    for (let each = this.#free.pop(); each !== undefined; each = this.#free.pop())
      if (this.#try(each, link)) return each;
    let container = from;
    for (let i = 1; i < Math.min(PROBES, capacity); i++) {
      container = after(container);
      if (this.#try(container, link)) return container;
    }
    const { live, tombstones } = this.#swept();
    let found: number | undefined;
    const more: number[] = [];
    for (let i = 0; i < capacity && more.length < REMEMBERED; i++) {
      container = after(container);
      if (live.has(container) || tombstones.has(container)) continue;
      if (found !== undefined) more.push(container);
      else if (this.#try(container, link)) found = container;
    }
    if (found === undefined) throw this.#full();
    this.#free = more.reverse();
    return found;
  }

  /**
   * Claims this number, which was not free, if only an old tombstone stood in the way, or its own: a container
   * that is started again may have the address that it had. Throws ContainerError.
   */
  demand(container: number, link: number, holder: number): void {
    const table = this.#swept();
    if (this.#try(container, link)) return;
    if (table.tombstones.get(container)?.holder !== holder) throw this.#refusal(container, table);
    this.takeOver(container, link);
  }

  /**
   * Gives a number back. The tombstone comes first: in between, nobody else can claim the number. False if
   * the link has no claim on it.
   */
  release(container: number, link: number, holder: number): boolean {
    if (!this.isClaimed(container, link)) return false;
    if (this.#coolDown > 0) this.#bury(container, { seconds: this.#coolDown, holder }, NLM_F_APPEND);
    return this.#delete({ ...this.#to(container), type: RTN_UNICAST, oif: link });
  }

  /** Whether the link has the claim on this number. */
  isClaimed(container: number, link: number): boolean {
    if (matchingRoute(this.#netlink, this.#slice.addressOf(container))?.oif === link) return true;
    // Where rules of policy routing lead elsewhere, only the table tells; reading it takes longer.
    try {
      return claimsIn(this.#netlink, link).some(({ dst }) => this.#slice.containerIn(dst) === container);
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENODEV') return false; // The link has gone.
      throw error;
    }
  }

  /** The link that has the claim on this number; undefined if none has. */
  holder(container: number): number | undefined {
    return claimsIn(this.#netlink).find(({ dst }) => this.#slice.containerIn(dst) === container)?.oif;
  }

  /**
   * Keeps a number free for whoever takes it over within so many seconds: this one, be it that it cools down
   * still after this holder, or the next free one. Throws ContainerError.
   */
  reserve(container: number | undefined, seconds: number, holder: number): number {
    const isMine = (number: number) => !this.#bury(number, { seconds, holder: RESERVED }, NLM_F_EXCL);
    if (container !== undefined) {
      if (isMine(container)) return container;
      const table = this.#swept();
      if (table.tombstones.get(container)?.holder === holder) this.#unbury(container, holder, table);
      if (isMine(container)) return container;
      throw this.#refusal(container, table);
    }
    const { live, tombstones } = this.#swept();
    const { capacity } = this.#slice;
    const last = Math.max(0, ...live, ...tombstones.keys());
    for (let i = 0; i < capacity; i++) {
      const each = ((last + i) % capacity) + 1;
      if (!live.has(each) && !tombstones.has(each) && isMine(each)) return each;
    }
    throw this.#full();
  }

  /** Claims a reserved number for a link. Throws ContainerError if somebody has it meanwhile. */
  takeOver(container: number, link: number): void {
    this.#netlink.do(this.#request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, this.#live(container, link)));
    let isMine = false;
    while (this.#delete(this.#tombstone(container))) isMine = true;
    if (isMine) return;
    this.#delete({ ...this.#to(container), type: RTN_UNICAST, oif: link });
    throw new ContainerError('taken', `the reservation of container ${container} is over`);
  }

  /** Gives a reserved number back; nothing if it was taken over. */
  cancel(container: number): void {
    this.#unbury(container, RESERVED, this.#table());
  }

  /** Removes what this holder left at a number. */
  #unbury(container: number, holder: number, { all }: Table): void {
    for (const [each, tombstone] of all)
      if (each === container && tombstone.holder === holder) this.#delete(this.#tombstone(each, tombstone));
  }

  usage(): { capacity: number; inUse: number; coolingDown: number } {
    const { live, tombstones } = this.#table();
    const now = secondsSinceBoot();
    const coolingDown = [...tombstones.values()].filter(({ end }) => end > now).length;
    return { capacity: this.#slice.capacity, inUse: live.size, coolingDown };
  }

  #try(container: number, link: number): boolean {
    const [error] = this.#netlink.tryAll([this.request(container, link)]);
    if (error && error.code !== 'EEXIST') throw error;
    return !error;
  }

  /** Why a number is not free. */
  #refusal(container: number, { tombstones }: Table): ContainerError {
    const what = `container ${container} (${formatAddress(this.#slice.addressOf(container))})`;
    const left = (tombstones.get(container)?.end ?? 0) - secondsSinceBoot();
    if (left > 0) {
      return new ContainerError('cooling', `${what} was in use a moment ago`, {
        hint: `it is free in ${left} s; leave out the number for the next free one`,
      });
    }
    return new ContainerError('taken', `${what} is in use`, {
      hint: 'inlay containers shows by whom; leave out the number for the next free one',
    });
  }

  #full(): ContainerError {
    const { capacity, inUse, coolingDown } = this.usage();
    const what = `no address is free: ${capacity} a VM, ${inUse} in use, ${coolingDown} cooling down`;
    return new ContainerError('full', what, {
      hint: 'detach containers, shorten --address-cool-down, or plan more addresses for each VM (inlay plan)',
    });
  }

  /** The table, when tombstones whose time is over have been removed. */
  #swept(): Table {
    const table = this.#table();
    const now = secondsSinceBoot();
    const over = table.all.filter(([, { end }]) => end <= now);
    // Only one with the same end is deleted: another may have come in its place.
    const requests = over.map(([container, found]) => this.#deletion(this.#tombstone(container, found)));
    for (const error of this.#netlink.tryAll(requests)) if (error && error.code !== GONE) throw error;
    for (const [container, { end }] of table.tombstones) if (end <= now) table.tombstones.delete(container);
    return table;
  }

  #table(): Table {
    const live = new Set<number>();
    const tombstones = new Map<number, Tombstone>();
    const all: Table['all'] = [];
    for (const { dst, type, metrics } of containerRoutes(this.#netlink)) {
      const container = this.#slice.containerIn(dst);
      if (container === undefined) continue;
      if (type !== RTN_UNREACHABLE) {
        live.add(container);
        continue;
      }
      const tombstone = { end: metrics?.ssthresh ?? 0, holder: metrics?.window ?? 0 };
      all.push([container, tombstone]);
      if (tombstone.end >= (tombstones.get(container)?.end ?? 0)) tombstones.set(container, tombstone);
    }
    return { live, tombstones, all };
  }

  #bury(
    container: number,
    { seconds, holder }: { seconds: number; holder: number },
    flag: number,
  ): NetlinkError | undefined {
    const tombstone = this.#tombstone(container, { end: secondsSinceBoot() + seconds + 1, holder });
    const [error] = this.#netlink.tryAll([this.#request(RTM_NEWROUTE, NLM_F_CREATE | flag, tombstone)]);
    if (error && error.code !== 'EEXIST') throw error;
    return error;
  }

  #delete(body: RouteRequest): boolean {
    const [error] = this.#netlink.tryAll([this.#deletion(body)]);
    if (error && error.code !== GONE) throw error;
    return !error;
  }

  #live(container: number, link: number): RouteRequest {
    const source = this.hasSource ? { prefsrc: addressBytes(this.#slice.gateway) } : {};
    return { ...this.#to(container), scope: RT_SCOPE_LINK, type: RTN_UNICAST, oif: link, ...source };
  }

  #tombstone(container: number, of?: Tombstone): RouteRequest {
    return {
      ...this.#to(container),
      type: RTN_UNREACHABLE,
      ...(of && { metrics: { ssthresh: of.end, window: of.holder } as Route['metrics'] }),
    };
  }

  #to(container: number): RouteRequest {
    const dst = addressBytes(this.#slice.addressOf(container));
    return { family: AF_INET, dstLength: 32, dst, table: RT_TABLE_MAIN, protocol: CONTAINER_PROTOCOL };
  }

  #deletion(body: RouteRequest): Request {
    return this.#request(RTM_DELROUTE, 0, { ...body, scope: RT_SCOPE_NOWHERE });
  }

  #request(type: number, flags: number, body: RouteRequest): Request {
    return request(type, flags, () => `route ${body.dst?.join('.')}`, route, body);
  }
}

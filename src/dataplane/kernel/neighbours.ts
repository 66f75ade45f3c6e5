/**
 * The neighbour ("ARP") daemon: answers what the kernel asks about the overlay's device, from arithmetic alone. All that it knows is in the kernel: it can be
 * killed at any time, and finds everything there when it comes back.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Decoder } from '../../linux/netlink/codec.ts';
import { type Request, request } from '../../linux/netlink/message.ts';
import {
  AF_BRIDGE,
  type Neighbour,
  NTF_EXT_LEARNED,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PROBE,
  neighbour,
  RTM_GETNEIGH,
} from '../../linux/netlink/neighbour.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTM_GETROUTE, route } from '../../linux/netlink/route.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import { ROUTE_PROTOCOL } from '../../machine/state.ts';
import { Entries, type EntriesOptions } from './entries.ts';

/** Times of neighbours are in ticks of so many ms (USER_HZ). */
const TICK = 10;
/** VMs with entries, at most: some 1.5 KB each in the kernel. */
const MAX_VMS = 1 << 17;
/** Requests a second, and at once, for addresses that nobody can have. */
const REFUSALS = 100;
/** VMs that are seen to in one go, before others have their turn. */
const PART = 64;

export interface NeighbourCounters {
  /** Requests that got the VM's address. */
  answered: number;
  /** Requests for addresses that nobody can have. */
  refused: number;
  /** Requests of ours that the kernel refused. */
  failed: number;
  /** How often everything was compared with the kernel. */
  resyncs: number;
  /** VMs whose entries were not all there then. */
  repaired: number;
}

export interface NeighboursOptions extends EntriesOptions {
  /** For answers and changes. */
  netlink: Netlink;
  /** Opens a socket for a dump, which others do not wait for. */
  openNetlink: () => Netlink;
  onTunnels: (change: 'opened' | 'closed', vms: number[]) => void;
  /** Everything was compared with the kernel. */
  onResync: (facts: { vms: number; repaired: number; ms: number }) => void;
  /** The kernel refused something. */
  onError: (error: Error) => void;
}

export class Neighbours {
  readonly counters: NeighbourCounters = { answered: 0, refused: 0, failed: 0, resyncs: 0, repaired: 0 };
  readonly #options: NeighboursOptions;
  readonly #entries: Entries;
  /** VMs that have entries in the kernel. */
  readonly #vms = new Set<number>();
  /** VMs that were answered since the last comparison began: it may have looked before. */
  readonly #answered = new Set<number>();

  /** Refusals that cost nothing else, and when they were counted, in ms. */
  #tokens = REFUSALS;
  #filled = performance.now();

  constructor(options: NeighboursOptions) {
    this.#options = options;
    this.#entries = new Entries(options);
  }

  /** How many VMs have entries. */
  get count(): number {
    return this.#vms.size;
  }

  /**
   * Answers requests: neighbours of our device that the kernel does not know, or doubts. Whoever sends to an address that nobody can have is told so. If that
   * happens too often, the entries of its VM are made all the same: then the kernel asks no more often than there are VMs.
   */
  answer(asked: readonly Neighbour[]): void {
    const vms = new Set<number>();
    const answers: Request[] = [];
    for (const { dst } of asked) {
      if (!dst) continue;
      const vm = this.#entries.vmOf(dst);
      const near = vm ?? (this.#mayRefuse() ? undefined : this.#entries.vmNear(dst));
      const hasRoom = near !== undefined && (this.#vms.has(near) || this.#vms.size + vms.size < MAX_VMS);
      if (hasRoom) vms.add(near);
      if (vm === undefined || !hasRoom) {
        this.counters.refused++;
        answers.push(this.#entries.refuse(dst));
        continue;
      }
      this.counters.answered++;
      // The VM's own overlay address is the neighbour that stays.
      if (!this.#entries.isGateway(dst, vm)) answers.push(...this.#entries.answer(dst, vm));
    }
    this.#try([...[...vms].flatMap((vm) => this.#entries.install(vm)), ...answers]);
    for (const vm of vms) this.#answered.add(vm);
    this.#open(vms);
  }

  /** A token bucket. */
  #mayRefuse(): boolean {
    const now = performance.now();
    this.#tokens = Math.min(this.#tokens + ((now - this.#filled) * REFUSALS) / 1000, REFUSALS);
    this.#filled = now;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }

  /** Whether an entry of the forwarding database that came or went is as it should be; those of our own making are among them. */
  isForwardedWell({ lladdr, dst }: Neighbour, isGone: boolean): boolean {
    const vm = this.#entries.vmForwarded(lladdr, dst);
    return isGone ? vm === undefined || !this.#vms.has(vm) : vm !== undefined;
  }

  /** Compares with the kernel: what waits is answered, what is missing or wrong is put right. */
  async resync(): Promise<void> {
    this.counters.resyncs++;
    const start = performance.now();
    this.#answered.clear();
    const asked: Neighbour[] = [];
    const wrong: Request[] = [];
    const found = new Map<number, number>();
    const note = (vm: number) => found.set(vm, (found.get(vm) ?? 0) + 1);

    for await (const entry of this.#neighbours()) {
      if (entry.state & (NUD_INCOMPLETE | NUD_PROBE)) asked.push(entry);
      else if (!isOurs(entry)) continue;
      else {
        const vm = this.#entries.vmAt(entry.dst, entry.lladdr);
        if (vm !== undefined && !(entry.state & NUD_FAILED)) note(vm);
        else if (entry.dst) wrong.push(this.#entries.refuse(entry.dst));
      }
    }
    this.answer(asked);
    for await (const entry of this.#routes()) {
      if (!entry.gateway) continue; // To the whole overlay.
      const vm = this.#entries.vmBehind(entry);
      if (vm === undefined) wrong.push(this.#entries.removeRoute(entry));
      else note(vm);
    }
    for await (const entry of this.#forwardings()) {
      const vm = this.#entries.vmForwarded(entry.lladdr, entry.dst);
      if (vm !== undefined) note(vm);
    }
    this.#try(wrong);

    // Whatever has some of its entries is to have all.
    const incomplete = [...found].flatMap(([vm, count]) => (count < this.#entries.count(vm) ? [vm] : []));
    await this.#inParts(incomplete, (vm) => this.#entries.install(vm));
    const repaired = incomplete.filter((vm) => !this.#answered.has(vm)).length;
    this.counters.repaired += repaired;
    this.#close([...this.#vms].filter((vm) => !found.has(vm) && !this.#answered.has(vm)));
    this.#open(found.keys());
    const ms = Math.round(performance.now() - start);
    this.#options.onResync({ vms: this.#vms.size, repaired, ms });
  }

  /** The VMs with entries, and how many ms ago each was last sent to. */
  async ages(): Promise<Map<number, number>> {
    const ages = new Map<number, number>();
    for await (const entry of this.#neighbours()) {
      const vm = isOurs(entry) ? this.#entries.vmAt(entry.dst, entry.lladdr) : undefined;
      const age = (entry.cacheInfo?.used ?? 0) * TICK;
      if (vm !== undefined) ages.set(vm, Math.min(age, ages.get(vm) ?? Infinity));
    }
    return ages;
  }

  /** Removes VMs that were not sent to for so many ms. */
  async removeIdle(timeout: number): Promise<void> {
    const idle = [...(await this.ages())].flatMap(([vm, age]) => (age >= timeout ? [vm] : []));
    this.#close(idle);
    await this.#inParts(idle, (vm) => this.#entries.remove(vm));
  }

  #neighbours(): AsyncGenerator<Neighbour> {
    const { ifindex } = this.#options;
    const body = { family: AF_INET, filterIfindex: ifindex };
    return this.#dump(request(RTM_GETNEIGH, 0, 'neighbours', neighbour, body), neighbour);
  }

  #routes(): AsyncGenerator<Route> {
    const { ifindex } = this.#options;
    const body = { family: AF_INET, table: RT_TABLE_MAIN, protocol: ROUTE_PROTOCOL, oif: ifindex };
    return this.#dump(request(RTM_GETROUTE, 0, 'routes', route, body), route);
  }

  async *#forwardings(): AsyncGenerator<Neighbour> {
    const { ifindex, isVxlan } = this.#options;
    if (!isVxlan) return;
    const body = { family: AF_BRIDGE, filterIfindex: ifindex };
    yield* this.#dump(request(RTM_GETNEIGH, 0, 'forwarding database', neighbour, body), neighbour);
  }

  async *#dump<T>(query: Request, codec: Decoder<T>): AsyncGenerator<T> {
    const netlink = this.#options.openNetlink();
    try {
      for (const part of netlink.parts(query, codec)) {
        yield* part;
        await turn();
      }
    } finally {
      netlink.close();
    }
  }

  async #inParts(vms: readonly number[], requests: (vm: number) => Request[]): Promise<void> {
    for (let from = 0; from < vms.length; from += PART) {
      this.#try(vms.slice(from, from + PART).flatMap(requests));
      await turn();
    }
  }

  /** What has gone meanwhile is no error. */
  #try(requests: readonly Request[]): void {
    for (const error of this.#options.netlink.tryAll(requests)) {
      if (!error || GONE.includes(error.code)) continue;
      this.counters.failed++;
      this.#options.onError(error);
    }
  }

  #open(vms: Iterable<number>): void {
    const opened = [...vms].filter((vm) => !this.#vms.has(vm));
    for (const vm of opened) this.#vms.add(vm);
    if (opened.length > 0) this.#options.onTunnels('opened', opened);
  }

  #close(vms: Iterable<number>): void {
    const closed = [...vms].filter((vm) => this.#vms.delete(vm));
    if (closed.length > 0) this.#options.onTunnels('closed', closed);
  }
}

const GONE = ['ENOENT', 'ESRCH'];

function isOurs(entry: Neighbour): boolean {
  return Boolean(entry.flags & NTF_EXT_LEARNED) && entry.protocol === ROUTE_PROTOCOL;
}

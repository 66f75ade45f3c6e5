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
import type { Learnt } from '../dataplane.ts';
import { dump } from './dump.ts';
import { Entries, type EntriesOptions } from './entries.ts';
import { Unheard } from './unheard.ts';
import type { Way } from './ways.ts';

/** Times of neighbours are in ticks of so many ms (USER_HZ). */
const TICK = 10;
/** VMs with entries, at most: some 1.5 KB each in the kernel. */
const MAX_VMS = 1 << 17;
/** Requests a second, and at once, for addresses that nobody can have. */
const REFUSALS = 100;
/** VMs that are seen to in one go, before others have their turn. */
const PART = 64;
/** ms until those that were refused too often are refused again. */
const LATER = 100;
/** VMs whose ways are looked at each time, though nothing is known to have changed. */
const ROUND = 16;

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
  /** What the underlay's way to a VM is like now. */
  wayTo: (vm: number) => Way;
  /** Whether packets have come from a VM since its entries were made; true where nobody counts them. */
  isHeard: (vm: number) => boolean;
  /** There are other ways to these VMs. */
  onLearnt: (tunnels: Learnt[]) => void;
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
  /** VMs that have entries in the kernel, and the ways that these tell. */
  readonly #vms = new Map<number, Way>();
  /** Those whose ways are still to be looked at, one after the other, before it begins again. */
  #round = this.#vms.keys();
  /** VMs that were answered since the last comparison began: it may have looked before. */
  readonly #answered = new Set<number>();

  /** Of those that packets had entries made for. */
  readonly #unheard: Unheard;

  /** Addresses of unreachable VMs that are refused together, by their text. */
  readonly #late = new Map<string, Uint8Array>();
  #later: NodeJS.Timeout | undefined;
  /** Ends what goes through all VMs: there may be no time for it. */
  readonly #closing = new AbortController();
  /** Refusals that cost nothing else, and when they were counted, in ms. */
  #tokens = REFUSALS;
  #filled = performance.now();

  constructor(options: NeighboursOptions) {
    this.#options = options;
    this.#entries = new Entries(options);
    this.#unheard = new Unheard(options.isHeard);
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
    const ways = new Map<number, Way>();
    const refusals: Request[] = [];
    const answers: Request[] = [];
    for (const { dst } of asked) {
      if (!dst) continue;
      const vm = this.#entries.vmOf(dst);
      let near = vm;
      if (vm === undefined && !this.#mayRefuse()) {
        near = this.#entries.vmNear(dst);
        // It has its entries, and is asked for all the same.
        if (near !== undefined && this.#vms.get(near)?.unreachable !== undefined) {
          this.#refuseLater(dst);
          continue;
        }
      }
      if (near !== undefined && !ways.has(near) && (this.#vms.has(near) || this.#vms.size + ways.size < MAX_VMS))
        ways.set(near, this.#options.wayTo(near));
      const way = vm === undefined ? undefined : ways.get(vm);
      if (vm === undefined || !way || way.unreachable !== undefined) {
        this.counters.refused++;
        refusals.push(this.#entries.refuse(dst));
        continue;
      }
      this.counters.answered++;
      // The VM's own overlay address is the neighbour that stays.
      if (!this.#entries.isGateway(dst, vm)) answers.push(...this.#entries.answer(dst, vm));
    }
    // Refusals come first: with its entries, a VM's own address is known, and what waits for it would leave.
    this.#try([...refusals, ...[...ways].flatMap(([vm, way]) => this.#entries.install(vm, way)), ...answers]);
    const now = performance.now();
    for (const vm of ways.keys()) {
      this.#answered.add(vm);
      if (!this.#vms.has(vm)) this.#unheard.add(vm, now);
    }
    this.#open(ways);
  }

  /** Until then the kernel asks for it once a second, and packets to it wait. */
  #refuseLater(dst: Uint8Array): void {
    this.#late.set(dst.join('.'), dst.slice());
    this.#later ??= setTimeout(() => {
      this.#later = undefined;
      const due = [...this.#late.values()];
      this.#late.clear();
      this.counters.refused += due.length;
      this.#try(due.map((each) => this.#entries.refuse(each)));
    }, LATER).unref();
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
    const ways = new Map<number, Way>();
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
      if (vm === undefined) {
        wrong.push(this.#entries.removeRoute(entry));
        continue;
      }
      const way = this.#vms.get(vm) ?? this.#options.wayTo(vm);
      ways.set(vm, way);
      if (this.#entries.isLed(entry, vm, way)) note(vm);
      else if (!found.has(vm)) found.set(vm, 0);
    }
    for await (const entry of this.#forwardings()) {
      const vm = this.#entries.vmForwarded(entry.lladdr, entry.dst);
      if (vm !== undefined) note(vm);
    }
    this.#try(wrong);

    // Whatever has some of its entries is to have all.
    const incomplete = [...found].flatMap(([vm, count]) => (count < this.#entries.count(vm) ? [vm] : []));
    const wayOf = (vm: number) => this.#vms.get(vm) ?? ways.get(vm) ?? this.#options.wayTo(vm);
    await this.#inParts(incomplete, (vm) => this.#entries.install(vm, wayOf(vm)));
    const repaired = incomplete.filter((vm) => !this.#answered.has(vm)).length;
    this.counters.repaired += repaired;
    this.#close([...this.#vms.keys()].filter((vm) => !found.has(vm) && !this.#answered.has(vm)));
    this.#open(new Map([...found.keys()].map((vm) => [vm, wayOf(vm)])));
    const ms = Math.round(performance.now() - start);
    this.#options.onResync({ vms: this.#vms.size, repaired, ms });
  }

  /**
   * Looks at the ways to these VMs, or to all, and to a few others in turn, since the kernel does not tell of everything. Entries follow where a way is another
   * than before.
   */
  async follow(vms: readonly number[] | 'all'): Promise<void> {
    const changed: Learnt[] = [];
    const due = vms === 'all' ? [...this.#vms.keys()] : [...vms.filter((vm) => this.#vms.has(vm)), ...this.#next()];
    await this.#inParts(due, (vm) => {
      const [before, way] = [this.#vms.get(vm), this.#options.wayTo(vm)];
      if (!before || (way.pathMtu === before.pathMtu && way.unreachable === before.unreachable)) return [];
      this.#vms.set(vm, way);
      changed.push({ vm, ...way, before });
      return this.#entries.lead(vm, way);
    });
    if (changed.length > 0) this.#options.onLearnt(changed);
  }

  /**
   * Answers no more, and whatever goes through all VMs rejects from now on. Lets the kernel forward again to
   * VMs that were unreachable as soon as there is a way: nobody will tell it.
   */
  async close(): Promise<void> {
    clearTimeout(this.#later);
    this.#closing.abort(new Error('the daemon is ending'));
    const lost = [...this.#vms].flatMap(([vm, { unreachable }]) => (unreachable === undefined ? [] : [vm]));
    for (const part of partsOf(lost)) {
      this.#try(part.flatMap((vm) => this.#entries.lead(vm, {})));
      await turn();
    }
  }

  #next(): number[] {
    const next: number[] = [];
    while (next.length < ROUND) {
      const { value, done } = this.#round.next();
      if (done) {
        this.#round = this.#vms.keys();
        break;
      }
      next.push(value);
    }
    return next;
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

  /** The way that a VM's entries tell: `follow` keeps it as the kernel knows it. */
  wayOf(vm: number): Way {
    return this.#vms.get(vm) ?? {};
  }

  /** Removes VMs that were not sent to for so many ms. */
  async removeIdle(timeout: number): Promise<void> {
    await this.#remove([...(await this.ages())].flatMap(([vm, age]) => (age >= timeout ? [vm] : [])));
  }

  /** Removes VMs that nothing has come from, where there are many. */
  async removeUnheard(): Promise<void> {
    await this.#remove(this.#unheard.take(performance.now()));
  }

  async #remove(vms: readonly number[]): Promise<void> {
    const ways = new Map(vms.map((vm) => [vm, this.#vms.get(vm)]));
    this.#close(vms);
    await this.#inParts(vms, (vm) => this.#entries.remove(vm, ways.get(vm)));
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

  #dump<T>(query: Request, codec: Decoder<T>): AsyncGenerator<T> {
    return dump(this.#options.openNetlink, query, codec, this.#closing.signal);
  }

  async #inParts(vms: readonly number[], requests: (vm: number) => Request[]): Promise<void> {
    for (const part of partsOf(vms)) {
      this.#closing.signal.throwIfAborted();
      this.#try(part.flatMap(requests));
      await turn();
    }
    this.#closing.signal.throwIfAborted();
  }

  /** What has gone meanwhile is no error. */
  #try(requests: readonly Request[]): void {
    for (const error of this.#options.netlink.tryAll(requests)) {
      if (!error || GONE.includes(error.code)) continue;
      this.counters.failed++;
      this.#options.onError(error);
    }
  }

  #open(vms: ReadonlyMap<number, Way>): void {
    const opened = [...vms.keys()].filter((vm) => !this.#vms.has(vm));
    for (const [vm, way] of vms) this.#vms.set(vm, way);
    if (opened.length > 0) this.#options.onTunnels('opened', opened);
  }

  #close(vms: Iterable<number>): void {
    const closed = [...vms].filter((vm) => this.#vms.delete(vm));
    for (const vm of closed) this.#unheard.delete(vm);
    if (closed.length > 0) this.#options.onTunnels('closed', closed);
  }
}

const GONE = ['ENOENT', 'ESRCH'];

function* partsOf(vms: readonly number[]): Generator<number[]> {
  for (let from = 0; from < vms.length; from += PART) yield vms.slice(from, from + PART);
}

function isOurs(entry: Neighbour): boolean {
  return Boolean(entry.flags & NTF_EXT_LEARNED) && entry.protocol === ROUTE_PROTOCOL;
}

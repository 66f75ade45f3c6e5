/** The kernel data plane: the kernel forwards through one device of its own, and the neighbour daemon tells it where to. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Config } from '../../config/config.ts';
import type { DirectionCounters } from '../../core/core.ts';
import type { Tunnel } from '../../core/tunnels.ts';
import { DROP_REASONS } from '../../core/verdict.ts';
import { errorCode, type InlayError } from '../../errors.ts';
import * as native from '../../linux/native.ts';
import type { Message } from '../../linux/netlink/message.ts';
import { Monitor } from '../../linux/netlink/monitor.ts';
import { type Neighbour, neighbour, RTM_GETNEIGH } from '../../linux/netlink/neighbour.ts';
import { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink, routeTowards } from '../../linux/netlink/rtnetlink.ts';
import { NETLINK_ROUTE, openTransport } from '../../linux/netlink/transport.ts';
import type { Log } from '../../log.ts';
import { apply, indexOf } from '../../machine/apply.ts';
import type { Journal } from '../../machine/journal.ts';
import type { NetworkPlan } from '../../machine/steps.ts';
import { ipv4 } from '../../mesh/address.ts';
import { Guard } from '../check/guard.ts';
import { INBOUND, OUTBOUND } from '../check/source-check.ts';
import type { Counters, DataPlane, DataPlaneListeners } from '../dataplane.ts';
import { type Task, taskFor } from './changes.ts';
import { kernelSteps, macOf, vniOf } from './device.ts';
import { type DeviceLock, lockDevice } from './device-lock.ts';
import { GROUPS, monitorFilter } from './monitor-filter.ts';
import { Neighbours } from './neighbours.ts';

/** ms from the first sign that something of ours was changed to putting it right: more of it may be under way. */
const SETTLE = 20;
/** ms until what could not be put right is tried again. */
const RETRY = 1000;
/** VMs that are looked at in one go. */
const PART = 64;
/** ms between two looks for idle VMs, at most. */
const MAX_SWEEP = 15_000;

export interface KernelDataPlaneOptions extends DataPlaneListeners {
  plan: NetworkPlan;
  journal: Journal;
  log: Log;
  /** Bytes of the outer headers. */
  overhead: number;
  /** Told that a device of ours was there already. */
  onAdopt: () => void;
}

/** Makes the device, or takes over what an earlier daemon left, and answers from then on. */
export async function startKernelDataPlane(config: Config, options: KernelDataPlaneOptions): Promise<DataPlane> {
  native.requireLinux64();
  const lock = await lockDevice(config.device);
  const dataPlane = new KernelDataPlane(config, options, lock);
  try {
    await dataPlane.setUp();
  } catch (error) {
    await dataPlane.close();
    throw error;
  }
  return dataPlane;
}

class KernelDataPlane implements DataPlane {
  readonly #lock: DeviceLock;
  readonly #config: Config;
  readonly #options: KernelDataPlaneOptions;
  /** Makes all changes, so that notifications of them are known by its port. */
  readonly #netlink = Netlink.open();
  readonly #guard: Guard;
  #ifindex = 0;
  #monitor: Monitor | undefined;
  #neighbours: Neighbours | undefined;
  #due = new Set<Task>();
  #timer: NodeJS.Timeout | undefined;
  /** When it ends, in ms. */
  #timerAt = 0;
  /** Why the last job failed. */
  #trouble: string | undefined;
  readonly #sweep: NodeJS.Timeout;
  /** What reads or changes the tables as a whole comes one after the other. */
  #work: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(config: Config, options: KernelDataPlaneOptions, lock: DeviceLock) {
    this.#lock = lock;
    this.#config = config;
    this.#options = options;
    const { plan, overhead, journal, log } = options;
    const vni = config.encapsulation === 'vxlan' ? vniOf(config) : undefined;
    this.#guard = new Guard({ plan, vni, overhead, netlink: this.#netlink, journal, log });
    const sweep = Math.min(config.idleTimeout / 4, MAX_SWEEP);
    this.#sweep = setInterval(() => void this.#enqueue(() => this.#removeIdle()), sweep).unref();
  }

  /** Idempotent: what is there stays, what is missing is made. */
  async setUp(): Promise<void> {
    const { plan, journal, log, onAdopt } = this.#options;
    const onChange = (facts: object, what: string) => log.info(facts, what);
    const options = { netlink: this.#netlink, journal, onChange, onAdopt };
    const { make, setUp } = kernelSteps(this.#config, plan);
    apply(make, options);
    this.#attachCheck();
    apply(setUp, options);
    this.#listen(indexOf(this.#netlink, plan.device));
    await this.#neighbours?.resync();
  }

  get status(): DataPlane['status'] {
    const { answered, refused, failed, resyncs, repaired } = this.#neighbours?.counters ?? NOTHING;
    return {
      sourceCheck: this.#guard.check ? 'on' : 'off',
      sourceCheckObstacle: this.#guard.obstacle,
      neighbours: { answered, refused, failed, resyncs, repaired },
    };
  }

  async counters(): Promise<Counters> {
    const { check } = this.#guard;
    const [outbound, inbound] = check
      ? [OUTBOUND, INBOUND].map((which) => countersOf(check.direction(which)))
      : this.#linkCounters();
    return { outbound, inbound, tunnels: this.#neighbours?.count ?? 0 } as Counters;
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const now = performance.now();
    const tunnels: Tunnel[] = [];
    for (const [vm, age] of (await this.#neighbours?.ages()) ?? []) {
      const traffic = this.#guard.check?.vm(vm) ?? { outbound: NO_TRAFFIC, inbound: NO_TRAFFIC };
      tunnels.push({ vm, lastUse: now - age, ...this.#pathMtu(vm), ...traffic });
      if (tunnels.length % PART === 0) await turn();
      if (this.#closed) break;
    }
    return { now, tunnels };
  }

  /** What the kernel has learnt of the way to a VM. */
  #pathMtu(vm: number): { pathMtu?: number } {
    try {
      const pathMtu = routeTowards(this.#netlink, ipv4(vm), this.#options.plan.local).metrics?.mtu;
      return pathMtu === undefined ? {} : { pathMtu };
    } catch {
      return {}; // There is no way any more.
    }
  }

  /** Stops answering. What the kernel has stays, and it goes on forwarding. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sweep);
    clearTimeout(this.#timer);
    this.#monitor?.close();
    await this.#work;
    this.#netlink.close();
    this.#guard.close();
    this.#lock.release();
  }

  #attachCheck(): void {
    if (!this.#guard.attach()) this.#schedule('check', RETRY);
  }

  /** Hears about the device with this index; the one before may have gone. */
  #listen(ifindex: number): void {
    if (ifindex === this.#ifindex) return;
    const { plan, log, onTunnels, onFailure } = this.#options;
    const { mappings, local, device } = plan;
    this.#monitor?.close();
    this.#ifindex = ifindex;
    const counters = this.#neighbours?.counters;
    const neighbours = new Neighbours({
      ...{ mappings, local, device, ifindex, isVxlan: this.#config.encapsulation === 'vxlan' },
      netlink: this.#netlink,
      openNetlink: () => Netlink.open(),
      onTunnels: (change, vms) => {
        if (change === 'closed') for (const vm of vms) this.#guard.check?.forget(vm);
        onTunnels(change, vms);
      },
      onResync: (facts) => log.info(facts, 'compared with the kernel'),
      onError: (error) => {
        log.debug({ error: error.message }, 'the kernel did not take an entry');
        // The device may have gone: what happened is told by a notification, too.
        this.#schedule('resync', RETRY);
      },
    });
    Object.assign(neighbours.counters, counters);
    this.#neighbours = neighbours;
    const transport = openTransport(NETLINK_ROUTE, GROUPS, () => monitorFilter(ifindex, this.#netlink.port));
    this.#monitor = new Monitor(transport, {
      onMessages: (messages) => this.#hear(messages, neighbours),
      onOverrun: () => this.#schedule('overrun', SETTLE),
      onFailure,
    });
  }

  #hear(messages: readonly Message[], neighbours: Neighbours): void {
    const { plan } = this.#options;
    const mac = this.#config.encapsulation === 'vxlan' ? macOf(Number(plan.local.bits)) : undefined;
    const overlay = { ifindex: this.#ifindex, neighbours, marks: this.#guard.marks, plan, mac };
    const asked: Neighbour[] = [];
    for (const message of messages) {
      if (message.type === RTM_GETNEIGH) asked.push(neighbour.get(message.view, message.start, message.end));
      else {
        const task = taskFor(message, overlay);
        if (task) this.#schedule(task, SETTLE);
      }
    }
    if (asked.length > 0) neighbours.answer(asked);
  }

  #schedule(task: Task, delay: number): void {
    if (this.#closed) return;
    this.#due.add(task);
    const at = performance.now() + delay;
    if (this.#timer && at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#enqueue(() => this.#doTasks());
    }, delay);
  }

  async #doTasks(): Promise<void> {
    const due = this.#due;
    this.#due = new Set();
    const { log, plan } = this.#options;
    if (due.has('underlay')) log.warn('the underlay address of this VM has gone: nothing can be sent or received');
    if (due.has('repair') && !this.#trouble)
      log.warn({ device: plan.device }, 'somebody changed our device or routes: putting them right');
    if (due.has('repair') || due.has('overrun')) {
      await this.setUp();
      return;
    }
    if (due.has('check')) this.#attachCheck();
    if (due.has('resync')) await this.#neighbours?.resync();
  }

  async #removeIdle(): Promise<void> {
    await this.#neighbours?.removeIdle(this.#config.idleTimeout);
  }

  /** Runs a job after those before it; one that fails is tried again as a repair. */
  #enqueue(job: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (this.#closed) return;
      try {
        await job();
        this.#trouble = undefined;
      } catch (error) {
        this.#report(error as InlayError);
        this.#schedule('repair', RETRY);
      }
    });
    return this.#work;
  }

  /** Once, however often it is tried again. */
  #report(error: InlayError): void {
    const { message, hint } = error;
    if (message === this.#trouble) return;
    this.#trouble = message;
    const facts = { error: message, hint, code: errorCode(error) };
    this.#options.log.error(facts, 'the kernel cannot be set up; trying again');
  }

  /** Without programs that count, what the device says. */
  #linkCounters(): DirectionCounters[] {
    const {
      txPackets = 0,
      txBytes = 0,
      rxPackets = 0,
      rxBytes = 0,
    } = findLink(this.#netlink, this.#ifindex)?.stats ?? {};
    return [countersOf({ packets: txPackets, bytes: txBytes }), countersOf({ packets: rxPackets, bytes: rxBytes })];
  }
}

const NOTHING = { answered: 0, refused: 0, failed: 0, resyncs: 0, repaired: 0 };
const NO_TRAFFIC = { packets: 0, bytes: 0 };

function countersOf({
  packets,
  bytes,
  drops,
}: {
  packets: number;
  bytes: number;
  drops?: number[];
}): DirectionCounters {
  const all = drops ?? Array.from({ length: DROP_REASONS.length + 1 }, () => 0);
  return {
    received: packets + all.reduce((sum, count) => sum + count, 0),
    forwarded: packets,
    bytes,
    drops: all,
    ...{ replies: 0, suppressed: 0, anomalies: 0 },
  };
}

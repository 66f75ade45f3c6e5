/** The kernel data plane: the kernel forwards through one device of its own, and the neighbour daemon tells it where to. */
import { setImmediate as turn } from 'node:timers/promises';
import type { Config } from '../../config/config.ts';
import { overhead } from '../../core/config.ts';
import type { DirectionCounters } from '../../core/counters.ts';
import type { Tunnel } from '../../core/tunnels.ts';
import { DROP_REASONS } from '../../core/verdict.ts';
import * as native from '../../linux/native.ts';
import type { Message } from '../../linux/netlink/message.ts';
import { Monitor } from '../../linux/netlink/monitor.ts';
import { type Neighbour, neighbour, RTM_GETNEIGH } from '../../linux/netlink/neighbour.ts';
import { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import { NETLINK_ROUTE, openTransport } from '../../linux/netlink/transport.ts';
import { type LimitedLog, limitedLog } from '../../log-limit.ts';
import type { Outcome, Trouble } from '../../machine/machine.ts';
import type { NetworkPlan, Thing } from '../../machine/state.ts';
import { Checkpoints } from '../check/checkpoints.ts';
import { INBOUND, OUTBOUND } from '../check/source-check.ts';
import {
  type Counters,
  type DataPlane,
  type DataPlaneKind,
  type DataPlaneOptions,
  type DataPlaneStatus,
  sweepInterval,
} from '../dataplane.ts';
import { isAboutVms } from './changes.ts';
import { kernelThings, VXLAN_OVERHEAD, vniOf } from './device.ts';
import { GROUPS, monitorFilter } from './monitor-filter.ts';
import { Neighbours } from './neighbours.ts';
import { kernelRemarks } from './remarks.ts';
import { Ways } from './ways.ts';

/** ms from the first sign that something was changed to a comparison: more of it may be under way. */
const SETTLE = 20;
/** ms until what the kernel did not take is tried again. */
const RETRY = 1000;
/** VMs that are looked at in one go. */
const PART = 64;
/** ms between two looks for VMs that were never heard from. */
const UNHEARD_SWEEP = 1000;

export const kind: DataPlaneKind = {
  capabilities: ['CAP_NET_ADMIN'],
  // The kernel then checks sources.
  wanted: ['CAP_BPF'],
  usesTun: false,
  lasts: true,
  overhead: (config) => (config.encapsulation === 'vxlan' ? VXLAN_OVERHEAD : overhead(config.encapsulation, config)),
  things: (config, plan) => kernelThings(config, plan, []),
  remarks: kernelRemarks,
  create: (config, options) => new KernelDataPlane(config, options),
};

/** Removes some VMs. */
type Sweep = (neighbours: Neighbours) => Promise<void>;

class KernelDataPlane implements DataPlane {
  readonly #config: Config;
  readonly #options: DataPlaneOptions;
  /** Whoever sends to many addresses can have the kernel lose notifications and refuse entries, again and again. */
  readonly #limited: LimitedLog;
  readonly #checkpoints: Checkpoints;
  readonly #ways: Ways;
  #plan: NetworkPlan;
  #ifindex = 0;
  #monitor: Monitor | undefined;
  #neighbours: Neighbours | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** When it ends, in ms. */
  #timerAt = 0;
  readonly #sweeps: readonly NodeJS.Timeout[];
  readonly #isSweeping = new Set<Sweep>();
  #isFollowing = false;
  /** What reads or changes the entries of all VMs comes one after the other. */
  #work: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(config: Config, options: DataPlaneOptions) {
    native.requireLinux64();
    const { plan, machine, log } = options;
    this.#config = config;
    this.#options = options;
    this.#limited = limitedLog(log);
    this.#plan = plan;
    const vni = config.encapsulation === 'vxlan' ? vniOf(config) : undefined;
    this.#checkpoints = new Checkpoints({ plan, vni, overhead: kind.overhead(config), netlink: machine.netlink, log });
    this.#ways = new Ways({
      ...{ netlink: machine.netlink, openNetlink: () => Netlink.open(), plan, overhead: kind.overhead(config) },
      pathMtuDiscovery: config.pathMtuDiscovery,
    });
    const sweep = (work: Sweep, interval: number) => setInterval(() => void this.#remove(work), interval).unref();
    this.#sweeps = [
      sweep((neighbours) => neighbours.removeIdle(config.idleTimeout), sweepInterval(config)),
      sweep((neighbours) => neighbours.removeUnheard(), UNHEARD_SWEEP),
    ];
  }

  get status(): DataPlaneStatus {
    const { answered, refused, failed, resyncs, repaired } = this.#neighbours?.counters ?? NOTHING;
    return {
      sourceCheck: this.#checkpoints.check ? 'on' : 'off',
      sourceCheckObstacle: this.#checkpoints.obstacle,
      neighbours: { answered, refused, failed, resyncs, repaired },
    };
  }

  get troubles(): readonly Trouble[] {
    return this.#checkpoints.troubles;
  }

  get links(): readonly number[] {
    return [...this.#checkpoints.links, ...this.#ways.links];
  }

  /** The kernel has all that there is to hold. */
  async prepare(plan: NetworkPlan): Promise<undefined> {
    this.#plan = plan;
    this.#ways.follow(plan);
  }

  things(): Thing[] {
    return kernelThings(this.#config, this.#plan, this.#checkpoints.filters());
  }

  /** Compares remote VMs with the kernel where something was not as it should be: their entries may have gone with the device. */
  async settle(outcome: Outcome): Promise<void> {
    this.#checkpoints.settle(outcome);
    const ifindex = this.#options.machine.links.get(this.#plan.device);
    if (ifindex === undefined) return;
    const isOther = ifindex !== this.#ifindex;
    if (isOther) this.#listen(ifindex);
    if (isOther || outcome.repaired.length > 0) await this.#resync();
    this.#followWays();
  }

  concerns(message: Message): boolean {
    const isWay = this.#ways.concerns(message);
    return this.#checkpoints.concerns(message) || isWay;
  }

  reload(): void {
    this.#checkpoints.reload();
    this.#ways.reload();
  }

  async counters(): Promise<Counters> {
    const { check } = this.#checkpoints;
    const [outbound, inbound] = check
      ? [OUTBOUND, INBOUND].map((which) => countersOf(check.direction(which)))
      : this.#linkCounters();
    return { outbound, inbound, tunnels: this.#neighbours?.count ?? 0 } as Counters;
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const now = performance.now();
    const tunnels: Tunnel[] = [];
    const neighbours = this.#neighbours;
    for (const [vm, age] of (await neighbours?.ages()) ?? []) {
      const traffic = this.#checkpoints.check?.vm(vm) ?? { outbound: NO_TRAFFIC, inbound: NO_TRAFFIC };
      tunnels.push({ vm, lastUse: now - age, ...neighbours?.wayOf(vm), ...traffic });
      if (tunnels.length % PART === 0) await turn();
      if (this.#closed) break;
    }
    const { check, obstacle } = this.#checkpoints;
    return { now, tunnels, uncounted: check ? undefined : (obstacle ?? 'no program counts them') };
  }

  /** Stops answering. What the kernel has stays, and it goes on forwarding. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const timer of this.#sweeps) clearInterval(timer);
    clearTimeout(this.#timer);
    this.#monitor?.close();
    // Ends what is under way, too.
    await this.#neighbours?.close();
    await this.#work;
    this.#checkpoints.close();
  }

  /** Hears about the device with this index; the one before may have gone. */
  #listen(ifindex: number): void {
    const { machine, onTunnels, onLearnt, onDue } = this.#options;
    const { mappings, local, device } = this.#plan;
    this.#monitor?.close();
    this.#ifindex = ifindex;
    const counters = this.#neighbours?.counters;
    const neighbours = new Neighbours({
      ...{ mappings, local, device, ifindex, isVxlan: this.#config.encapsulation === 'vxlan' },
      overhead: kind.overhead(this.#config),
      wayTo: (vm) => this.#ways.to(vm),
      isHeard: (vm) => this.#checkpoints.check?.isHeard(vm) ?? true,
      onLearnt,
      netlink: machine.netlink,
      openNetlink: () => Netlink.open(),
      onTunnels: (change, vms) => {
        if (change === 'closed') for (const vm of vms) this.#checkpoints.check?.forget(vm);
        onTunnels(change, vms);
      },
      onResync: (facts) => this.#limited('info', 'compared', facts, 'compared with the kernel'),
      onError: (error) => {
        this.#limited('debug', 'not taken', { error: error.message }, 'the kernel did not take an entry');
        // The device may have gone just now.
        onDue();
        this.#scheduleResync(RETRY);
      },
    });
    Object.assign(neighbours.counters, counters);
    this.#neighbours = neighbours;
    const transport = openTransport(NETLINK_ROUTE, GROUPS, () => monitorFilter(ifindex, machine.netlink.port));
    const lost = () => this.#scheduleResync(SETTLE);
    this.#monitor = new Monitor(transport, {
      onMessages: (messages) => this.#hear(messages, neighbours),
      onOverrun: lost,
      onFailure: () => {
        // With another index, the next look listens anew.
        this.#ifindex = 0;
        onDue();
      },
    });
  }

  #hear(messages: readonly Message[], neighbours: Neighbours): void {
    const asked: Neighbour[] = [];
    for (const message of messages) {
      if (message.type === RTM_GETNEIGH) asked.push(neighbour.get(message.view, message.start, message.end));
      else if (isAboutVms(message, this.#ifindex, neighbours)) this.#scheduleResync(SETTLE);
    }
    if (asked.length > 0) neighbours.answer(asked);
  }

  #scheduleResync(delay: number): void {
    if (this.#closed) return;
    const at = performance.now() + delay;
    if (this.#timer && at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#resync();
    }, delay);
  }

  /** The ways of many VMs take a while, and nothing else waits for them. */
  #followWays(): void {
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    void this.#enqueue(() => this.#ways.look(async (vms) => this.#neighbours?.follow(vms))).then(() => {
      this.#isFollowing = false;
    });
  }

  #resync(): Promise<void> {
    return this.#enqueue(async () => this.#neighbours?.resync());
  }

  async #remove(work: Sweep): Promise<void> {
    if (this.#isSweeping.has(work)) return;
    this.#isSweeping.add(work);
    await this.#enqueue(async () => this.#neighbours && work(this.#neighbours));
    this.#isSweeping.delete(work);
  }

  /** Runs a job after those before it; one that fails is followed by a comparison. */
  #enqueue(job: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (this.#closed) return;
      try {
        await job();
      } catch (error) {
        if (this.#closed) return;
        const { message } = error as Error;
        this.#limited('debug', 'not read', { error: message }, 'the entries of VMs could not be read');
        this.#scheduleResync(RETRY);
      }
    });
    return this.#work;
  }

  /** Without programs that count, what the device says. */
  #linkCounters(): DirectionCounters[] {
    const found = findLink(this.#options.machine.netlink, this.#ifindex);
    const { txPackets = 0, txBytes = 0, rxPackets = 0, rxBytes = 0 } = found?.stats ?? {};
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

/**
 * The fast path around a data plane: it has the kernel carry what it can past the one below, counts both ways together, and says
 * when it does not. The data plane below stays the authority on tunnels: it opens, keeps and closes them, and hears of each now
 * and then by a packet of each direction that goes its ordinary way.
 */
import type { Config } from '../../config/config.ts';
import type { DirectionCounters } from '../../core/counters.ts';
import { bpfObstacle } from '../../linux/bpf/obstacle.ts';
import type { Message } from '../../linux/netlink/message.ts';
import { type LimitedLog, limitedLog } from '../../log-limit.ts';
import type { Outcome, Trouble } from '../../machine/machine.ts';
import type { NetworkPlan, Thing } from '../../machine/state.ts';
import type {
  Counters,
  DataPlane,
  DataPlaneOptions,
  DataPlaneStatus,
  FastPathStatus,
  Learnt,
  OpenTunnel,
  Traffic,
} from '../dataplane.ts';
import { FastContainers } from './containers.ts';
import { Loaded } from './loaded.ts';
import { type Obstacle, Obstacles, type Uplink } from './obstacles.ts';
import { UplinkFilter } from './uplink-filter.ts';

/** ms between two looks at all tunnels, at most. */
const MAX_SWEEP = 15_000;
/** ms until programs that the kernel did not take are tried again. */
const RETRY = 60_000;
/** ms since a packet came on the fast path, in which its VM can be reached, whatever else is said. */
const OF_LATE = 3000;
/** Bytes that no packet keeps within: all go their ordinary way, where senders are told what is in the way. */
const NO_PACKET = 1;
const NO_TRAFFIC: Traffic = { packets: 0, bytes: 0 };

export interface FastPathOptions {
  config: Config;
  /** Those of the data plane below. */
  options: DataPlaneOptions;
  /** Bytes of all headers around a packet. */
  overhead: number;
  /** Makes the data plane below. */
  create: (options: DataPlaneOptions) => DataPlane;
}

/** What of a tunnel the last look has seen. */
interface Seen {
  /** Packets that the data plane below got from the VM. */
  received: number;
  /** Packets that the fast path took to the VM and from it, and when the last of each was seen, in ms. */
  sent: number;
  sentAt: number;
  heard: number;
  heardAt: number;
}

export class FastPath implements DataPlane {
  readonly #config: Config;
  readonly #options: DataPlaneOptions;
  readonly #overhead: number;
  readonly #inner: DataPlane;
  readonly #obstacles: Obstacles;
  readonly #limited: LimitedLog;
  readonly #sweep: NodeJS.Timeout;
  #plan: NetworkPlan;
  #loaded: Loaded | undefined;
  #containers: FastContainers | undefined;
  /** Why programs or maps could not be loaded, and when that is tried again, in ms. */
  #failure: Obstacle | undefined;
  #nextTry = 0;
  /** Why the kernel did not take the filter at the uplink. */
  #refusal: Obstacle | undefined;
  #filter: UplinkFilter | undefined;
  /** The device that leads to other VMs, or did last. */
  #uplink: Uplink | undefined;
  #obstacle: Obstacle | undefined;
  #isOn = false;
  /** What the log has told. */
  #told: string | undefined;
  #seen = new Map<number, Seen>();
  #closed = false;

  constructor({ config, options, overhead, create }: FastPathOptions) {
    this.#config = config;
    this.#options = options;
    this.#overhead = overhead;
    this.#plan = options.plan;
    this.#limited = limitedLog(options.log);
    this.#inner = create({
      ...options,
      onTunnels: (change, vms) => {
        // What is attached goes on when this process ends.
        if (change === 'closed' && !this.#closed) for (const vm of vms) this.#loaded?.state.forget(vm);
        options.onTunnels(change, vms);
      },
      onLearnt: (tunnels) => {
        for (const tunnel of tunnels) this.#follow(tunnel);
        options.onLearnt(tunnels);
      },
    });
    this.#obstacles = new Obstacles({
      ...{ config, machine: options.machine },
      plan: () => this.#plan,
      onChange: () => {
        // A look 20 ms later could be too late: plain text must never leave where it is to be encrypted.
        this.#decide();
        options.onDue();
      },
    });
    this.#sweep = setInterval(() => void this.#renew(), Math.min(config.idleTimeout / 4, MAX_SWEEP)).unref();
    this.#decide();
  }

  get status(): DataPlaneStatus {
    const { outbound, inbound, local } = this.#loaded?.state.counts() ?? NO_COUNTS;
    const obstacle = this.#isOn ? undefined : this.#obstacle?.what;
    const fastPath: FastPathStatus = {
      state: this.#isOn ? 'on' : 'off',
      ...(obstacle !== undefined && { obstacle }),
      ...{ containers: this.#isOn ? (this.#containers?.count ?? 0) : 0, outbound, inbound, local },
    };
    return { ...this.#inner.status, fastPath };
  }

  get troubles(): readonly Trouble[] {
    const isWanted = this.#config.fastPath === 'on' && !this.#isOn && this.#obstacle;
    return [...this.#inner.troubles, ...(isWanted ? [{ what: offText(isWanted) }] : [])];
  }

  get links(): readonly number[] {
    return [...this.#inner.links, ...(this.#filter?.links ?? [])];
  }

  async prepare(plan: NetworkPlan): Promise<string | undefined> {
    this.#plan = plan;
    this.#decide();
    return await this.#inner.prepare(plan);
  }

  things(): Thing[] {
    return [...this.#inner.things(), ...(this.#filter?.things() ?? [])];
  }

  async settle(outcome: Outcome): Promise<void> {
    const refused = this.#filter?.refused(outcome);
    const hasChanged = refused?.message !== this.#refusal?.what;
    this.#refusal = refused && { what: refused.message, mayBePassed: false };
    if (hasChanged) this.#decide();
    await this.#inner.settle(outcome);
    // What a new program does not take at once, the data plane below forwards by now.
    if (!this.#filter?.isTaken) this.#containers?.look();
  }

  concerns(message: Message): boolean {
    this.#containers?.hear(message);
    const isWay = this.#obstacles.concerns(message);
    return this.#inner.concerns(message) || isWay;
  }

  reload(): void {
    this.#containers?.reload();
    this.#obstacles.reload();
    this.#inner.reload();
  }

  /** What the fast path took was received and forwarded. */
  async counters(): Promise<Counters> {
    const counters = await this.#inner.counters();
    const taken = this.#loaded?.state.counts() ?? NO_COUNTS;
    return {
      ...counters,
      outbound: plus(counters.outbound, taken.outbound),
      inbound: plus(counters.inbound, taken.inbound),
    };
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const found = await this.#inner.tunnels();
    const seen = new Map<number, Seen>();
    const tunnels = found.tunnels.map((tunnel) => this.#together(tunnel, found.now, seen));
    this.#seen = seen;
    return { ...found, tunnels };
  }

  /** What is attached stays, and goes on between containers and the VMs that have been heard. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sweep);
    this.#loaded?.state.leave();
    this.#obstacles.close();
    await this.#inner.close();
    this.#unload();
  }

  /** Looks at what is in the way, and tells the programs at once. */
  #decide(): void {
    if (this.#closed) return;
    const { uplink, obstacle: found } = this.#obstacles.look();
    const obstacle = found ?? (uplink ? undefined : NO_UPLINK);
    const isPassed = !obstacle || (this.#config.fastPath === 'on' && obstacle.mayBePassed);
    if (uplink) this.#uplink = uplink;
    if (isPassed) this.#load();
    if (uplink) this.#filter?.follow(uplink);
    const failure = this.#failure ?? this.#refusal ?? (this.#filter?.isTaken ? TAKEN : undefined);
    this.#isOn = isPassed && this.#loaded !== undefined && uplink !== undefined && !failure;
    this.#obstacle = isPassed ? failure : obstacle;
    this.#loaded?.state.set({ enabled: this.#isOn, uplink: uplink?.index ?? 0, limit: this.#plan.mtu });
    this.#tell();
  }

  /** Loads programs and maps where they are missing, and fills the maps before any program sees a packet. */
  #load(): void {
    if (this.#loaded || performance.now() < this.#nextTry) return;
    try {
      const loaded = new Loaded(this.#config, this.#plan);
      const { machine, log } = this.#options;
      const { mappings, local, device } = this.#plan;
      this.#loaded = loaded;
      this.#failure = undefined;
      this.#filter = new UplinkFilter(machine, loaded.inbound);
      this.#containers = new FastContainers({
        ...{ netlink: machine.netlink, state: loaded.state, program: loaded.outbound, mappings, local, log },
        overlay: () => machine.links.get(device),
        uplinks: () => (this.#uplink ? [this.#uplink.index] : []),
      });
    } catch (error) {
      this.#unload();
      this.#failure = { what: bpfObstacle(error), mayBePassed: false };
      this.#nextTry = performance.now() + RETRY;
    }
  }

  /** What is attached stays. */
  #unload(): void {
    this.#containers?.close();
    this.#loaded?.close();
    this.#containers = this.#filter = this.#loaded = undefined;
  }

  #tell(): void {
    const words = this.#isOn ? `on at ${this.#uplink?.name}` : `off: ${this.#obstacle?.what}`;
    if (words === this.#told) return;
    const isFirst = this.#told === undefined;
    this.#told = words;
    if (this.#isOn) this.#limited('info', 'on', { uplink: this.#uplink?.name }, 'the fast path is on');
    else if (this.#obstacle)
      this.#limited(isFirst ? 'info' : 'warn', 'off', { obstacle: this.#obstacle.what }, 'the fast path is off');
  }

  /**
   * What the data plane below has learnt of the way to a VM. A VM that is heard on the fast path can be reached,
   * though its daemon may have ended.
   */
  #follow({ vm, pathMtu, unreachable }: Pick<Learnt, 'vm' | 'pathMtu' | 'unreachable'>): void {
    const state = this.#loaded?.state;
    if (!state) return;
    const isLost = unreachable !== undefined && !this.#isHeard(vm);
    const limit = pathMtu === undefined ? 0 : Math.max(pathMtu - this.#overhead, NO_PACKET);
    state.limit(vm, isLost ? NO_PACKET : limit);
    // The next packet from the VM shows the data plane below that it can be reached again.
    if (isLost) state.renew(vm);
  }

  /** Whether the fast path has taken something from a VM of late. */
  #isHeard(vm: number): boolean {
    const { packets } = this.#loaded?.state.traffic(vm).inbound ?? NO_TRAFFIC;
    const { heard = 0, heardAt = -Infinity } = this.#seen.get(vm) ?? {};
    return packets > heard || performance.now() - heardAt < OF_LATE;
  }

  #together(tunnel: OpenTunnel, now: number, seen: Map<number, Seen>): OpenTunnel {
    const state = this.#loaded?.state;
    if (!state) return tunnel;
    const { vm } = tunnel;
    const before = this.#seen.get(vm);
    const fastPath = state.traffic(vm);
    const received = tunnel.inbound.packets;
    const [sent, heard] = [fastPath.outbound.packets, fastPath.inbound.packets];
    const sentAt = sent > (before?.sent ?? 0) ? now : (before?.sentAt ?? -Infinity);
    const heardAt = heard > (before?.heard ?? 0) ? now : (before?.heardAt ?? -Infinity);
    const { unreachable, ...rest } = tunnel;
    const isLost = unreachable !== undefined && !this.#isHeard(vm);
    this.#follow(tunnel);
    seen.set(vm, { received, sent, sentAt, heard, heardAt });
    if (received > (before?.received ?? 0)) state.hear(vm);
    return {
      ...rest,
      ...(isLost && { unreachable }),
      lastUse: Math.max(tunnel.lastUse, sentAt, heardAt),
      outbound: sum(tunnel.outbound, fastPath.outbound),
      inbound: sum(tunnel.inbound, fastPath.inbound),
      fastPath,
    };
  }

  /** Lets the data plane below hear of all tunnels that are in use, so that it does not close them. */
  async #renew(): Promise<void> {
    await this.tunnels().catch(() => {});
    this.#loaded?.state.renew();
  }
}

const NO_COUNTS = { outbound: NO_TRAFFIC, inbound: NO_TRAFFIC, local: NO_TRAFFIC };
const NO_UPLINK: Obstacle = { what: 'no device leads to other VMs', mayBePassed: false };
const TAKEN: Obstacle = { what: 'another Inlay daemon has its program at the underlay device', mayBePassed: false };

function offText({ what }: Obstacle): string {
  return `the fast path is off: ${what}`;
}

function plus(counters: DirectionCounters, { packets, bytes }: Traffic): DirectionCounters {
  return {
    ...counters,
    received: counters.received + packets,
    forwarded: counters.forwarded + packets,
    bytes: counters.bytes + bytes,
  };
}

function sum(a: Traffic, b: Traffic): Traffic {
  return { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
}

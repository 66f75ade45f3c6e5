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
import { hasAddress } from '../../machine/underlay.ts';
import { formatAddress } from '../../mesh/address.ts';
import {
  type Counters,
  type DataPlane,
  type DataPlaneOptions,
  type DataPlaneStatus,
  type FastPathStatus,
  sweepInterval,
  type Traffic,
} from '../dataplane.ts';
import { FastContainers } from './containers/containers.ts';
import { Loaded, receivedBy } from './loaded.ts';
import { cannot } from './obstacles/obstacle.ts';
import { Obstacles } from './obstacles/obstacles.ts';
import type { FastPathState } from './state.ts';
import { FastTunnels, sum } from './tunnels.ts';
import { UplinkFilter } from './uplink-filter.ts';

/** ms until programs that the kernel did not take are tried again. */
const RETRY = 60_000;
/** Parts of all tunnels, of which one after the other is renewed. */
const TURNS = 30;
const NO_TRAFFIC: Traffic = { packets: 0, bytes: 0 };
const NO_COUNTS: Counts = { outbound: NO_TRAFFIC, inbound: NO_TRAFFIC, local: NO_TRAFFIC };

export interface FastPathOptions {
  config: Config;
  /** Those of the data plane below. */
  options: DataPlaneOptions;
  /** Bytes of all headers around a packet. */
  overhead: number;
  /** Makes the data plane below. */
  create: (options: DataPlaneOptions) => DataPlane;
}

type Counts = ReturnType<FastPathState['counts']>;

/** What is loaded into the kernel, and what keeps it as it should be. */
interface Running {
  loaded: Loaded;
  containers: FastContainers;
  tunnels: FastTunnels;
}

export class FastPath implements DataPlane {
  readonly #config: Config;
  readonly #options: DataPlaneOptions;
  readonly #overhead: number;
  readonly #inner: DataPlane;
  readonly #obstacles: Obstacles;
  readonly #limited: LimitedLog;
  readonly #sweep: NodeJS.Timeout;
  #turn = 0;
  #plan: NetworkPlan;
  readonly #filter: UplinkFilter;
  #running: Running | undefined;
  /** What programs took that are not ours any more. */
  #past: Counts = NO_COUNTS;
  /** Why programs or maps could not be loaded, and when that is tried again, in ms. */
  #failure: string | undefined;
  #nextTry = 0;
  /** Why the kernel did not take the filter at the underlay's device. */
  #refusal: string | undefined;
  #obstacle: string | undefined;
  #isOn = false;
  /** What the log has told. */
  #told: string | undefined;
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
        if (change === 'closed' && !this.#closed) for (const vm of vms) this.#running?.tunnels.forget(vm);
        options.onTunnels(change, vms);
      },
      onLearnt: (tunnels) => {
        for (const tunnel of tunnels) this.#running?.tunnels.follow(tunnel);
        options.onLearnt(tunnels);
      },
    });
    this.#filter = new UplinkFilter(options.machine);
    this.#obstacles = new Obstacles({
      ...{ config, machine: options.machine },
      plan: () => this.#plan,
      containers: () => this.#running?.containers.deviceNames() ?? [],
      receives: receivedBy(config),
      onChange: () => {
        // A look 20 ms later could be too late: plain text must never leave where it is to be encrypted.
        this.#decide();
        options.onDue();
      },
    });
    this.#sweep = setInterval(() => void this.#renew(), sweepInterval(config) / TURNS).unref();
    this.#decide();
  }

  get status(): DataPlaneStatus {
    const { outbound, inbound, local } = this.#counts;
    const fastPath: FastPathStatus = {
      state: this.#isOn ? 'on' : 'off',
      ...(this.#obstacle !== undefined && { obstacle: this.#obstacle }),
      containers: this.#isOn ? (this.#running?.containers.count ?? 0) : 0,
      ...{ outbound, inbound, local },
    };
    return { ...this.#inner.status, fastPath };
  }

  get troubles(): readonly Trouble[] {
    const isMissed = this.#config.fastPath === 'on' && this.#obstacle !== undefined;
    const off: Trouble[] = isMissed ? [{ what: `the fast path is off: ${this.#obstacle}` }] : [];
    return [...this.#inner.troubles, ...off];
  }

  get links(): readonly number[] {
    const { uplink } = this.#filter;
    return [...this.#inner.links, ...(uplink ? [uplink.index] : [])];
  }

  async prepare(plan: NetworkPlan): Promise<string | undefined> {
    this.#plan = plan;
    this.#decide();
    return await this.#inner.prepare(plan);
  }

  things(): Thing[] {
    const { loaded, containers } = this.#running ?? {};
    return [
      ...this.#inner.things(),
      ...(loaded && containers ? this.#filter.things(loaded.inbound, containers.isFilled || !this.#isOn) : []),
    ];
  }

  async settle(outcome: Outcome): Promise<void> {
    const refusal = this.#filter.refused(outcome)?.message;
    const hasChanged = refusal !== this.#refusal;
    this.#refusal = refusal;
    if (hasChanged) this.#decide();
    await this.#inner.settle(outcome);
    // What a new program does not take at once, the data plane below forwards by now.
    this.#running?.containers.look();
  }

  concerns(message: Message): boolean {
    this.#running?.containers.hear(message);
    const isWay = this.#obstacles.concerns(message);
    return this.#inner.concerns(message) || isWay;
  }

  reload(): void {
    this.#running?.containers.reload();
    this.#obstacles.reload();
    this.#inner.reload();
  }

  /** What the fast path took was received and forwarded. */
  async counters(): Promise<Counters> {
    const counters = await this.#inner.counters();
    const taken = this.#counts;
    return {
      ...counters,
      outbound: plus(counters.outbound, taken.outbound),
      inbound: plus(counters.inbound, taken.inbound),
    };
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const found = await this.#inner.tunnels();
    const { now, tunnels } = found;
    return { ...found, tunnels: this.#running?.tunnels.together(tunnels, now) ?? tunnels };
  }

  /** What is attached stays, and goes on between containers and the VMs that have been heard. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#sweep);
    this.#state?.leave();
    this.#obstacles.close();
    await this.#inner.close();
    this.#unload();
  }

  get #counts(): Counts {
    const now = this.#state?.counts();
    if (!now) return this.#past;
    const { outbound, inbound, local } = this.#past;
    return {
      outbound: sum(outbound, now.outbound),
      inbound: sum(inbound, now.inbound),
      local: sum(local, now.local),
    };
  }

  get #state(): FastPathState | undefined {
    return this.#running?.loaded.state;
  }

  /** Looks at what is in the way, and tells the programs at once. */
  #decide(): void {
    if (this.#closed) return;
    const { uplink, obstacle, isTaken } = this.#look();
    const goesPast = !obstacle || (this.#config.fastPath === 'on' && obstacle.mayGoPast);
    if (isTaken) this.#giveUp();
    else if (goesPast) this.#load();
    const failure = isTaken ? TAKEN : (this.#failure ?? this.#refusal);
    this.#obstacle = goesPast ? failure : obstacle?.what;
    this.#isOn = this.#obstacle === undefined && this.#running !== undefined;
    const { index = 0, nextHop } = uplink ?? {};
    this.#state?.set({ enabled: this.#isOn, uplink: index, limit: this.#plan.mtu, nextHop });
    this.#tell();
  }

  /**
   * Whatever cannot be found out is in the way: notifications end in this, too, and what they threw would end the
   * daemon.
   */
  #look(): ReturnType<Obstacles['look']> & { isTaken?: boolean } {
    const { local } = this.#plan;
    try {
      if (!hasAddress(this.#options.machine.netlink, local))
        return { obstacle: cannot(`underlay address ${formatAddress(local)} has gone`) };
      const found = this.#obstacles.look();
      if (found.uplink) this.#filter.follow(found.uplink);
      const isTaken = this.#filter.isTaken(this.#running?.loaded.inboundId);
      return found.uplink || found.obstacle
        ? { ...found, isTaken }
        : { obstacle: cannot('no device leads to other VMs'), isTaken };
    } catch (error) {
      return { obstacle: cannot((error as Error).message) };
    }
  }

  /** Loads programs and maps where they are missing, and fills the maps before any program sees a packet. */
  #load(): void {
    if (this.#running || performance.now() < this.#nextTry) return;
    const { machine, log } = this.#options;
    const { mappings, local, device } = this.#plan;
    let loaded: Loaded | undefined;
    try {
      loaded = new Loaded(this.#config, this.#plan);
      const containers = new FastContainers({
        ...{ netlink: machine.netlink, state: loaded.state, program: loaded.outbound, mappings, local, log },
        overlay: () => machine.links.get(device),
        uplinks: () => (this.#filter.uplink ? [this.#filter.uplink.index] : []),
        onFilled: () => this.#options.onDue(),
      });
      this.#running = { loaded, containers, tunnels: new FastTunnels(loaded.state, this.#overhead) };
      this.#failure = undefined;
    } catch (error) {
      loaded?.close();
      this.#failure = bpfObstacle(error);
      this.#nextTry = performance.now() + RETRY;
    }
  }

  /** What is attached stays, but takes nothing any more. */
  #giveUp(): void {
    const state = this.#state;
    if (!state) return;
    state.set({ enabled: false, uplink: 0, limit: 0 });
    this.#past = this.#counts;
    this.#unload();
  }

  /** What is attached stays. */
  #unload(): void {
    this.#running?.containers.close();
    this.#running?.loaded.close();
    this.#running = undefined;
  }

  #tell(): void {
    const words = this.#obstacle ?? 'on';
    if (words === this.#told) return;
    const isFirst = this.#told === undefined;
    this.#told = words;
    if (this.#obstacle === undefined)
      this.#limited('info', 'on', { uplink: this.#filter.uplink?.name }, 'the fast path is on');
    else this.#limited(isFirst ? 'info' : 'warn', 'off', { obstacle: this.#obstacle }, 'the fast path is off');
  }

  /**
   * Lets the data plane below hear of the tunnels that are in use, so that it does not close them: of each once in a sweep, and of
   * one part after the other, because each sends a packet the ordinary way then.
   */
  async #renew(): Promise<void> {
    if (!this.#running) return;
    const turn = this.#turn;
    this.#turn = (turn + 1) % TURNS;
    if (turn === 0) await this.tunnels().catch(() => {});
    this.#state?.renewEvery(TURNS, turn);
  }
}

const TAKEN = 'another Inlay daemon has its program at the underlay device';

function plus(counters: DirectionCounters, { packets, bytes }: Traffic): DirectionCounters {
  return {
    ...counters,
    received: counters.received + packets,
    forwarded: counters.forwarded + packets,
    bytes: counters.bytes + bytes,
  };
}

/** The wasm data plane: packets cross this process, from a TUN device through the packet core to a socket, and back. */
import type { Config } from '../../config/config.ts';
import { type CoreConfig, overhead } from '../../core/config.ts';
import type { CoreName } from '../../core/core.ts';
import { InlayError } from '../../errors.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import type { Outcome } from '../../machine/machine.ts';
import type { NetworkPlan, Thing } from '../../machine/state.ts';
import { existsAlready, isLeftOver } from '../../machine/things/link.ts';
import {
  addCounters,
  addRefused,
  type Counters,
  type DataPlane,
  type DataPlaneKind,
  type DataPlaneOptions,
  type DataPlaneStatus,
} from '../dataplane.ts';
import { DropLog } from '../drop-log.ts';
import { encapsulationOf, outerEcnOf } from '../wire-format.ts';
import type { Engine } from './engine.ts';
import { startEngine } from './engines.ts';
import { wasmObstacle } from './load-core.ts';
import { wasmThings } from './things.ts';

/** ms until an engine that could not be started is tried again: the first time, and at most. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

export const kind: DataPlaneKind = {
  capabilities: ['CAP_NET_ADMIN', 'CAP_NET_RAW'],
  // The kernel then cuts super-packets.
  wanted: ['CAP_BPF'],
  usesTun: true,
  lasts: false,
  overhead: (config) => overhead(encapsulationOf(config), config),
  things: (config, plan) => wasmThings(config, plan, mayReinject(config)),
  remarks: () => ['# From then on the daemon moves the packets between the device and the underlay.'],
  create: (config, options) => new WasmDataPlane(config, options),
};

/** Whether the kernel is to cut super-packets, where it can. */
function mayReinject({ engine, encapsulation, greSegmentation, greChecksum, greSequence }: Config): boolean {
  return engine === 'linux' && encapsulation === 'gre' && greSegmentation !== 'core' && !greChecksum && !greSequence;
}

class WasmDataPlane implements DataPlane {
  readonly troubles = [];
  readonly links = [];
  readonly #config: Config;
  readonly #options: DataPlaneOptions;
  readonly #drops: DropLog;
  #plan: NetworkPlan;
  #engine: Engine | undefined;
  /** Whether the engine has ended by itself. */
  #hasEnded = false;
  #isDeviceUp = false;
  /** Of engines that have ended. */
  #before: Counters | undefined;
  /** The core that is used: the configured one, if it can be had. */
  #usedCore: CoreName;
  #pause = 0;
  /** When the next start may be tried, in ms, and why the last failed. */
  #nextTry = 0;
  #failure: unknown;
  #closed = false;

  constructor(config: Config, options: DataPlaneOptions) {
    this.#config = config;
    this.#options = options;
    this.#drops = new DropLog(options.log);
    this.#plan = options.plan;
    this.#usedCore = config.core;
  }

  get status(): DataPlaneStatus {
    const { engine, queues } = this.#config;
    const core = this.#usedCore;
    const { by, obstacle } = this.#engine?.segmenter ?? {};
    const segmenter = { ...(by && { segmentation: by }), segmentationObstacle: obstacle };
    return { core, engine, ...segmenter, ...this.#engine?.segmentSizes, queues };
  }

  async prepare(plan: NetworkPlan): Promise<string | undefined> {
    if (this.#engine && !this.#hasEnded && this.#hasDevice()) {
      if (plan.mtu !== this.#plan.mtu) this.#engine.setMtu(plan.mtu);
      this.#plan = plan;
      return undefined;
    }
    this.#plan = plan;
    const isAnew = this.#engine !== undefined;
    if (performance.now() < this.#nextTry) throw this.#failure;
    try {
      await this.#retire();
      await this.#start();
      this.#pause = 0;
    } catch (error) {
      this.#pause = Math.min(Math.max(2 * this.#pause, FIRST_PAUSE), LONGEST_PAUSE);
      this.#nextTry = performance.now() + this.#pause;
      this.#failure = error;
      throw error;
    }
    return isAnew ? `device ${plan.device} is missing` : undefined;
  }

  /** Whether the engine's device is there, whatever it is called by now: its engine may not have heard yet that it has gone. */
  #hasDevice(): boolean {
    const { netlink, links } = this.#options.machine;
    const index = links.get(this.#plan.device);
    return index !== undefined && findLink(netlink, index) !== undefined;
  }

  /** Opens device and sockets; what stands there under the device's name has to be ours, of an earlier daemon. */
  async #start(): Promise<void> {
    const { machine, log, onTunnels, onLearnt, onDue } = this.#options;
    const { device } = this.#plan;
    const existing = findLink(machine.netlink, device);
    if (existing && !isLeftOver(existing)) throw existsAlready(device);
    if (existing) machine.takeBack({ kind: 'link', device, info: { kind: existing.info?.kind ?? '' } });
    this.#hasEnded = false;
    this.#isDeviceUp = false;
    const engine = await startEngine(this.#config.engine, {
      ...{ device, log, onTunnels, onLearnt },
      onDropped: (sample) => this.#drops.add(sample),
      core: this.#core(),
      coreConfig: coreConfigOf(this.#config, this.#plan),
      queues: this.#config.queues,
      greSegmentation: this.#config.greSegmentation,
      idleTimeout: this.#config.idleTimeout,
      busyPoll: this.#config.busyPoll,
      onFailure: (error) => {
        if (this.#closed) return;
        log.debug({ error: error.message }, 'the engine has ended');
        this.#hasEnded = true;
        onDue();
      },
    });
    this.#engine = engine;
    const made = findLink(machine.netlink, device);
    if (!made) throw new InlayError('ERR_FAILED', `device ${device} has gone`);
    machine.links.set(device, made.index);
  }

  /** WebAssembly may not be had where the address space is limited (ulimit -v): the twin then does the same, more slowly. */
  #core(): CoreName {
    const { core, queues } = this.#config;
    const obstacle = core === 'wasm' ? wasmObstacle(queues) : undefined;
    if (obstacle !== undefined) {
      const hint = 'raise the limit of the address space, or start node with --disable-wasm-trap-handler';
      this.#options.log.warn({ obstacle, hint }, 'the core is the TypeScript one, which is slower');
    }
    this.#usedCore = obstacle === undefined ? core : 'typescript';
    return this.#usedCore;
  }

  /** Keeps the counters of an engine that has ended, and closes what is left of it. */
  async #retire(): Promise<void> {
    const ended = this.#engine;
    this.#engine = undefined;
    if (!ended) return;
    const last = await ended.counters().catch(() => undefined);
    if (last) this.#before = { ...addAll([...(this.#before ? [this.#before] : []), last]), tunnels: 0 };
    await ended.close();
  }

  things(): Thing[] {
    return wasmThings(this.#config, this.#plan, this.#engine?.reinjects ?? false);
  }

  async settle({ troubles }: Outcome): Promise<void> {
    if (!this.#engine || this.#isDeviceUp || troubles.length > 0) return;
    this.#isDeviceUp = true;
    this.#engine.deviceIsUp();
  }

  concerns(): boolean {
    return false;
  }

  reload(): void {}

  async counters(): Promise<Counters> {
    const now = await this.#engine?.counters();
    const known = [this.#before, now].filter((each) => each !== undefined);
    if (known.length === 0) throw new Error('no engine has run yet');
    return { ...addAll(known), tunnels: now?.tunnels ?? 0 };
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    return (await this.#engine?.tunnels()) ?? { now: performance.now(), tunnels: [] };
  }

  /** The device goes, and with it its addresses and routes. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#engine?.close();
  }
}

function addAll(all: readonly Counters[]): Omit<Counters, 'tunnels'> {
  return {
    outbound: addCounters(all.map(({ outbound }) => outbound)),
    inbound: addCounters(all.map(({ inbound }) => inbound)),
    icmp: addCounters(all.flatMap(({ icmp }) => icmp ?? [])),
    refused: addRefused(all),
  };
}

/** What the core is told: its addresses are numbers, the rest is the configuration's. */
function coreConfigOf(config: Config, { local, mappings, mtu }: NetworkPlan): CoreConfig {
  return {
    ...config,
    local: Number(local.bits),
    mtu,
    encapsulation: encapsulationOf(config),
    ecn: outerEcnOf(config),
    mappings: mappings.map((m) => ({
      overlay: Number(m.overlay.bits),
      overlayLength: m.overlay.length,
      underlay: Number(m.underlay.bits),
      underlayLength: m.underlay.length,
    })),
  };
}

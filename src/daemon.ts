/** The daemon: sets everything up, is ready, and takes everything down again when it is told to stop. */
import { mkdirSync } from 'node:fs';
import { contains, formatAddress, formatPrefix, ipv4 } from './address.ts';
import { explainPermission, requireCapabilities } from './capabilities.ts';
import type { Config } from './config/config.ts';
import { ControlServer } from './control.ts';
import { type CoreConfig, overhead } from './core/core.ts';
import type { TunnelState } from './core/tunnels.ts';
import { addCounters, type Counters, type DataPlane } from './dataplane.ts';
import { InlayError } from './errors.ts';
import { startEngine } from './io/engines.ts';
import { Journal } from './journal.ts';
import { type Lock, lockRunDir, runDirError } from './lock.ts';
import { createLog, type Log } from './log.ts';
import { refuseExistingDevice, setUpNetwork } from './network.ts';
import {
  directionStatus,
  type Status,
  type TunnelStatus,
  tunnelMtu,
  tunnelStatus,
  unreachableReason,
} from './status.ts';
import { findUnderlay, type Underlay } from './underlay.ts';

/** Largest MTU of a TUN device, and of IPv4. */
const MAX_MTU = 65535;
/** Every IPv4 host takes 68 bytes (RFC 791 §3.2): an underlay that leaves less is none. */
const MIN_MTU = 68;

const CAPABILITIES = ['CAP_NET_ADMIN', 'CAP_NET_RAW'] as const;

/** How often what was learnt about a tunnel is logged, in ms. */
const LOG_INTERVAL = 10_000;
const MAX_LOGGED = 10_000;

const NO_PACKETS = addCounters([]);

/** Runs until SIGTERM or SIGINT, or until forwarding fails. */
export function runDaemon(config: Config): Promise<void> {
  return explainPermission({ capabilities: CAPABILITIES, runDir: config.runDir, tun: true }, () => run(config));
}

async function run(config: Config): Promise<void> {
  requireCapabilities(CAPABILITIES);
  const daemon = new Daemon(config, createLog(config.logLevel));
  const stop = new Promise<void>((resolve) => {
    // They stay handled: a second signal, from a wrapper or an impatient user, must not end the clean-up.
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => resolve());
  });
  try {
    await daemon.start();
    await Promise.race([stop, daemon.failed]);
  } catch (error) {
    await daemon.stop().catch(() => {}); // Logged; the first error says why.
    throw error;
  }
  await daemon.stop();
}

class Daemon {
  /** Rejects if forwarding ends by itself. */
  readonly failed: Promise<never>;
  readonly #config: Config;
  readonly #log: Log;
  #fail: (error: Error) => void = () => {};
  #state: Status['state'] = 'starting';
  #underlay: Underlay | undefined;
  #lock: Lock | undefined;
  #control: ControlServer | undefined;
  #journal: Journal | undefined;
  #dataPlane: DataPlane | undefined;
  /** When something about a VM's tunnel was last logged, in ms. */
  readonly #logged = new Map<number, number>();
  #counters: Counters = { outbound: NO_PACKETS, inbound: NO_PACKETS, icmp: NO_PACKETS, tunnels: 0 };

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {}); // Whoever waits is told; before that it is kept.
  }

  async start(): Promise<void> {
    const { runDir, mappings, device, core, engine, encapsulation, queues } = this.#config;
    this.#underlay = await findUnderlay(mappings, this.#config.local);
    const { local } = this.#underlay;
    for (const mapping of mappings) if (contains(mapping.underlay, local)) mapping.checkVm(local);
    if (this.#mtu < MIN_MTU)
      throw new InlayError('ERR_FAILED', `underlay MTU ${this.#underlay.mtu} leaves no room for packets`);

    const made = makeRunDir(runDir);
    this.#lock = await lockRunDir(
      runDir,
      'choose another directory with --run-dir for a second mesh, or stop it: kill',
    );
    this.#control = await ControlServer.listen(runDir, {
      status: () => this.#status(),
      tunnels: () => this.#tunnels(),
    });
    this.#journal = new Journal(runDir);
    const left = await this.#journal.undo();
    if (left.length > 0) this.#log.warn({ changes: left }, 'removed what an earlier daemon left');
    if (made || left.some((change) => change.kind === 'directory'))
      this.#journal.add({ kind: 'directory', path: runDir });

    refuseExistingDevice(device);
    this.#dataPlane = await startEngine(engine, {
      device,
      core,
      coreConfig: coreConfigOf(this.#config, Number(local.bits), this.#mtu),
      queues,
      greSegmentation: this.#config.greSegmentation,
      idleTimeout: this.#config.idleTimeout,
      busyPoll: this.#config.busyPoll,
      log: this.#log,
      onTunnels: (change, vms) => {
        for (const vm of vms) this.#log.info({ vm: formatAddress(ipv4(vm)) }, `tunnel ${change}`);
      },
      onLearnt: (tunnels) => {
        for (const tunnel of tunnels) this.#logLearnt(tunnel);
      },
      onFailure: (error) =>
        this.#fail(new InlayError('ERR_FAILED', `forwarding ended: ${error.message}`, { cause: error })),
    });
    await setUpNetwork({ device, local, mappings, mtu: this.#mtu, encapsulation }, this.#journal, this.#log);
    this.#dataPlane.deviceIsUp();
    this.#state = 'running';
    const { pid, vm, overlayAddress, segmentation, mtu } = await this.#status();
    this.#log.info(
      { pid, vm, overlayAddress, device, core, engine, encapsulation, segmentation, queues, mtu },
      'ready',
    );
  }

  /** Undoes whatever `start` got done; each step is tried, whatever became of the one before. */
  async stop(): Promise<void> {
    this.#state = 'stopping';
    const steps = [
      () => this.#dataPlane?.close(), // The device goes with it.
      () => this.#control?.close(),
      () => this.#journal?.undo(),
    ];
    const errors: unknown[] = [];
    for (const step of steps) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
        this.#log.error({ error: String(error) }, 'could not clean up; inlay down tries again');
      }
    }
    this.#lock?.release();
    if (errors.length > 0) throw errors[0];
    if (this.#lock) this.#log.info('stopped');
  }

  get #mtu(): number {
    return Math.min(this.#underlay?.mtu ?? 0, this.#config.underlayMtu ?? MAX_MTU, MAX_MTU) - this.#overhead;
  }

  get #overhead(): number {
    return overhead(this.#config.encapsulation, this.#config);
  }

  /** What the underlay says may be forged, and said again and again: one line a VM and a while, and a bounded memory of that. */
  #logLearnt({ vm, pathMtu, unreachable }: TunnelState): void {
    const now = performance.now();
    if (now - (this.#logged.get(vm) ?? -Infinity) < LOG_INTERVAL) return;
    if (this.#logged.size >= MAX_LOGGED) this.#logged.clear();
    this.#logged.set(vm, now);
    const facts = { vm: formatAddress(ipv4(vm)), mtu: tunnelMtu(this.#mtu, pathMtu, this.#overhead) };
    if (unreachable === undefined) this.#log.info(facts, 'path of the tunnel changed');
    else this.#log.warn({ ...facts, why: unreachableReason(unreachable) }, 'VM unreachable');
  }

  async #status(): Promise<Status> {
    const { mappings, device, core, engine, encapsulation, queues } = this.#config;
    const { local } = this.#underlay as Underlay; // The socket is opened after it is known.
    // Before it is open and after it is closed, the data plane has nothing new to tell.
    this.#counters = (await this.#dataPlane?.counters().catch(() => undefined)) ?? this.#counters;
    const counters = this.#counters;
    const { by, obstacle } = this.#dataPlane?.segmenter ?? { by: 'core' };
    const own = mappings.filter((m) => contains(m.underlay, local));
    return {
      state: this.#state,
      pid: process.pid,
      vm: formatAddress(local),
      overlayAddress: own[0] ? formatAddress(own[0].addressOf(local, 1n)) : '',
      mappings: own.map((m) => ({
        overlay: formatPrefix(m.overlay),
        underlay: formatPrefix(m.underlay),
        slice: formatPrefix(m.sliceOf(local)),
      })),
      device,
      core,
      engine,
      encapsulation,
      segmentation: by,
      segmentationObstacle: obstacle,
      queues,
      mtu: this.#mtu,
      tunnels: counters.tunnels,
      outbound: directionStatus(counters.outbound),
      inbound: directionStatus(counters.inbound),
      replies: { sent: counters.outbound.replies, suppressed: counters.outbound.suppressed },
      ecnAnomalies: counters.inbound.anomalies,
      icmp: directionStatus(counters.icmp),
    };
  }

  async #tunnels(): Promise<TunnelStatus[]> {
    const { now, tunnels } = (await this.#dataPlane?.tunnels()) ?? { now: 0, tunnels: [] };
    return tunnels.map((tunnel) => ({
      ...tunnelStatus(this.#config.mappings, tunnel, now),
      mtu: tunnelMtu(this.#mtu, tunnel.pathMtu, this.#overhead),
    }));
  }
}

/** What the core is told. */
function coreConfigOf(config: Config, local: number, mtu: number): CoreConfig {
  const { mappings, key, checksum, sequence, ttl, dscp, clampMss, encapsulation, engine } = config;
  return {
    ...{ local, mtu, key, checksum, sequence, ttl, dscp, clampMss, encapsulation },
    // Node's UDP sockets cannot set the ECN field.
    ecn: engine === 'portable' && encapsulation === 'gre-udp' ? 'compatibility' : config.ecn,
    mayFragment: !config.pathMtuDiscovery,
    mappings: mappings.map((m) => ({
      overlay: Number(m.overlay.bits),
      overlayLength: m.overlay.length,
      underlay: Number(m.underlay.bits),
      underlayLength: m.underlay.length,
    })),
  };
}

/** Makes the run directory; false if it was there. */
function makeRunDir(runDir: string): boolean {
  try {
    return mkdirSync(runDir, { recursive: true, mode: 0o755 }) !== undefined;
  } catch (cause) {
    throw runDirError(runDir, cause);
  }
}

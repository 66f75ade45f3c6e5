/** The daemon: sets everything up, is ready, and takes everything down again when it is told to stop. */
import { mkdirSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import type { TunnelState } from '../core/tunnels.ts';
import { addCounters, type Counters, type DataPlane } from '../dataplane/dataplane.ts';
import { InlayError } from '../errors.ts';
import { createLog, type Log } from '../log.ts';
import { type Change, Journal } from '../machine/journal.ts';
import type { NetworkPlan } from '../machine/steps.ts';
import { formatAddress, formatPrefix, ipv4 } from '../mesh/address.ts';
import { mappingsWith } from '../mesh/mapping.ts';
import {
  directionStatus,
  type Status,
  type TunnelStatus,
  tunnelMtu,
  tunnelStatus,
  unreachableReason,
} from '../observe/status.ts';
import { explainPermission, requireCapabilities } from './capabilities.ts';
import { ControlServer } from './control.ts';
import { type Lock, lockRunDir, runDirError } from './lock.ts';
import { overheadOf, planNetwork, stepsOf } from './network.ts';

/** The kernel's own device needs no raw socket. */
const CAPABILITIES = { wasm: ['CAP_NET_ADMIN', 'CAP_NET_RAW'], kernel: ['CAP_NET_ADMIN'] } as const;

/** How often what was learnt about a tunnel is logged, in ms. */
const LOG_INTERVAL = 10_000;
const MAX_LOGGED = 10_000;
/** Tunnels that come or go at once and are logged one by one. */
const MAX_LISTED = 16;

const NO_PACKETS = addCounters([]);

/** Runs until SIGTERM or SIGINT, or until forwarding fails. */
export function runDaemon(config: Config): Promise<void> {
  const { runDir, dataplane } = config;
  const needs = { capabilities: CAPABILITIES[dataplane], runDir, tun: dataplane === 'wasm' };
  return explainPermission(needs, () => run(config));
}

async function run(config: Config): Promise<void> {
  requireCapabilities(CAPABILITIES[config.dataplane]);
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
  #plan: NetworkPlan | undefined;
  #lock: Lock | undefined;
  #control: ControlServer | undefined;
  #journal: Journal | undefined;
  #dataPlane: DataPlane | undefined;
  /** Whether what was done to the machine stays when the daemon goes. */
  #keepsNetwork = false;
  /** When something about a VM's tunnel was last logged, in ms. */
  readonly #logged = new Map<number, number>();
  #counters: Counters = { outbound: NO_PACKETS, inbound: NO_PACKETS, tunnels: 0 };

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {}); // Whoever waits is told; before that it is kept.
  }

  async start(): Promise<void> {
    const { runDir } = this.#config;
    this.#plan = planNetwork(this.#config);
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
    const stays = this.#stays(this.#plan);
    const left = this.#journal.undo(stays);
    if (left.length > 0) this.#log.warn({ changes: left }, 'removed what an earlier daemon left');
    if (made || left.some((change) => change.kind === 'directory'))
      this.#journal.add({ kind: 'directory', path: runDir });
    this.#dataPlane = await this.#startDataPlane(this.#plan, this.#journal);
    this.#keepsNetwork = this.#config.dataplane === 'kernel';
    this.#state = 'running';
    const { pid, vm, overlayAddress, device, dataPlane, encapsulation, mtu } = await this.#status();
    this.#log.info(
      { pid, vm, overlayAddress, device, dataPlane, encapsulation, mtu, ...this.#dataPlane.status },
      'ready',
    );
  }

  async #startDataPlane(plan: NetworkPlan, journal: Journal): Promise<DataPlane> {
    const options = {
      ...{ plan, journal, log: this.#log, overhead: overheadOf(this.#config) },
      onAdopt: () => {
        if (!this.#keepsNetwork) this.#log.info('taking over what an earlier daemon left');
        this.#keepsNetwork = true;
      },
      onTunnels: (change: 'opened' | 'closed', vms: number[]) => {
        // The kernel may have tens of thousands when a daemon comes back.
        if (vms.length > MAX_LISTED) this.#log.info({ tunnels: vms.length }, `tunnels ${change}`);
        else for (const vm of vms) this.#log.info({ vm: formatAddress(ipv4(vm)) }, `tunnel ${change}`);
      },
      onLearnt: (tunnels: TunnelState[]) => {
        for (const tunnel of tunnels) this.#logLearnt(tunnel);
      },
      onFailure: (error: Error) =>
        this.#fail(new InlayError('ERR_FAILED', `forwarding ended: ${error.message}`, { cause: error })),
    };
    // Loaded late: each needs what the other does not.
    if (this.#config.dataplane === 'kernel') {
      const { startKernelDataPlane } = await import('../dataplane/kernel/dataplane.ts');
      return startKernelDataPlane(this.#config, options);
    }
    const { startWasmDataPlane } = await import('../dataplane/wasm/dataplane.ts');
    return startWasmDataPlane(this.#config, options);
  }

  /** Which changes of an earlier daemon this one would make, too: of a kernel data plane, which goes on without a daemon. */
  #stays(plan: NetworkPlan): (change: Change) => boolean {
    const { device, dataplane, encapsulation } = this.#config;
    if (dataplane === 'wasm') return () => false;
    const all = stepsOf(this.#config, plan);
    const steps = all.map((step) => JSON.stringify(step));
    const sysctls = all.flatMap((step) => (step.kind === 'sysctl' ? [step.device] : []));
    return (change) => {
      switch (change.kind) {
        case 'link':
          return change.device === device;
        case 'sysctl':
          return sysctls.some((of) => change.file.includes(`/conf/${of}/`));
        case 'filter':
        case 'clsact':
          return encapsulation === 'vxlan';
        case 'link-up':
          return false;
        case 'directory':
          return true;
        default:
          return steps.includes(JSON.stringify(change));
      }
    };
  }

  /** Undoes whatever `start` got done, unless the kernel is to go on by itself; each step is tried, whatever became of the one before. */
  async stop(): Promise<void> {
    this.#state = 'stopping';
    const steps = [
      () => this.#dataPlane?.close(),
      () => this.#control?.close(),
      () => (this.#keepsNetwork ? undefined : this.#journal?.undo()),
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
    if (!this.#lock) return;
    if (this.#keepsNetwork)
      this.#log.info('stopped; the kernel goes on forwarding to the VMs it knows, until inlay down');
    else this.#log.info('stopped');
  }

  get #mtu(): number {
    return this.#plan?.mtu ?? 0;
  }

  /** What the underlay says may be forged, and said again and again: one line a VM and a while, and a bounded memory of that. */
  #logLearnt({ vm, pathMtu, unreachable }: TunnelState): void {
    const now = performance.now();
    if (now - (this.#logged.get(vm) ?? -Infinity) < LOG_INTERVAL) return;
    if (this.#logged.size >= MAX_LOGGED) this.#logged.clear();
    this.#logged.set(vm, now);
    const facts = { vm: formatAddress(ipv4(vm)), mtu: tunnelMtu(this.#mtu, pathMtu, overheadOf(this.#config)) };
    if (unreachable === undefined) this.#log.info(facts, 'path of the tunnel changed');
    else this.#log.warn({ ...facts, why: unreachableReason(unreachable) }, 'VM unreachable');
  }

  async #status(): Promise<Status> {
    const { mappings, device, dataplane, encapsulation } = this.#config;
    const { local } = this.#plan as NetworkPlan; // The socket is opened after it is known.
    // Before it is open and after it is closed, the data plane has nothing new to tell.
    this.#counters = (await this.#dataPlane?.counters().catch(() => undefined)) ?? this.#counters;
    const counters = this.#counters;
    const own = mappingsWith(mappings, local);
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
      dataPlane: dataplane,
      encapsulation,
      mtu: this.#mtu,
      ...this.#dataPlane?.status,
      tunnels: counters.tunnels,
      outbound: directionStatus(counters.outbound),
      inbound: directionStatus(counters.inbound),
      ...(counters.icmp && {
        replies: { sent: counters.outbound.replies, suppressed: counters.outbound.suppressed },
        ecnAnomalies: counters.inbound.anomalies,
        icmp: directionStatus(counters.icmp),
      }),
    };
  }

  async #tunnels(): Promise<TunnelStatus[]> {
    const { now, tunnels } = (await this.#dataPlane?.tunnels()) ?? { now: 0, tunnels: [] };
    return tunnels.map((tunnel) => ({
      ...tunnelStatus(this.#config.mappings, tunnel, now),
      mtu: tunnelMtu(this.#mtu, tunnel.pathMtu, overheadOf(this.#config)),
    }));
  }
}

/** Makes the run directory; false if it was there. */
function makeRunDir(runDir: string): boolean {
  try {
    return mkdirSync(runDir, { recursive: true, mode: 0o755 }) !== undefined;
  } catch (cause) {
    throw runDirError(runDir, cause);
  }
}

/** The daemon: sets everything up, is ready, keeps it so, and takes everything down again when it is told to stop. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.ts';
import type { TunnelState } from '../core/tunnels.ts';
import type { DataPlane, DataPlaneKind } from '../dataplane/dataplane.ts';
import { createLog, type Log } from '../log.ts';
import { Machine, type Trouble, troubleOf } from '../machine/machine.ts';
import { catchAllThings, isCatchAll, type NetworkPlan } from '../machine/state.ts';
import { NoUnderlayError, type Underlay } from '../machine/underlay.ts';
import { formatAddress, ipv4 } from '../mesh/address.ts';
import { type State, type Status, type TunnelStatus, tunnelMtu, unreachableReason } from '../observe/status.ts';
import { explainPermission, requireCapabilities } from './capabilities.ts';
import { dataPlaneOf } from './data-planes.ts';
import { type DeviceLock, lockDevice } from './device-lock.ts';
import { Keeper } from './keeper.ts';
import { planNetwork } from './network.ts';
import { RunDir } from './run-dir.ts';
import { StatusReport } from './status-report.ts';

/** How often what was learnt about a tunnel is logged, in ms. */
const LOG_INTERVAL = 10_000;
const MAX_LOGGED = 10_000;
/** Tunnels that come or go at once and are logged one by one. */
const MAX_LISTED = 16;
/** ms between two looks for the underlay address, while there is none. */
const WAIT_INTERVAL = 200;

/** Runs until SIGTERM or SIGINT. `wait` is how many ms to wait for an underlay address. */
export async function runDaemon(config: Config, wait: number): Promise<void> {
  const kind = await dataPlaneOf(config);
  const needs = { capabilities: kind.capabilities, runDir: config.runDir, tun: kind.usesTun };
  return explainPermission(needs, () => run(config, kind, wait));
}

async function run(config: Config, kind: DataPlaneKind, wait: number): Promise<void> {
  requireCapabilities(kind.capabilities);
  const daemon = new Daemon(config, kind, createLog(config.logLevel));
  const stopping = new AbortController();
  const stop = new Promise<void>((resolve) => {
    stopping.signal.addEventListener('abort', () => resolve());
  });
  // They stay handled: a second signal, from a wrapper or an impatient user, must not end the clean-up.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => stopping.abort());
  // A file that may not grow (ulimit -f) is an error of the write, and not the end of the process.
  process.on('SIGXFSZ', () => {});
  try {
    await daemon.start(wait, stopping.signal);
  } catch (error) {
    await daemon.stop((machine) => machine.undoStart()).catch(() => {}); // Logged; the first error says why.
    if (stopping.signal.aborted) return;
    throw error;
  }
  await stop;
  // The catch-all stays, and where the kernel forwards by itself, all.
  await daemon.stop((machine) => machine.undo(({ thing }) => !kind.lasts && !isCatchAll(thing)));
}

class Daemon {
  readonly #config: Config;
  readonly #kind: DataPlaneKind;
  readonly #log: Log;
  #state: State = 'starting';
  #waitsFor: Trouble | undefined;
  #plan: NetworkPlan | undefined;
  #runDir: RunDir | undefined;
  #lock: DeviceLock | undefined;
  #machine: Machine | undefined;
  #dataPlane: DataPlane | undefined;
  #keeper: Keeper | undefined;
  readonly #report: StatusReport;
  /** When something about a VM's tunnel was last logged, in ms. */
  readonly #logged = new Map<number, number>();

  constructor(config: Config, kind: DataPlaneKind, log: Log) {
    this.#config = config;
    this.#kind = kind;
    this.#log = log;
    this.#report = new StatusReport(config, kind.overhead(config));
  }

  async start(wait: number, signal: AbortSignal): Promise<void> {
    const config = this.#config;
    const runDir = await RunDir.open(config.runDir, {
      status: () => this.#status(),
      tunnels: () => this.#tunnels(),
    });
    this.#runDir = runDir;
    const { journal } = runDir;
    if (journal.isDamaged)
      this.#log.warn('the journal is damaged: what the machine itself tells to be ours is taken over');
    this.#lock = await lockDevice(config.device);
    const machine = new Machine(journal);
    this.#machine = machine;
    // Before anything else: from now on no packet for the overlay leaves in plain.
    machine.apply(catchAllThings(config.mappings));
    const { plan, underlay } = await this.#awaitNetwork(machine, runDir, wait, signal);
    this.#plan = plan;
    runDir.rememberVm(plan.local);
    const { device: at, others } = underlay;
    this.#log.info({ address: formatAddress(plan.local), device: at, others }, 'underlay address');
    const overhead = this.#kind.overhead(config);
    const dataPlane = this.#kind.create(config, {
      ...{ plan, machine, log: this.#log },
      onDue: () => this.#keeper?.look(),
      onTunnels: (change, vms) => this.#logTunnels(change, vms),
      onLearnt: (tunnels) => {
        for (const tunnel of tunnels) this.#logLearnt(tunnel);
      },
    });
    this.#dataPlane = dataPlane;
    const keeper = new Keeper({
      ...{ config, plan, overhead, machine, dataPlane, log: this.#log },
      keepRunDir: () => runDir.keep(),
    });
    this.#keeper = keeper;
    await keeper.start();
    runDir.watch(() => keeper.look());
    this.#state = 'running';
    const { pid, vm, overlayAddress, device, dataPlane: name, encapsulation, mtu } = await this.#status();
    this.#log.info(
      { pid, vm, overlayAddress, device, dataPlane: name, encapsulation, mtu, ...dataPlane.status },
      'ready',
    );
  }

  /** Waits until this machine has an underlay address. */
  async #awaitNetwork(
    machine: Machine,
    runDir: RunDir,
    wait: number,
    signal: AbortSignal,
  ): Promise<{ plan: NetworkPlan; underlay: Underlay }> {
    const deadline = performance.now() + wait;
    for (;;) {
      // All that there is to be kept so far.
      machine.ensure(catchAllThings(this.#config.mappings));
      await runDir.keep().catch(() => {});
      try {
        return planNetwork(this.#config, this.#kind.overhead(this.#config), machine.netlink, runDir.lastVm);
      } catch (error) {
        if (!(error instanceof NoUnderlayError) || performance.now() >= deadline) throw error;
        if (!this.#waitsFor) this.#log.warn({ hint: error.hint }, `waiting: ${error.message}`);
        this.#waitsFor = troubleOf(error);
        this.#state = 'waiting';
      }
      await sleep(Math.min(WAIT_INTERVAL, Math.max(deadline - performance.now(), 0)), undefined, { signal });
    }
  }

  /** Ends what `start` got done; each step is tried, whatever became of the one before. `undo` takes back what is to go. */
  async stop(undo: (machine: Machine) => unknown): Promise<void> {
    this.#state = 'stopping';
    const isReady = this.#keeper !== undefined;
    const steps = [
      () => this.#keeper?.close(),
      () => this.#dataPlane?.close(),
      () => this.#machine && undo(this.#machine),
      () => this.#machine?.close(),
      () => this.#runDir?.close(),
      () => this.#lock?.release(),
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
    if (errors.length > 0) throw errors[0];
    if (!isReady) return;
    if (this.#kind.lasts)
      this.#log.info('stopped; the kernel goes on forwarding to the VMs it knows, until inlay down');
    else this.#log.info('stopped; packets for the overlay are unreachable until inlay down');
  }

  #logTunnels(change: 'opened' | 'closed', vms: number[]): void {
    // The kernel may have tens of thousands when a daemon comes back.
    if (vms.length > MAX_LISTED) this.#log.info({ tunnels: vms.length }, `tunnels ${change}`);
    else for (const vm of vms) this.#log.info({ vm: formatAddress(ipv4(vm)) }, `tunnel ${change}`);
  }

  /** What the underlay says may be forged, and said again and again: one line a VM and a while, and a bounded memory of that. */
  #logLearnt({ vm, pathMtu, unreachable }: TunnelState): void {
    const now = performance.now();
    if (now - (this.#logged.get(vm) ?? -Infinity) < LOG_INTERVAL) return;
    if (this.#logged.size >= MAX_LOGGED) this.#logged.clear();
    this.#logged.set(vm, now);
    const mtu = this.#keeper?.plan.mtu ?? 0;
    const facts = {
      vm: formatAddress(ipv4(vm)),
      mtu: tunnelMtu(mtu, pathMtu, this.#kind.overhead(this.#config)),
    };
    if (unreachable === undefined) this.#log.info(facts, 'path of the tunnel changed');
    else this.#log.warn({ ...facts, why: unreachableReason(unreachable) }, 'VM unreachable');
  }

  #status(): Promise<Status> {
    const troubles = this.#keeper?.troubles ?? [];
    const isDegraded = this.#state === 'running' && troubles.length > 0;
    return this.#report.status({
      state: isDegraded ? 'degraded' : this.#state,
      troubles: this.#state === 'waiting' && this.#waitsFor ? [this.#waitsFor] : troubles,
      repaired: this.#keeper?.repaired ?? 0,
      plan: this.#keeper?.plan ?? this.#plan,
      dataPlane: this.#dataPlane,
    });
  }

  #tunnels(): Promise<TunnelStatus[]> {
    return this.#report.tunnels(this.#keeper?.plan ?? this.#plan, this.#dataPlane);
  }
}

/**
 * The daemon: sets everything up, is ready, keeps it so, and takes everything down again when it is told to
 * stop.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isatty } from 'node:tty';
import type { Config } from '../config/config.ts';
import { attachedCount, removeOwnAddress, unusedAddresses } from '../containers/leftovers.ts';
import type { DataPlane, DataPlaneKind } from '../dataplane/dataplane.ts';
import { hasFastPath } from '../dataplane/fast-path/kind.ts';
import { type Listings, listings } from '../dataplane/fast-path/listing.ts';
import { LEASE_SECONDS } from '../dataplane/fast-path/state.ts';
import { EXIT, exitCodeOf } from '../errors.ts';
import * as native from '../linux/native.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import { createLog, type Log, logFailure } from '../log.ts';
import { limitedLog } from '../log-limit.ts';
import { Barrier } from '../machine/barrier/barrier.ts';
import { Machine, type Trouble, troubleOf } from '../machine/machine.ts';
import { obstacleTowards } from '../machine/obstacle.ts';
import type { LookOut } from '../machine/remarks/look-out.ts';
import { catchAllThings, type NetworkPlan, staysAfterStop } from '../machine/state.ts';
import { NoUnderlayError, type Underlay } from '../machine/underlay.ts';
import { type Address, contains, formatAddress, ipv4 } from '../mesh/address.ts';
import { prefixesOf, slicesOf } from '../mesh/mapping.ts';
import { Observer } from '../observe/observer.ts';
import type { ContainersStatus, State, Status, TunnelStatus } from '../observe/status.ts';
import { Attacher } from './attacher.ts';
import { type Capability, explainPermission, requireCapabilities } from './capabilities.ts';
import { dataPlaneOf } from './data-planes.ts';
import { type DeviceLock, lockDevice } from './device-lock.ts';
import { Ending } from './ending.ts';
import { Keeper } from './keeper.ts';
import { barrierSettings, meshOf, planNetwork } from './network.ts';
import { lookOut } from './remarks.ts';
import { RunDir } from './run-dir.ts';
import { onStop } from './signals.ts';
import { StatusReport } from './status-report.ts';
import { TunnelLog } from './tunnel-log.ts';

/** ms between two looks for the underlay address, while there is none. */
const WAIT_INTERVAL = 200;

/**
 * Runs until SIGTERM or SIGINT, and ends the process. `wait` is how many ms to wait for an underlay address.
 * What prevents a start is in the log before what follows from it; on a terminal it is thrown instead, so
 * that a person reads it last, and in plain words.
 */
export async function runDaemon(config: Config, wait: number): Promise<void> {
  const log = createLog(config.logLevel);
  const ending = new Ending();
  const isTerminal = isatty(2);
  let failure: unknown;
  process.on('SIGHUP', () =>
    log.info('SIGHUP: nothing is loaded anew; restart the daemon for a changed configuration'),
  );
  // Node would write it to stderr, and wait there.
  process.on('uncaughtException', (error) => {
    log.fatal({ stack: error.stack }, `a mistake in Inlay: ${error.message}`);
    failure = error;
    ending.begin();
  });

  const kind = await dataPlaneOf(config);
  const daemon = new Daemon(config, kind, log, ending);
  const capabilities: Capability[] = [...kind.capabilities, ...(config.attach ? (['CAP_SYS_ADMIN'] as const) : [])];
  const needs = { capabilities, wanted: kind.wanted, runDir: config.runDir, tun: kind.usesTun };
  try {
    await explainPermission(needs, async () => {
      requireCapabilities(capabilities);
      await ending.within(daemon.start(wait));
    });
    await ending.begun;
  } catch (error) {
    // A start that a signal ended has not failed.
    if (!ending.signal.aborted) {
      failure = error;
      if (!isTerminal) logFailure(log, error);
    }
  }
  ending.begin();
  const isClean = (await daemon.stop()) && !ending.isOver;
  if (ending.isOver) log.error('ended without all of the clean-up, which took too long; inlay down tries again');
  ending.done();
  if (failure !== undefined && isTerminal) throw failure;
  log.flush();
  // Without waiting for threads that may not come back.
  native.exitNow(failure !== undefined ? exitCodeOf(failure) : isClean ? EXIT.done : EXIT.failed);
}

class Daemon {
  readonly #config: Config;
  readonly #kind: DataPlaneKind;
  readonly #log: Log;
  readonly #ending: Ending;
  readonly #tunnelLog: TunnelLog;
  #state: State = 'starting';
  #waitsFor: Trouble | undefined;
  #plan: NetworkPlan | undefined;
  #runDir: RunDir | undefined;
  #attacher: Attacher | undefined;
  #lock: DeviceLock | undefined;
  #machine: Machine | undefined;
  #dataPlane: DataPlane | undefined;
  #barrier: Barrier | undefined;
  #keeper: Keeper | undefined;
  /** Whether containers are attached, so that the mesh stays in the run directory. */
  #isInUse = false;
  readonly #observer: Observer;
  #lookOut: LookOut | undefined;
  readonly #report: StatusReport;

  constructor(config: Config, kind: DataPlaneKind, log: Log, ending: Ending) {
    this.#config = config;
    this.#kind = kind;
    this.#log = log;
    this.#ending = ending;
    const overhead = kind.overhead(config);
    this.#tunnelLog = new TunnelLog({
      ...{ log, overhead, encapsulation: config.encapsulation },
      mtu: () => this.#keeper?.plan.mtu ?? 0,
      count: async () => (await this.#dataPlane?.counters())?.tunnels,
    });
    this.#observer = new Observer({
      dataPlane: () => this.#dataPlane,
      state: () => this.#presentState,
      obstacle: (vm) => this.#obstacle(vm),
      onChanges: (changes) => this.#tunnelLog.answers(changes),
    });
    this.#report = new StatusReport(config, overhead, this.#observer);
  }

  async start(wait: number): Promise<void> {
    const config = this.#config;
    this.#observer.start();
    const routes = {
      status: () => this.#status(),
      tunnels: () => this.#tunnels(),
      mappings: async () => config.mappings.map(prefixesOf),
      programs: async () => this.#programs(),
    };
    if (config.attach) this.#attacher = Attacher.open(config.runDir, limitedLog(this.#log));
    const runDir = await RunDir.open(config.runDir, routes, this.#attacher?.routes);
    this.#runDir = runDir;
    // Until here there is nothing to clean up.
    onStop((count) => (count === 1 ? this.#ending.begin() : this.#ending.hurry()));
    const { journal } = runDir;
    if (journal.isDamaged)
      this.#log.warn('the journal is damaged: what the machine itself tells to be ours is taken over');
    this.#lock = await lockDevice(config.device);
    const { strangers } = this.#lock;
    if (strangers > 0) this.#log.warn({ strangers }, 'processes that are no daemons have names of the device lock');
    const machine = new Machine(journal);
    this.#machine = machine;
    // The catch-all comes before anything else: from now on no packet for the overlay leaves in plain.
    machine.apply(catchAllThings(config.mappings));
    const { plan, underlay } = await this.#awaitNetwork(machine, runDir, wait);
    this.#plan = plan;
    runDir.leaveMesh(meshOf(config, plan));
    this.#removeOldAddresses(machine, plan);
    const { device: at, others } = underlay;
    this.#log.info({ address: formatAddress(plan.local), device: at, others }, 'underlay address');
    const overhead = this.#kind.overhead(config);
    const dataPlane = this.#kind.create(config, {
      ...{ plan, machine, log: this.#log },
      onDue: () => this.#keeper?.look(),
      onTunnels: (change, vms) => this.#tunnelLog.changed(change, vms),
      onLearnt: (tunnels) => this.#tunnelLog.learnt(tunnels, (vm) => this.#observer.tunnels.pathMtu(vm)),
    });
    this.#dataPlane = dataPlane;
    const barrier = new Barrier(machine, barrierSettings(config));
    this.#barrier = barrier;
    const keeper = new Keeper({
      ...{ config, plan, overhead, machine, dataPlane, barrier, log: this.#log },
      keepRunDir: () => runDir.keep(),
      onFollowed: (now) => runDir.leaveMesh(meshOf(config, now)),
    });
    this.#keeper = keeper;
    await keeper.start();
    runDir.watch(() => keeper.look());
    this.#lookOut = lookOut({
      config,
      plan: () => keeper.plan,
      guarded: () => keeper.guarded,
      machine,
      dataPlane,
      barrier,
      log: this.#log,
    });
    this.#state = 'running';
    const { pid, vm, overlayAddress, device, dataPlane: name, encapsulation, mtu } = await this.#status();
    const { fastPath, ...rest } = dataPlane.status;
    const fast = fastPath && { fastPath: fastPath.state, fastPathObstacle: fastPath.obstacle };
    this.#log.info({ pid, vm, overlayAddress, device, dataPlane: name, encapsulation, mtu, ...rest, ...fast }, 'ready');
  }

  /** Waits until this machine has an underlay address. */
  async #awaitNetwork(
    machine: Machine,
    runDir: RunDir,
    wait: number,
  ): Promise<{ plan: NetworkPlan; underlay: Underlay }> {
    const deadline = performance.now() + wait;
    for (;;) {
      // So far only the catch-all and the run directory have to be kept.
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
      const { signal } = this.#ending;
      await sleep(Math.min(WAIT_INTERVAL, Math.max(deadline - performance.now(), 0)), undefined, { signal });
    }
  }

  /** This machine may have been another VM, whose overlay address nobody is to reach here. */
  #removeOldAddresses({ netlink }: Machine, { mappings, local }: NetworkPlan): void {
    const own = slicesOf(mappings, local);
    const isOwn = (address: Address) => own.some((slice) => contains(slice, address));
    const removed = unusedAddresses(netlink).flatMap((found) => {
      const at = addressOf(found.local);
      return at && !isOwn(at) ? removeOwnAddress(netlink, found) : [];
    });
    if (removed.length > 0) this.#log.warn({ removed }, 'removed what attaching left when this was another VM');
  }

  /**
   * Ends what `start` got done; each step is tried, whatever became of the one before. Resolves to whether
   * all went well, which the log tells.
   */
  async stop(): Promise<boolean> {
    const isReady = this.#state === 'running';
    const isFast = this.#dataPlane?.status.fastPath?.state === 'on';
    this.#state = 'stopping';
    const steps = [
      () => this.#observer.close(),
      () => this.#finishAttaching(),
      () => this.#lookOut?.close(),
      () => this.#tunnelLog.close(),
      () => this.#keeper?.close(),
      () => this.#dataPlane?.close(),
      () => this.#machine && this.#undo(this.#machine, isReady),
      () => this.#closeMachine(),
      () => this.#runDir?.close(this.#isInUse),
      () => this.#lock?.release(),
    ];
    let isClean = true;
    for (const step of steps) {
      try {
        await this.#ending.within(step());
      } catch (error) {
        isClean = false;
        this.#log.error({ error: String(error) }, 'could not clean up; inlay down tries again');
      }
    }
    if (!isReady || !isClean) return isClean;
    this.#log.info(`stopped; ${this.#outlook(isFast)}`);
    return isClean;
  }

  /** What becomes of packets from now on; `isFast` says whether the fast path is on. */
  #outlook(isFast: boolean): string {
    if (this.#kind.lasts) return 'the kernel goes on forwarding to the VMs it knows, until inlay down';
    const lost = 'packets for the overlay are unreachable until inlay down';
    return isFast ? `the fast path goes on for ${LEASE_SECONDS} s between containers; then ${lost}` : lost;
  }

  /** From here on the shim finds no socket, and Node does the work. */
  async #finishAttaching(): Promise<void> {
    const finished = this.#runDir?.finishAttaching();
    await this.#attacher?.close();
    await finished;
  }

  #undo(machine: Machine, isReady: boolean): void {
    if (!isReady) machine.undoStart();
    // The catch-all and the barrier stay, and where the kernel forwards by itself, all.
    else machine.undo(({ thing }) => !this.#kind.lasts && !staysAfterStop(thing));
  }

  #closeMachine(): void {
    if (!this.#machine) return;
    this.#isInUse = attachedCount(this.#machine.netlink, this.#runDir?.mesh) > 0;
    this.#machine.close();
  }

  #obstacle(vm: number): string | undefined {
    const plan = this.#keeper?.plan;
    return plan && this.#machine && obstacleTowards(this.#machine.netlink, ipv4(vm), plan.local);
  }

  get #presentState(): State {
    const isDegraded = this.#state === 'running' && this.#troubles.length > 0;
    return isDegraded ? 'degraded' : this.#state;
  }

  get #troubles(): Trouble[] {
    const obstacle = this.#attacher?.obstacle;
    return [...(this.#keeper?.troubles ?? []), ...(obstacle ? [obstacle] : [])];
  }

  #status(): Promise<Status> {
    const troubles = this.#troubles;
    return this.#report.status({
      state: this.#presentState,
      troubles: this.#state === 'waiting' && this.#waitsFor ? [this.#waitsFor] : troubles,
      remarks: this.#lookOut?.remarks ?? [],
      repaired: this.#keeper?.repaired ?? 0,
      plan: this.#keeper?.plan ?? this.#plan,
      dataPlane: this.#dataPlane,
      barrier: this.#barrier,
      containers: this.#containers,
    });
  }

  get #containers(): ContainersStatus {
    return { attached: this.#keeper?.attached ?? 0, attach: this.#attacher ? 'on' : 'off' };
  }

  /** The programs of the fast path, for people. */
  #programs(): Partial<Listings> {
    const plan = this.#keeper?.plan ?? this.#plan;
    return plan && hasFastPath(this.#config) ? listings(this.#config, plan) : {};
  }

  #tunnels(): Promise<TunnelStatus[]> {
    return this.#report.tunnels(this.#keeper?.plan ?? this.#plan, this.#dataPlane);
  }
}

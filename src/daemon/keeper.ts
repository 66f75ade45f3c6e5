/**
 * Keeps the machine as the data plane needs it: watches, compares, repairs, and says what cannot be put
 * right.
 */
import type { Config } from '../config/config.ts';
import { AttachmentKeeper } from '../containers/attachment-keeper.ts';
import type { DataPlane } from '../dataplane/dataplane.ts';
import { InlayError } from '../errors.ts';
import type { Log } from '../log.ts';
import { type LimitedLog, limitedLog } from '../log-limit.ts';
import { type Barrier, withBarrier } from '../machine/barrier/barrier.ts';
import { Guard, type GuardedDevice } from '../machine/guard.ts';
import { type Machine, type Outcome, type Trouble, troubleOf } from '../machine/machine.ts';
import { catchAllThings, type NetworkPlan, type Thing } from '../machine/state.ts';
import { addressList, hasAddress, underlayMtu, wayToOthers } from '../machine/underlay.ts';
import { Watch } from '../machine/watch.ts';
import { formatAddress } from '../mesh/address.ts';
import { slicesOf } from '../mesh/mapping.ts';
import { checkUnderlayMtu, meshOf, overlayMtu } from './network.ts';

/** ms between two log lines about the same repair, which somebody may undo again and again. */
const LOG_INTERVAL = 10_000;

export interface KeeperOptions {
  config: Config;
  plan: NetworkPlan;
  /** Bytes of all headers around a packet. */
  overhead: number;
  machine: Machine;
  dataPlane: DataPlane;
  barrier: Barrier;
  log: Log;
  /** Looks at the run directory each time; returns what was wrong. Throws what cannot be put right. */
  keepRunDir: () => Promise<string | undefined>;
  /** Told a plan that has changed. */
  onFollowed: (plan: NetworkPlan) => void;
}

export class Keeper {
  readonly #options: KeeperOptions;
  /**
   * For what users of this machine can cause: they may fill the run directory's file system, or all that it
   * has of descriptors, again and again.
   */
  readonly #limited: LimitedLog;
  #plan: NetworkPlan;
  #watch: Watch | undefined;
  #guard: Guard | undefined;
  #attachments: AttachmentKeeper | undefined;
  #troubles: readonly Trouble[] = [];
  /** The troubles that the log has told. */
  #told: readonly Trouble[] = [];
  /** How many things were put right. */
  repaired = 0;
  /** When which repair was last logged, in ms. */
  readonly #logged = new Map<string, number>();
  /** The look under way, if there is one. The next begins when it is done. */
  #work: Promise<void> = Promise.resolve();
  #isDue = false;
  /** Whether the plan has changed since the last look. */
  #hasFollowed = false;
  #isComplete = true;
  /** Whether the memory of the routes is complete: no notification was lost since it was loaded. */
  #isTableWhole = true;
  #closed = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#limited = limitedLog(options.log);
    this.#plan = options.plan;
  }

  get plan(): NetworkPlan {
    return this.#plan;
  }

  /** What cannot be put right at present. */
  get troubles(): readonly Trouble[] {
    return this.#troubles;
  }

  /** Brings the machine to what it should be, and keeps it so from then on. Throws what is in the way. */
  async start(): Promise<void> {
    const { config, machine, dataPlane, barrier, log } = this.#options;
    this.#loadTable();
    barrier.follow(this.#plan);
    const things = this.#things();
    const removed = [...machine.keepOnly(things), ...machine.removeUnknownPrograms(things)];
    if (removed.length > 0) log.warn({ removed }, 'removed what an earlier daemon left');
    await dataPlane.prepare(this.#plan);
    let outcome = machine.apply(this.#things());
    barrier.settle(outcome);
    await dataPlane.settle(outcome);
    if (outcome.refused.length > 0) {
      outcome = machine.apply(this.#things());
      await dataPlane.settle(outcome);
    }
    log.debug({ done: outcome.repaired }, 'the machine is set up');
    this.#watch = new Watch({
      port: machine.netlink.port,
      links: () => this.#links(),
      concerns: (message) => {
        const isOurs = machine.table.hear(message);
        if (machine.table.containerRoutes.size > 0) this.#guard?.look();
        return dataPlane.concerns(message) || isOurs;
      },
      onDue: (isComplete) => this.#due(isComplete),
    });
    this.#attachments = AttachmentKeeper.open(meshOf(config, this.#plan));
    this.#guard = new Guard({
      ...{ machine, attachments: this.#attachments },
      plan: () => this.#plan,
      onRepaired: (what) => this.#report([what]),
    });
    this.#tell([...barrier.troubles, ...dataPlane.troubles, ...this.#hidingRoutes()]);
  }

  /** Containers' devices. */
  get guarded(): Iterable<GuardedDevice> {
    return this.#guard?.devices ?? [];
  }

  /** How many containers are attached. */
  get attached(): number {
    return this.#guard?.attached ?? 0;
  }

  /** Looks at the machine soon. */
  look(): void {
    this.#watch?.look();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#guard?.close();
    this.#attachments?.close();
    this.#watch?.close();
    await this.#work;
  }

  #things(): Thing[] {
    const { barrier, dataPlane } = this.#options;
    return [...catchAllThings(this.#plan.mappings), ...withBarrier(dataPlane.things(), barrier.thing)];
  }

  /** The devices whose changes matter: ours, and those that the underlay is reached by. */
  #links(): number[] {
    const { machine, dataPlane } = this.#options;
    const { device, mappings, local } = this.#plan;
    const underlay = wayToOthers(machine.netlink, mappings, local)?.oif;
    return [...new Set([machine.links.get(device), underlay, ...dataPlane.links])].filter((link) => link !== undefined);
  }

  #due(isComplete: boolean): void {
    this.#isComplete &&= isComplete;
    if (this.#isDue || this.#closed) return;
    this.#isDue = true;
    this.#work = this.#work
      .then(async () => {
        this.#isDue = false;
        if (!this.#closed) await this.#lookNow();
      })
      .catch((error) => {
        this.#limited('warn', 'look failed', { error: String(error) }, 'a look at the machine failed');
      });
  }

  async #lookNow(): Promise<void> {
    const { machine, dataPlane, barrier, keepRunDir } = this.#options;
    const isComplete = this.#isComplete && this.#isTableWhole;
    this.#isComplete = true;
    this.#isTableWhole = isComplete;
    const repaired: string[] = [];
    const troubles: Trouble[] = [];
    const attempt = async (work: () => Promise<string | undefined>) => {
      try {
        const wrong = await work();
        if (wrong !== undefined) repaired.push(wrong);
      } catch (error) {
        troubles.push(troubleOf(error));
      }
    };
    await attempt(keepRunDir);
    await attempt(async () => this.#followUnderlay());
    await attempt(async () => barrier.follow(this.#plan));
    await attempt(() => dataPlane.prepare(this.#plan));
    await attempt(async () => {
      if (!isComplete) {
        this.#loadTable();
        this.#guard?.missed();
        dataPlane.reload();
      }
      this.#isTableWhole = true;
      return undefined;
    });
    await attempt(async () => {
      machine.keepOnly(this.#things());
      return undefined;
    });
    await attempt(async () => {
      const things = this.#things();
      const outcome: Outcome = machine.ensure(things);
      repaired.push(...outcome.repaired);
      troubles.push(...outcome.troubles);
      barrier.settle(outcome);
      troubles.push(...barrier.troubles);
      await dataPlane.settle({ ...outcome, repaired: [...repaired] });
      this.#watch?.follow();
      troubles.push(...dataPlane.troubles, ...this.#hidingRoutes());
      return undefined;
    });
    if (this.#closed) return;
    // If the underlay has another MTU, others did not change what differs: it is no repair.
    if (!this.#hasFollowed) this.#report(repaired);
    this.#hasFollowed = false;
    this.#tell(troubles);
  }

  #loadTable(): void {
    const { mappings, local } = this.#plan;
    this.#options.machine.loadTable(mappings, slicesOf(mappings, local));
  }

  /**
   * The underlay's MTU may change at any time, and is followed. The underlay address may not: with another
   * address this is another VM.
   */
  #followUnderlay(): undefined {
    const { config, machine, overhead, log, onFollowed } = this.#options;
    const { mappings, local, mtu: before } = this.#plan;
    const { netlink } = machine;
    if (!hasAddress(netlink, local)) {
      const has = addressList(netlink, this.#plan.device);
      throw new InlayError('ERR_FAILED', `underlay address ${formatAddress(local)} has gone`, {
        hint: `this machine has ${has}: give the address back; or start the daemon again, which then is another VM, so that its containers have to be detached and attached anew`,
      });
    }
    const found = underlayMtu(netlink, mappings, local);
    if (found === undefined) return;
    const mtu = overlayMtu(config, overhead, found);
    if (mtu !== before) {
      this.#plan = { ...this.#plan, mtu };
      this.#hasFollowed = true;
      onFollowed(this.#plan);
      log.info({ mtu, before, underlay: found }, 'the underlay has another MTU: the overlay follows');
    }
    // The smaller of the two is followed already: what is left is to say so.
    checkUnderlayMtu(config, found);
  }

  #hidingRoutes(): Trouble[] {
    return this.#options.machine.table.hiding().map((route) => ({
      what: `a route of others hides VMs of the overlay: ${route}`,
      hint: 'remove it, or choose an overlay that this machine does not use otherwise',
    }));
  }

  #report(repaired: readonly string[]): void {
    if (repaired.length === 0) return;
    this.repaired += repaired.length;
    const now = performance.now();
    const found = repaired.filter((what) => now - (this.#logged.get(kindOfRepair(what)) ?? -Infinity) >= LOG_INTERVAL);
    for (const what of found) this.#logged.set(kindOfRepair(what), now);
    if (found.length > 0) this.#options.log.warn({ found }, 'put right what others changed');
  }

  /** Says what is new, and what is over; what lasts is told once. */
  #tell(all: readonly Trouble[]): void {
    const troubles = all.filter(({ what }, i) => all.findIndex((each) => each.what === what) === i);
    const isIn = (list: readonly Trouble[], { what }: Trouble) => list.some((each) => each.what === what);
    // A new trouble may be over at once, while others are still changing things. So it is told only if the
    // next look finds it again.
    const lasting = troubles.filter((each) => isIn(this.#troubles, each));
    if (lasting.length < troubles.length) this.look();
    for (const { what, hint } of lasting.filter((each) => !isIn(this.#told, each)))
      this.#limited('warn', what, { hint }, `degraded: ${what}`);
    for (const { what } of this.#told.filter((each) => !isIn(troubles, each)))
      this.#limited('info', `over: ${what}`, { trouble: what }, 'over');
    if (this.#told.length > 0 && troubles.length === 0) this.#limited('info', 'running again', {}, 'running again');
    this.#troubles = troubles;
    this.#told = lasting;
  }
}

/** The kind of what was wrong, without its values, which may differ each time. */
export function kindOfRepair(what: string): string {
  const [device, wrong = ''] = /^a container's device has (.*)$/s.exec(what) ?? [];
  // Of thousands of devices and addresses, those that differ only in that are of one kind.
  if (device !== undefined) return `device: ${wrong.replace(/conf\.\S+\.(\w+)/, '$1').replace(/ \d.*$/s, '')}`;
  return what.replace(/ (is|was|has|:) .*$/, '');
}

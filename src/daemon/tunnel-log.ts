/**
 * What the log says about tunnels: never more than a few lines a minute, however many of them come, go or
 * change.
 */

import type { Config } from '../config/config.ts';
import type { Learnt } from '../dataplane/dataplane.ts';
import type { Log } from '../log.ts';
import { type LimitedLog, limitedLog } from '../log-limit.ts';
import { formatAddress, ipv4 } from '../mesh/address.ts';
import { reasonText, silentHint, tunnelMtu, unreachableHint } from '../observe/status.ts';
import type { TunnelChange } from '../observe/tunnel-watch.ts';

/** ms from the first change to the line that sums up. */
const INTERVAL = 60_000;
/** Lines in a minute: about one tunnel each that came or went (level debug), and about what happened to tunnels. */
const MOST_CHANGES = 50;
const MOST_EVENTS = 20;
/** Events that are remembered, so that none is told twice in an interval. */
const MAX_TOLD = 10_000;
/** VMs with another way at once that are told one by one. */
const MOST_AT_ONCE = 16;

export interface TunnelLogOptions {
  log: Log;
  /** Bytes of all headers around a packet. */
  overhead: number;
  encapsulation: Config['encapsulation'];
  /** Bytes of the longest packet that the device takes now. */
  mtu: () => number;
  /** How many tunnels are open now; undefined while nothing forwards. */
  count: () => Promise<number | undefined>;
}

export class TunnelLog {
  readonly #options: TunnelLogOptions;
  readonly #change: LimitedLog;
  readonly #event: LimitedLog;
  /** Runs while something has happened that no summary followed. */
  #timer: NodeJS.Timeout | undefined;
  /** Since the last summary. */
  #opened = 0;
  #closed = 0;
  /** What was told last of a VM, since then. */
  readonly #told = new Map<number, string>();

  constructor(options: TunnelLogOptions) {
    this.#options = options;
    this.#change = limitedLog(options.log, { most: MOST_CHANGES, interval: INTERVAL });
    this.#event = limitedLog(options.log, { most: MOST_EVENTS, interval: INTERVAL });
  }

  /** The tunnels to these VMs have come or gone. */
  changed(change: 'opened' | 'closed', vms: readonly number[]): void {
    if (change === 'opened') this.#opened += vms.length;
    else this.#closed += vms.length;
    for (const vm of vms) this.#change('debug', `tunnel ${change}`, { vm: nameOf(vm) }, `tunnel ${change}`);
    this.#begin();
  }

  /**
   * The underlay has said something about the ways to VMs. Where the data plane does not say what was known
   * before, there is the path MTU at the last look to compare with.
   */
  learnt(tunnels: readonly Learnt[], atLook: (vm: number) => number | undefined): void {
    const { log } = this.#options;
    const unreachable = tunnels.filter((tunnel) => tunnel.unreachable !== undefined).length;
    if (tunnels.length <= MOST_AT_ONCE) for (const tunnel of tunnels) this.#learntOne(tunnel, atLook(tunnel.vm));
    else if (unreachable > 0) log.warn({ tunnels: tunnels.length, unreachable }, 'VMs unreachable');
    else log.info({ tunnels: tunnels.length }, 'paths of tunnels changed');
  }

  #learntOne({ vm, pathMtu, before }: Learnt, atLook: number | undefined): void {
    // Whether the VM can be reached is told by `answers`.
    if (pathMtu === (before ? before.pathMtu : atLook)) return;
    const mtu = tunnelMtu(this.#options.mtu(), pathMtu, this.#options.overhead);
    this.#tell('info', vm, { mtu }, 'path of the tunnel changed');
  }

  /**
   * VMs do not answer, cannot be reached, or are heard again. Traffic in one direction is legitimate: only a
   * VM that was never heard is suspect.
   */
  answers(changes: readonly TunnelChange[]): void {
    for (const change of changes) {
      const { vm, state, why, unanswered, heard } = change;
      if (state === 'unreachable') {
        const hint = typeof why === 'number' ? unreachableHint(why) : undefined;
        this.#tell('warn', vm, { why: reasonText(why), hint }, 'VM unreachable');
      } else if (state === 'silent') {
        const hint = silentHint(change, this.#options.encapsulation);
        const facts = { sent: unanswered.packets, received: 0, seconds: Math.round(unanswered.since / 1000), hint };
        this.#tell(heard === undefined ? 'warn' : 'info', vm, facts, 'VM silent');
      } else this.#tell('info', vm, {}, 'VM heard again');
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /**
   * What happened to one tunnel. It may be forged and repeated: what was told last of a VM is not told again in
   * an interval, and all VMs together have a few lines.
   */
  #tell(level: 'info' | 'warn', vm: number, facts: object, message: string): void {
    if (this.#told.get(vm) === message) return;
    if (this.#told.size < MAX_TOLD || this.#told.has(vm)) this.#told.set(vm, message);
    this.#event(level, message, { vm: nameOf(vm), ...facts }, message);
    this.#begin();
  }

  #begin(): void {
    this.#timer ??= setTimeout(() => void this.#sumUp(), INTERVAL).unref();
  }

  async #sumUp(): Promise<void> {
    const [opened, closed] = [this.#opened, this.#closed];
    this.#timer = undefined;
    this.#opened = 0;
    this.#closed = 0;
    this.#told.clear();
    if (opened + closed === 0) return;
    const open = await this.#options.count().catch(() => undefined);
    if (open === undefined) return;
    const text = `tunnels: ${open} open, ${opened} opened, ${closed} closed in the last minute`;
    this.#options.log.info({ open, opened, closed }, text);
  }
}

function nameOf(vm: number): string {
  return formatAddress(ipv4(vm));
}

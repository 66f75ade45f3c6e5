/** Keeps the programs that check sources where they belong; where that cannot be, says why. */
import { SystemError } from '../../errors.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import type { Log } from '../../log.ts';
import { attachFilter, removeFilter } from '../../machine/filter.ts';
import type { Journal } from '../../machine/journal.ts';
import type { NetworkPlan } from '../../machine/steps.ts';
import { SourceCheck } from './source-check.ts';
import { UnderlayMarks } from './underlay-marks.ts';

export interface GuardOptions {
  plan: NetworkPlan;
  /** The VXLAN network identifier; undefined for GRE. */
  vni: number | undefined;
  /** Bytes of the outer headers. */
  overhead: number;
  netlink: Netlink;
  journal: Journal;
  log: Log;
}

export class Guard {
  readonly #options: GuardOptions;
  /** VXLAN only. */
  readonly marks: UnderlayMarks | undefined;
  #check: SourceCheck | undefined;
  #obstacle: string | undefined;
  #wasAttached = false;
  /** What was last said of devices that the mark program could not be put at. */
  #told = '';

  constructor(options: GuardOptions) {
    this.#options = options;
    const { plan, vni, overhead } = options;
    if (vni !== undefined) this.marks = new UnderlayMarks(plan.mappings, plan.local, vni);
    try {
      this.#check = new SourceCheck({
        mappings: plan.mappings,
        local: plan.local,
        isVxlan: vni !== undefined,
        overhead,
      });
    } catch (error) {
      this.#giveUp(error);
    }
  }

  /** Undefined where sources are not checked. */
  get check(): SourceCheck | undefined {
    return this.#check;
  }

  /** Why they are not. */
  get obstacle(): string | undefined {
    return this.#obstacle;
  }

  /** Puts the programs where they are missing. For a device that is not up yet, so that no packet comes unchecked. False: to be tried again. */
  attach(): boolean {
    const { plan, netlink, journal, log } = this.#options;
    try {
      if (this.#check) {
        attachFilter(netlink, plan.device, 'egress', this.#check.egress);
        attachFilter(netlink, plan.device, 'ingress', this.#check.ingress);
        this.#wasAttached = true;
      }
    } catch (error) {
      if (this.#wasAttached) throw error; // It can be done: the device may have gone just now.
      this.#giveUp(error);
    }
    if (!this.#check) {
      // Those of an earlier daemon may have other mappings.
      for (const place of ['egress', 'ingress'] as const) removeFilter(netlink, plan.device, place);
      return true;
    }
    const failures = this.marks?.attach(netlink, plan.device, journal) ?? [];
    const told = failures.map(({ device, error }) => `${device}: ${error.message}`).join('; ');
    if (told !== this.#told && told !== '')
      log.warn({ obstacle: told }, 'what comes in by some devices of the underlay is not believed');
    this.#told = told;
    return failures.length === 0;
  }

  close(): void {
    this.#check?.close();
    this.marks?.close();
  }

  #giveUp(error: unknown): void {
    if (!(error instanceof SystemError)) throw error;
    const isForbidden = error.syscall === 'bpf' && error.code === 'EPERM';
    this.#obstacle = isForbidden ? 'CAP_BPF is missing' : error.message;
    this.#check?.close();
    this.#check = undefined;
    const what = "sources are not checked: another VM can speak for any VM's containers, a container for others";
    this.#options.log.warn({ obstacle: this.#obstacle }, what);
  }
}

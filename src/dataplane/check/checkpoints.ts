/** The programs that check sources, and where they belong; where that cannot be, why. */
import { DROP_SPOOFED_SOURCE } from '../../core/abi.ts';
import type { Message } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { SystemError } from '../../linux/system-error.ts';
import type { Log } from '../../log.ts';
import { type Outcome, type Trouble, troubleOf } from '../../machine/machine.ts';
import type { FilterThing, NetworkPlan } from '../../machine/state.ts';
import { DropLog, type DropSample } from '../drop-log.ts';
import { DropWatch } from './drop-watch.ts';
import { SourceCheck } from './source-check.ts';
import { UnderlayMarks } from './underlay-marks.ts';

export interface CheckpointsOptions {
  plan: NetworkPlan;
  /** The VXLAN network identifier; undefined for GRE. */
  vni: number | undefined;
  /** Bytes of the outer headers. */
  overhead: number;
  netlink: Netlink;
  log: Log;
}

const UNCHECKED = "sources are not checked: another VM can speak for any VM's containers, a container for others";

export class Checkpoints {
  readonly #options: CheckpointsOptions;
  /** VXLAN only. */
  readonly #marks: UnderlayMarks | undefined;
  #check: SourceCheck | undefined;
  #watch: DropWatch | undefined;
  #obstacle: string | undefined;
  #wasAttached = false;
  /** Why the programs are not at the overlay's device now, though they can be. */
  #refusal: Error | undefined;

  constructor(options: CheckpointsOptions) {
    this.#options = options;
    const { plan, vni, overhead } = options;
    const { mappings, local } = plan;
    try {
      this.#check = new SourceCheck({ mappings, local, isVxlan: vni !== undefined, overhead });
      if (vni !== undefined) this.#marks = new UnderlayMarks(plan, vni);
      const drops = new DropLog(options.log);
      this.#watch = new DropWatch(this.#check, (sample) => drops.add(this.#withSender(sample)));
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

  /** Programs that are missing, and devices of the underlay by which nothing is believed. */
  get troubles(): readonly Trouble[] {
    if (!this.#check) return [];
    return [...(this.#refusal ? [troubleOf(this.#refusal)] : []), ...(this.#marks?.troubles ?? [])];
  }

  /** Interface indexes of the devices of the underlay that have a program. */
  get links(): readonly number[] {
    return this.#marks?.links ?? [];
  }

  concerns(message: Message): boolean {
    return this.#marks?.concerns(message) ?? false;
  }

  /** Changes of routes were not heard. */
  reload(): void {
    this.#marks?.reload();
  }

  /** The filters as they should be now. Without a check, those of an earlier daemon go: they may have other mappings. */
  filters(): FilterThing[] {
    const { plan, netlink } = this.#options;
    const { device } = plan;
    const at = (place: FilterThing['place'], program: number | undefined): FilterThing => ({
      ...{ kind: 'filter', device, place, optional: true },
      ...(program !== undefined && { program }),
    });
    const marks = this.#check ? (this.#marks?.filters(netlink) ?? []) : [];
    return [at('egress', this.#check?.egress), at('ingress', this.#check?.ingress), ...marks];
  }

  /** Gives the check up where the kernel does not take its programs. Where it has taken them, it will again: the device may have gone just now. */
  settle({ refused }: Outcome): void {
    const mine = refused.find(({ thing }) => thing.kind === 'filter' && thing.device === this.#options.plan.device);
    this.#refusal = mine?.error;
    if (!mine) this.#wasAttached = true;
    else if (this.#check && !this.#wasAttached) this.#giveUp(mine.error);
  }

  close(): void {
    this.#watch?.close();
    this.#check?.close();
    this.#marks?.close();
  }

  /** With VXLAN, only the program at the underlay's device knows who sent a spoofed packet. */
  #withSender(sample: DropSample): DropSample {
    const outerSource = sample.verdict === DROP_SPOOFED_SOURCE ? this.#marks?.doubted : undefined;
    return outerSource === undefined ? sample : { ...sample, outerSource };
  }

  #giveUp(error: unknown): void {
    const isForbidden = error instanceof SystemError && error.syscall === 'bpf' && error.code === 'EPERM';
    this.#obstacle = isForbidden ? 'CAP_BPF is missing' : (error as Error).message;
    this.#watch?.close();
    this.#check?.close();
    this.#check = undefined;
    this.#options.log.warn({ obstacle: this.#obstacle }, UNCHECKED);
  }
}

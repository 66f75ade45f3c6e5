/** The barrier of a daemon: what its rules follow from, whether they stand, and what they have dropped. */
import { readFileSync } from 'node:fs';
import { errorCode } from '../../errors.ts';
import { tableOf } from '../../linux/netfilter/own-tables.ts';
import { type Machine, type Outcome, type Trouble, troubleOf } from '../machine.ts';
import type { Remark } from '../remarks/remark.ts';
import type { BarrierThing, NetworkPlan, Thing } from '../state.ts';
import { countsIn, WITHOUT_NFTABLES } from '../things/barrier.ts';
import { type BarrierFacts, DROPS, type DropName } from './rules.ts';
import { Uplinks } from './uplinks.ts';

/** The part of the facts that does not change. */
export type BarrierSettings = Pick<BarrierFacts, 'access' | 'vni' | 'users'>;

export interface BarrierStatus {
  state: 'on' | 'off';
  /** Why it is off, or what it does not cover. */
  obstacle?: string;
  /** Packets that were dropped, by name. */
  drops: Partial<Record<DropName, number>>;
}

const PORT_RANGE = '/proc/sys/net/ipv4/ip_local_port_range';
/** Where the kernel does not tell, as in some containers. */
const USUAL_FIRST_PORT = 32768;
/** ms after the last packet that was not listed for which the remark stays. */
const LASTING = 60_000;
const NO_FIB =
  'this kernel has no nft_fib: a container is held to its own source by rp_filter alone, and to this VM by its overlay and underlay addresses';

export class Barrier {
  readonly #machine: Machine;
  readonly #settings: BarrierSettings;
  readonly #uplinks: Uplinks;
  #thing: BarrierThing | undefined;
  #failure: Error | undefined;
  /** Packets of containers that nothing lists: at the last look, and when there were more, in ms. */
  #refused = 0;
  #refusedAt = -Infinity;

  constructor(machine: Machine, settings: BarrierSettings) {
    this.#machine = machine;
    this.#settings = settings;
    this.#uplinks = new Uplinks(machine.netlink);
  }

  /** Looks what the rules follow from. */
  follow(plan: NetworkPlan): undefined {
    this.#thing = barrierThing(plan, this.#settings, this.#uplinks);
  }

  /** The table as it should be now. */
  get thing(): BarrierThing | undefined {
    return this.#thing;
  }

  /** Told what became of it. */
  settle({ refused }: Outcome): void {
    this.#failure = refused.find(({ thing }) => thing.kind === 'barrier')?.error;
  }

  /** A kernel without nftables is no trouble, but a remark: the operator has to do without. */
  get troubles(): Trouble[] {
    return this.#failure && !this.#isWithout ? [troubleOf(this.#failure)] : [];
  }

  get status(): BarrierStatus {
    if (this.#failure) return { state: 'off', obstacle: this.#why, drops: {} };
    const { hasFib } = this.#machine.barrier;
    return { state: 'on', ...(hasFib ? {} : { obstacle: NO_FIB }), drops: this.#drops() };
  }

  /** `now` in ms. */
  remarks(now: number): Remark[] {
    const { state, obstacle = '', drops } = this.status;
    if (state === 'off') {
      return [
        {
          key: 'barrier',
          what: `no rules keep containers and others from speaking as VMs: ${obstacle}`,
          hint: 'SECURITY.md has what to filter instead',
        },
      ];
    }
    const refused = drops['container-access'] ?? 0;
    if (refused > this.#refused) this.#refusedAt = now;
    this.#refused = refused;
    if (now - this.#refusedAt > LASTING) return [];
    return [
      {
        key: 'container-access',
        what: `containers send to VMs' addresses that container-access does not list: ${refused} packets were dropped`,
        hint: "list what they may reach with --container-access, such as vm:53 or 192.168.0.2:53; tcpdump on a container's device shows what it sends",
      },
    ];
  }

  #drops(): BarrierStatus['drops'] {
    try {
      const counts = countsIn([{ rules: this.#machine.tables.rules(this.#table) }]);
      const names = Object.keys(DROPS) as DropName[];
      return Object.fromEntries(
        names.flatMap((name) => {
          const packets = counts.get(name)?.packets ?? 0;
          return packets > 0 ? [[name, packets]] : [];
        }),
      );
    } catch {
      return {}; // The table changes just now.
    }
  }

  get #table(): string {
    return this.#thing?.table ?? '';
  }

  get #isWithout(): boolean {
    return WITHOUT_NFTABLES.includes(errorCode(this.#failure) ?? '');
  }

  get #why(): string {
    return this.#isWithout ? 'this kernel has no nftables (nf_tables)' : (this.#failure?.message ?? '');
  }
}

/** Puts the barrier among the things of a data plane: the device is there, but not up yet. */
export function withBarrier(things: readonly Thing[], barrier: BarrierThing | undefined): Thing[] {
  const at = things.findIndex(({ kind }) => kind === 'link') + 1;
  return barrier ? [...things.slice(0, at), barrier, ...things.slice(at)] : [...things];
}

export function barrierThing(plan: NetworkPlan, settings: BarrierSettings, uplinks: Uplinks): BarrierThing {
  const { device, local, mappings } = plan;
  return {
    kind: 'barrier',
    table: tableOf(device),
    facts: {
      ...{ device: { name: device, index: 0 }, local, mappings, uplinks: uplinks.devices(plan) },
      ...{ ...settings, firstDynamicPort: firstPort() },
    },
  };
}

function firstPort(): number {
  try {
    return Number(/^\d+/.exec(readFileSync(PORT_RANGE, 'utf8'))?.[0] ?? USUAL_FIRST_PORT);
  } catch {
    return USUAL_FIRST_PORT;
  }
}

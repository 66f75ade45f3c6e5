/**
 * The inbound program at the device that leads to other VMs. Once it is there it stays, whatever comes into the way of the fast
 * path, so that nothing is lost when that goes. There is one for each device: of several daemons the first has it.
 */
import { heldDevices } from '../../machine/device-locks.ts';
import { DAEMON } from '../../machine/journal.ts';
import type { Machine, Outcome } from '../../machine/machine.ts';
import { clsactFor, type FilterThing, keyOf, type Thing } from '../../machine/state.ts';
import { programAt } from '../../machine/things/filter.ts';
import type { Uplink } from './obstacles/obstacles.ts';

/** ms between two looks for other daemons. */
const PAUSE = 5000;
/** Filters at containers' devices come with it. */
const CONTAINERS: Thing = { kind: 'container-filters' };

export class UplinkFilter {
  readonly #machine: Machine;
  #uplink: Uplink | undefined;
  /** Whether a program of this process was there. */
  #was = false;
  /** When other daemons are looked for next, in ms. */
  #nextLook = 0;
  #haveOthers = false;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The device that leads to other VMs, or did last. */
  get uplink(): Uplink | undefined {
    return this.#uplink;
  }

  /** The device may be another than before, or have another name. */
  follow(uplink: Uplink): void {
    this.#uplink = uplink;
  }

  /** What there is to be with this program. Before it is ready, an earlier daemon's stays. */
  things(program: number, isReady: boolean): Thing[] {
    const thing = this.#thing;
    return thing ? [CONTAINERS, { ...thing, program, ...(!isReady && { later: true }) }] : [];
  }

  /** Why the kernel did not take it. */
  refused({ refused }: Outcome): Error | undefined {
    const mine = this.#thing;
    return refused.find(({ thing }) => mine && keyOf(thing) === keyOf(mine))?.error;
  }

  /** Whether another daemon that runs has its program there; `id` is the kernel's number of ours. */
  isTaken(id: number | undefined): boolean {
    const thing = this.#thing;
    if (!thing) return false;
    const { netlink, journal } = this.#machine;
    const found = programAt(netlink, thing.index, thing.place);
    this.#was ||= found !== undefined && found === id;
    if (found === undefined || found === id) return false;
    // An earlier daemon of this run directory left it.
    if (!this.#was && journal.has(DAEMON, thing)) return false;
    if (!this.#areThereOthers()) return false;
    // All programs are the other daemon's now, and not to be undone.
    for (const noted of [thing, clsactFor(thing), CONTAINERS]) journal.drop(DAEMON, noted);
    return true;
  }

  get #thing(): (FilterThing & { index: number }) | undefined {
    if (!this.#uplink) return undefined;
    const { index, name: device } = this.#uplink;
    return { ...{ kind: 'filter', device, index, place: 'ingress' }, others: true, optional: true };
  }

  #areThereOthers(): boolean {
    const now = performance.now();
    if (now >= this.#nextLook) {
      this.#haveOthers = heldDevices().count > 1;
      this.#nextLook = now + PAUSE;
    }
    return this.#haveOthers;
  }
}

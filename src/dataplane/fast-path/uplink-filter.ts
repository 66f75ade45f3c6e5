/**
 * The inbound program at the device that leads to other VMs. Once it is there it stays, whatever comes into the way of the fast
 * path, so that nothing is lost when that goes. There is one for each device: of several daemons the first has it.
 */
import { programId } from '../../linux/bpf/program.ts';
import { heldDevices } from '../../machine/device-locks.ts';
import { DAEMON } from '../../machine/journal.ts';
import type { Machine, Outcome } from '../../machine/machine.ts';
import { clsactFor, type FilterThing, keyOf, type Thing } from '../../machine/state.ts';
import { programAt } from '../../machine/things/filter.ts';
import type { Uplink } from './obstacles.ts';

/** ms between two looks for other daemons. */
const PAUSE = 5000;
/** Filters at containers' devices come with it. */
const CONTAINERS: Thing = { kind: 'container-filters' };

export class UplinkFilter {
  readonly #machine: Machine;
  /** Its descriptor, and the kernel's number of it. */
  readonly #program: number;
  readonly #id: number;
  #thing: FilterThing | undefined;
  /** Whether the program was there. */
  #was = false;
  #isTaken = false;
  /** When other daemons are looked for next, in ms. */
  #nextLook = 0;
  #haveOthers = false;

  constructor(machine: Machine, program: number) {
    this.#machine = machine;
    this.#program = program;
    this.#id = programId(program);
  }

  /** Whether another daemon that runs has its program there. */
  get isTaken(): boolean {
    return this.#isTaken;
  }

  get links(): number[] {
    return this.#thing?.index === undefined ? [] : [this.#thing.index];
  }

  /** The device may be another than before, or have another name. */
  follow({ index, name: device }: Uplink): void {
    const program = this.#program;
    const others = true;
    this.#thing = { kind: 'filter', device, index, place: 'ingress', program, others, optional: true };
    this.#isTaken = this.#look(this.#thing, index);
  }

  things(): Thing[] {
    return this.#thing && !this.#isTaken ? [CONTAINERS, this.#thing] : [];
  }

  /** Why the kernel did not take it. */
  refused({ refused }: Outcome): Error | undefined {
    return refused.find(({ thing }) => this.#thing && keyOf(thing) === keyOf(this.#thing))?.error;
  }

  #look(thing: FilterThing, index: number): boolean {
    const { netlink, journal } = this.#machine;
    const found = programAt(netlink, index, thing.place);
    this.#was ||= found === this.#id;
    if (found === undefined || found === this.#id) return false;
    // An earlier daemon of this run directory left it.
    if (!this.#was && journal.has(DAEMON, thing)) return false;
    if (!this.#areThereOthers()) return false;
    // All programs are the other daemon's now, and not to be undone.
    for (const noted of [thing, clsactFor(thing), CONTAINERS]) journal.drop(DAEMON, noted);
    return true;
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

/** This machine, and what Inlay makes of it: brings things to what they should be, and takes them back. */
import { errorCode, InlayError } from '../errors.ts';
import { OwnTables } from '../linux/netfilter/own-tables.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import type { Mapping } from '../mesh/mapping.ts';
import { heldDevices } from './device-locks.ts';
import { DAEMON, type Entry, type Journal } from './journal.ts';
import { programs } from './remains.ts';
import { clsactFor, keyOf, type Thing } from './state.ts';
import { MainTable } from './table.ts';
import { BarrierMemory } from './things/barrier.ts';
import type { Context } from './things/kind.ts';
import { kindOf } from './things/kinds.ts';

/** What cannot be put right. */
export interface Trouble {
  what: string;
  /** What the operator can do about it. */
  hint?: string;
}

export interface Outcome {
  /** What was wrong and is right now, in words. */
  repaired: string[];
  troubles: Trouble[];
  /** Optional things that the kernel refused. */
  refused: { thing: Thing; error: Error }[];
}

export class Machine {
  readonly netlink: Netlink = Netlink.open();
  readonly table: MainTable = new MainTable(this.netlink);
  readonly tables: OwnTables = new OwnTables();
  readonly barrier: BarrierMemory = new BarrierMemory(this.tables);
  /** Interface indexes of our own devices, by their names. */
  readonly links = new Map<string, number>();
  readonly journal: Journal;
  readonly #context: Context;
  /** Keys of the things that this process has made or put right. */
  readonly #made = new Set<string>();

  constructor(journal: Journal) {
    this.journal = journal;
    this.#context = this.contextOf(DAEMON);
  }

  /** For things of an owner. */
  contextOf(owner: string): Context {
    const { netlink, table, barrier, links, journal } = this;
    return {
      ...{ netlink, table, barrier, links },
      note: (thing, before) => journal.add(owner, thing, before),
      forget: (thing) => journal.drop(owner, thing),
      before: (thing) => journal.before(owner, thing),
      isNoted: (thing) => journal.has(owner, thing),
    };
  }

  /**
   * Reads what of table main concerns the overlay. To be called before `ensure`, and again if notifications
   * were lost.
   */
  loadTable(mappings: readonly Mapping[], own: Parameters<MainTable['load']>[1]): void {
    this.table.load(
      mappings.map(({ overlay }) => overlay),
      own,
    );
  }

  /**
   * Brings each thing to what it should be, in this order. If one fails, the others still follow. Only those
   * of the same device are left out, because the device may belong to somebody else.
   */
  ensure(things: readonly Thing[]): Outcome {
    const failed = new Set<string>();
    const troubles: Trouble[] = [];
    const isOpen = (thing: Thing) => !('device' in thing && failed.has(thing.device));
    const outcome = this.#each(things, isOpen, (thing, error) => {
      troubles.push(troubleOf(error));
      if ('device' in thing) failed.add(thing.device);
    });
    return { ...outcome, troubles };
  }

  /**
   * Does the same for a start: the first failure is thrown, and ends it. What another daemon has is found before
   * anything is made, because a program at a device of others would replace that daemon's.
   */
  apply(things: readonly Thing[]): Outcome {
    for (const thing of things) kindOf(thing).check?.(thing, this.#context);
    const outcome = this.#each(
      things,
      () => true,
      (_, error) => {
        throw error;
      },
    );
    return { ...outcome, troubles: [] };
  }

  #each(
    things: readonly Thing[],
    which: (thing: Thing) => boolean,
    onFailure: (thing: Thing, error: unknown) => void,
  ): Omit<Outcome, 'troubles'> {
    const outcome: Omit<Outcome, 'troubles'> = { repaired: [], refused: [] };
    for (const thing of things) {
      if (!which(thing)) continue;
      try {
        const isNew = this.#isNew(thing);
        const wrong = kindOf(thing).ensure(thing, this.#context);
        if (wrong === undefined) continue;
        if (!isNew) outcome.repaired.push(wrong);
        this.#made.add(keyOf(thing));
      } catch (error) {
        // Without nftables there is no barrier, and `status` says so.
        const mayFail = thing.kind === 'barrier' || (thing.kind === 'filter' && thing.optional);
        if (mayFail) outcome.refused.push({ thing, error: error as Error });
        else onFailure(thing, error);
      }
    }
    return outcome;
  }

  /** Whether a program at a device of others is made for the first time: another device leads to other VMs now. */
  #isNew(thing: Thing): boolean {
    const isOfOthers = thing.kind === 'container-filters' || (thing.kind === 'filter' && thing.others === true);
    return isOfOthers && !this.#context.isNoted(thing);
  }

  /** Takes back what is noted and is not among these; returns what was undone, in words. */
  keepOnly(things: readonly Thing[]): string[] {
    // A discipline stays as long as a filter in it is wanted.
    const disciplines = things.flatMap((thing): Thing[] => (thing.kind === 'filter' ? [clsactFor(thing)] : []));
    const wanted = new Set([...things, ...disciplines].map(keyOf));
    return this.undo(({ thing }) => !wanted.has(keyOf(thing)));
  }

  /**
   * For a start: takes back programs that are not noted, and not among these. They would take packets past this daemon. But
   * while another one runs, they may be that one's. Returns what was undone, in words.
   */
  removeUnknownPrograms(things: readonly Thing[]): string[] {
    if (this.journal.isWhole || heldDevices().count > 1) return [];
    return this.takeAllBack(programs(this.netlink, things));
  }

  /**
   * Takes back the noted things that `which` picks, the last first. A thing that is gone already, or is not
   * ours, is no error. Returns what was undone, in words. If something could not be undone, it does the rest,
   * and then throws ERR_FAILED.
   */
  undo(which: (entry: Entry) => boolean = () => true, owner: string = DAEMON): string[] {
    const undone: string[] = [];
    const failures: string[] = [];
    for (const entry of this.journal.entries(owner).toReversed().filter(which)) {
      // The directory holds the journal itself, so it goes last.
      if (entry.thing.kind === 'directory') continue;
      try {
        if (this.takeBack(entry.thing, entry.before)) undone.push(kindOf(entry.thing).describe(entry.thing));
        this.journal.drop(owner, entry.thing);
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    if (failures.length > 0) throw new InlayError('ERR_FAILED', `could not be undone: ${failures.join('; ')}`);
    return undone;
  }

  /**
   * Takes back what this process has noted and made, after a start that failed. Things that it found already
   * as they should be stay: others or an earlier daemon made them.
   */
  undoStart(): void {
    const isNew = (entry: Entry) => this.journal.isNew(entry);
    // A discipline is noted only where it was made, with the first filter in it.
    const isMade = ({ thing }: Entry) => thing.kind === 'clsact' || this.#made.has(keyOf(thing));
    this.undo((entry) => isNew(entry) && isMade(entry));
    for (const entry of this.journal.entries(DAEMON).filter(isNew))
      if (entry.thing.kind !== 'directory' && !isMade(entry)) this.journal.drop(DAEMON, entry.thing);
  }

  /** Takes a thing back, whether it is noted or not; false if it was gone already or is not ours. */
  takeBack(thing: Thing, before?: string): boolean {
    return kindOf(thing).undo?.(thing, this.#context, before) ?? false;
  }

  /** The same with several; returns what was undone, in words. */
  takeAllBack(things: readonly Thing[]): string[] {
    return things.flatMap((thing) => (this.takeBack(thing) ? [kindOf(thing).describe(thing)] : []));
  }

  close(): void {
    this.netlink.close();
    this.tables.close();
  }
}

export function troubleOf(error: unknown): Trouble {
  const { message } = error as Error;
  const hint = error instanceof InlayError ? error.hint : undefined;
  const code = error instanceof InlayError ? undefined : errorCode(error);
  return {
    what: code !== undefined && !message.includes(code) ? `${message} (${code})` : message,
    ...(hint && { hint }),
  };
}

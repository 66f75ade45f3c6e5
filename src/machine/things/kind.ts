/** The seam between the kinds of things and the machine that keeps them. */
import type { Netlink } from '../../linux/netlink/netlink.ts';
import type { Thing } from '../state.ts';
import type { MainTable } from '../table.ts';
import type { BarrierMemory } from './barrier.ts';

/** What the kinds need of the machine. */
export interface Context {
  /** All changes go through this socket, so that its port marks the notifications of them as ours. */
  readonly netlink: Netlink;
  readonly table: MainTable;
  readonly barrier: BarrierMemory;
  /**
   * Interface indexes of our own devices, by their names. A device is changed by its index, since somebody
   * else's may have its name.
   */
  readonly links: Map<string, number>;
  /** Notes a thing that is about to be made and has to be undone later. */
  note(thing: Thing, before?: string): void;
  /** Takes the note back: somebody else's was there. */
  forget(thing: Thing): void;
  /** What the note of a thing says that was there before; undefined if it is not noted. */
  before(thing: Thing): string | undefined;
  /** Whether we have made it, be it in an earlier process. */
  isNoted(thing: Thing): boolean;
}

/** How one kind of thing is brought about. */
export interface Kind<T extends Thing> {
  /** Throws what `ensure` would throw if another daemon has it, and changes nothing. */
  check?(thing: T, context: Context): void;
  /**
   * Brings it to what it should be. Returns what was wrong, in a few words; undefined if nothing was. Throws
   * InlayError where something of others is in the way, which is left as it is, and SystemError where the
   * kernel refuses.
   */
  ensure(thing: T, context: Context): string | undefined;
  /**
   * Takes it back, if it is ours; false if it had gone already or is not ours. `before` is what the journal
   * noted.
   */
  undo?(thing: T, context: Context, before?: string): boolean;
  /** The commands of iproute2 or procps that do the same. */
  commands(thing: T): string[];
  /** What it is, for a list. */
  describe(thing: T): string;
}

/** The index of one of our devices. */
export function indexOf(context: Context, device: string): number {
  const index = context.links.get(device);
  if (index === undefined) throw new Error(`device ${device} has not been made`);
  return index;
}

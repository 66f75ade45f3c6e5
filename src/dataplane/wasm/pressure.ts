/**
 * How hard packets press at one device: while more come than are handled, only a part of each batch goes on, fairly shared among those who send (`share` in
 * docs/core-state.md). A TUN device that is full drops whatever comes next, whose it may be: it has to be emptied faster than it fills.
 */
import { BATCH_SIZE } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { PacketSource } from './device.ts';

/** Packets that are read one batch after the other, the device never empty, before anything is dropped: about half of what a TUN device holds. */
const PATIENCE = 4 * BATCH_SIZE;
/** The same shortly after: it has just been seen that this is no burst. */
const PATIENCE_AGAIN = BATCH_SIZE;
/** At most: one part in 16 goes on. */
const MOST = 4;
/** ms that two senders are known to be two, since whoever is alone takes nothing from anybody, and that pressure is remembered. */
const MEMORY = 1000;

export class Pressure {
  readonly #direction: 'outbound' | 'inbound';
  /** One part in 2 ** #level goes on. */
  #level = 0;
  /** Packets since the device was empty. */
  #run = 0;
  /** Until when there are several senders, in ms. */
  #severalUntil = -Infinity;
  /** Until when pressure is expected to come back, in ms. */
  #pressedUntil = -Infinity;

  constructor(direction: 'outbound' | 'inbound') {
    this.#direction = direction;
  }

  /** Reads a batch, and tells the core how much of it goes on. Returns the number of descriptors. `now` is in ms. */
  read(from: PacketSource, core: PacketCore, now: number): number {
    // Few long packets are a full batch, too: whether much waits, only a batch without a limit of bytes tells.
    const patience = now < this.#pressedUntil ? PATIENCE_AGAIN : PATIENCE;
    const deep = this.#level > 0 || this.#run >= patience;
    const count = from.read(core, deep);
    this.#run = from.more ? this.#run + count : 0;
    if (!deep) return count;
    this.#level = Math.max(this.#level + (from.more ? 1 : -1), 0);
    if (now >= this.#severalUntil) this.#level = 0;
    else if (this.#level > MOST) this.#level = MOST;
    if (this.#level > 0) this.#pressedUntil = now + MEMORY;
    if (core.share(this.#direction, count, 1 << this.#level) > 1) this.#severalUntil = now + MEMORY;
    return count;
  }
}

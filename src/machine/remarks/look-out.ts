/**
 * Looks now and then for what others do on this machine that hurts the overlay; the log tells each once, and
 * when it is over. Nothing is changed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../../log.ts';
import type { Trouble } from '../machine.ts';
import type { Remark } from './remark.ts';

/**
 * ms from one look to the next; the second where one has found something new, which may be under way only.
 */
const PAUSES = { usual: 5000, again: 1000 };
/** Looks take this part of the time, at most: with large rule sets they are made less often. */
const MAX_SHARE = 1 / 50;

export interface LookOutOptions {
  log: Log;
  /** One look: all that is wrong now. */
  look: () => Promise<readonly Remark[]>;
  pauses?: typeof PAUSES;
}

export class LookOut {
  readonly #options: LookOutOptions;
  readonly #closing = new AbortController();
  #remarks: readonly Remark[] = [];
  /** Those that the log has told. */
  #told: readonly Remark[] = [];

  constructor(options: LookOutOptions) {
    this.#options = options;
    void this.#run();
  }

  /** What the last look found. */
  get remarks(): readonly Trouble[] {
    return this.#remarks.map(({ what, hint }) => ({ what, ...(hint !== undefined && { hint }) }));
  }

  /** Does not wait for a look that is under way: it changes nothing. */
  close(): void {
    this.#closing.abort();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    const { usual, again } = this.#options.pauses ?? PAUSES;
    while (!signal.aborted) {
      const begin = performance.now();
      let pause = usual;
      try {
        const found = await this.#options.look();
        if (signal.aborted) return;
        if (this.#tell(found)) pause = again;
      } catch (error) {
        if (signal.aborted) return;
        // A device may have gone in the middle of a look, or a right is missing: this is no part of the
        // daemon's work.
        this.#options.log.debug({ error: String(error) }, 'a look at what others do failed');
      }
      pause = Math.max(pause, (performance.now() - begin) / MAX_SHARE);
      await sleep(pause, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  /** Says what two looks have found, and what is over. Returns whether something is new. */
  #tell(found: readonly Remark[]): boolean {
    const { log } = this.#options;
    const isIn = (list: readonly Remark[], { key }: Remark) => list.some((each) => each.key === key);
    const lasting = found.filter((each) => isIn(this.#remarks, each));
    for (const { what, hint } of lasting.filter((each) => !isIn(this.#told, each)))
      log.warn({ hint }, `remark: ${what}`);
    for (const { what } of this.#told.filter((each) => !isIn(found, each))) log.info({ remark: what }, 'remark over');
    this.#remarks = found;
    this.#told = lasting;
    return lasting.length < found.length;
  }
}

/** Looks now and then for packets that the programs have dropped, and hands on an example of each reason. */
import { DROP_REASONS } from '../../core/verdict.ts';
import type { DropSample } from '../drop-log.ts';
import { INBOUND, OUTBOUND, type SourceCheck } from './source-check.ts';

/** ms between two looks. */
const INTERVAL = 1000;

const DIRECTIONS = [
  { direction: 'outbound', which: OUTBOUND },
  { direction: 'inbound', which: INBOUND },
] as const;

export class DropWatch {
  readonly #check: SourceCheck;
  readonly #onDropped: (sample: DropSample) => void;
  /** Drops by the negated verdict as of the last look. */
  readonly #counted: number[][];
  readonly #timer: NodeJS.Timeout;

  constructor(check: SourceCheck, onDropped: (sample: DropSample) => void, interval: number = INTERVAL) {
    this.#check = check;
    this.#onDropped = onDropped;
    this.#counted = DIRECTIONS.map(({ which }) => check.direction(which).drops);
    this.#timer = setInterval(() => this.#look(), interval).unref();
  }

  #look(): void {
    for (const [i, { direction, which }] of DIRECTIONS.entries()) {
      const { drops } = this.#check.direction(which);
      const before = this.#counted[i] ?? [];
      this.#counted[i] = drops;
      for (const { verdict } of DROP_REASONS) {
        const packets = (drops[-verdict] ?? 0) - (before[-verdict] ?? 0);
        if (packets > 0) this.#onDropped({ direction, verdict, packets, ...this.#check.example(which, verdict) });
      }
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

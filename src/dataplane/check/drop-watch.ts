/** Looks now and then for packets that the programs have dropped, and hands on an example of each reason. */
import type { DropSample } from '../drop-log.ts';
import type { SourceCheck } from './source-check.ts';

/** ms between two looks. */
const INTERVAL = 1000;

export class DropWatch {
  readonly #timer: NodeJS.Timeout;

  constructor(check: SourceCheck, onDropped: (sample: DropSample) => void, interval: number = INTERVAL) {
    this.#timer = setInterval(() => {
      for (const sample of check.newDrops()) onDropped(sample);
    }, interval).unref();
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

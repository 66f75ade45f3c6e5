/** Work that may take long, in slices of some ms: other work of the process has its turn in between. To be closed. */

/** ms that a slice takes, and ms until the next one. */
const SLICE = 4;
const PAUSE = 1;

export class Slices {
  readonly #begin: () => void;
  readonly #step: () => boolean;
  #timer: NodeJS.Timeout | undefined;
  /** When it is due, in ms. */
  #due = Infinity;
  #closed = false;

  /** A slice is `begin`, and then steps until one finds nothing to do, and returns false. */
  constructor(begin: () => void, step: () => boolean) {
    this.#begin = begin;
    this.#step = step;
  }

  /** There is a slice in so many ms at the latest. */
  soon(after: number): void {
    const due = performance.now() + after;
    if (this.#closed || due >= this.#due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => {
      this.#due = Infinity;
      this.work();
    }, after);
  }

  /** A slice at once. */
  work(): void {
    const end = performance.now() + SLICE;
    this.#begin();
    while (this.#step()) {
      if (performance.now() < end) continue;
      this.soon(PAUSE);
      return;
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}

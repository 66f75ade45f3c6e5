/** Keeps a look that may take long, as on a machine with thousands of routes, to a part of the time. */

/** One part in so many, at most. */
const SHARE = 10;
/** Whatever takes less is done as often as it is asked for, in ms. */
const NOTHING = 1;

export class Pace {
  /** In ms. */
  #notBefore = 0;

  /** ms until a look is made again. */
  get wait(): number {
    return Math.max(0, this.#notBefore - performance.now());
  }

  /** What `look` gives; undefined, without a look, if the last one was too short a time ago for what it took. */
  look<T>(look: () => T): { found: T } | undefined {
    const begin = performance.now();
    if (begin < this.#notBefore) return undefined;
    const found = look();
    const end = performance.now();
    if (end - begin > NOTHING) this.#notBefore = end + SHARE * (end - begin);
    return { found };
  }
}

/** Calls at once, but so many ms after the last call at the earliest. To be closed. */
export class Prompt {
  readonly #pause: number;
  readonly #call: () => void;
  /** In ms: the last call, and the one that waits. */
  #last = -Infinity;
  #due = Infinity;
  #timer: NodeJS.Timeout | undefined;

  constructor(pause: number, call: () => void) {
    this.#pause = pause;
    this.#call = call;
  }

  /** `after` so many ms at the earliest. Of several calls that wait, the first that is due stands for all. */
  call(after = 0): void {
    const now = performance.now();
    const due = Math.max(now + after, this.#last + this.#pause);
    if (due <= now) this.#now();
    else if (due < this.#due) {
      clearTimeout(this.#timer);
      this.#due = due;
      this.#timer = setTimeout(() => this.#now(), due - now).unref();
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #now(): void {
    clearTimeout(this.#timer);
    this.#due = Infinity;
    this.#last = performance.now();
    this.#call();
  }
}

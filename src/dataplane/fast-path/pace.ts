/** Keeps a look that may take long, as on a machine with thousands of routes, to a part of the time. */

/** One part in so many, at most. */
const SHARE = 10;
/** Whatever takes less is done as often as it is asked for, in ms. */
const NOTHING = 1;

export class Pace {
  /** In ms. */
  #notBefore = 0;

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

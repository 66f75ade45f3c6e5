/** Work that may take one part in so many of the time, however often it is called for. */
export class Share {
  readonly #parts: number;
  /** ms */
  #dueAt = 0;

  constructor(parts: number) {
    this.#parts = parts;
  }

  /** Whether the last work was long enough ago, for the time that it took. */
  get isDue(): boolean {
    return performance.now() >= this.#dueAt;
  }

  async spend<T>(work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } finally {
      const end = performance.now();
      this.#dueAt = end + this.#parts * (end - start);
    }
  }
}

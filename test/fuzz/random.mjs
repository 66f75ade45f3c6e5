/** Random numbers that their seed brings back: sfc32 (Chris Doty-Humphrey, PractRand). Nothing here allocates. */

/** Enough random bytes that where they are copied from makes them differ. */
const POOL = new Uint8Array(1 << 21);

export class Random {
  #a = 0;
  #b = 0;
  #c = 0;
  #counter = 0;

  constructor(seed) {
    this.seed(seed);
  }

  /** Begins anew. */
  seed(seed) {
    this.#a = seed | 0;
    this.#b = Math.imul(seed, 0x9e3779b1);
    this.#c = 0x2545f491;
    this.#counter = 1;
    for (let i = 0; i < 12; i++) this.next();
  }

  /** 32 random bits, as a signed number. */
  next() {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum;
  }

  u32() {
    return this.next() >>> 0;
  }

  /** 0 to `limit` - 1. */
  below(limit) {
    return Math.floor((this.next() >>> 0) * 2 ** -32 * limit);
  }

  between(least, most) {
    return least + this.below(most - least + 1);
  }

  /** True in `percent` of 100 cases. */
  chance(percent) {
    return this.next() >>> 0 < percent * (2 ** 32 / 100);
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** Random bytes from `start` up to `end`. */
  fill(bytes, start, end) {
    let from = this.below(POOL.length >> 1);
    if (end - start < 64) for (let i = start; i < end; i++) bytes[i] = POOL[from++];
    else bytes.set(POOL.subarray(from, from + end - start), start);
  }
}

const words = new Int32Array(POOL.buffer);
const filler = new Random(1);
for (let i = 0; i < words.length; i++) words[i] = filler.next();

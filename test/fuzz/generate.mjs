/**
 * What the cores are given: mutated vectors, made packets, flows, super-packets, datagrams, ICMP messages and noise, under changing
 * configurations and at all sorts of times. Most are nearly right, so that they get deep.
 */
import { abi } from 'inlay/core';
import { addOddDescriptor } from './descriptors.mjs';
import { MTUS } from './errors.mjs';
import { KINDS } from './kinds.mjs';
import { Maker } from './maker.mjs';
import { anyPeer, drawSetup, redrawSetup } from './setup.mjs';

/** A batch that has got so many bytes gets no more packets. */
const ENOUGH = 100_000;
/** Batches that have a configuration in common, mostly. */
const BATCHES_PER_SETUP = 8;
const DIRECTIONS = [...Array(9).fill('outbound'), ...Array(9).fill('inbound'), ...Array(3).fill('icmp')];
/** ms; until a path MTU is forgotten, and what is less. */
const JUMPS = [1000, 31_000, 602_000, 602_000, 700_000];
/** No clock of a host tells these, but a core may be told them. */
const ODD_TIMES = [Number.NaN, -1, -1e9, 0.5, 4e12 - 1, 4e12, 1e300, ...[1, -1].map((sign) => sign / 0)];
/** ICMP codes: -1 is none, 16 neither. */
const CODES = [-1, 0, 1, 10, 15, 16, 2147483647, -2147483648];
/** For what is told how many there are. */
const ODD_COUNTS = [200, -2147483648, 2147483647];

export class Generator {
  #random;
  #batch;
  #maker;
  /** Whether there are more VMs to talk to than fit the processor's cache. */
  #isCrowded;
  #now = 0;
  #batches = 0;

  /** `sent`: what the core sends of what is generated. */
  constructor(random, batch, sent) {
    this.#random = random;
    this.#batch = batch;
    this.#maker = new Maker(random, batch, sent);
    this.#isCrowded = random.chance(20);
  }

  /** Fills the batch. Returns the set-up if it is a new one. */
  next() {
    const random = this.#random;
    const batch = this.#batch;
    const maker = this.#maker;
    const isNew = this.#drawSetup();
    batch.clear();
    batch.direction = random.pick(DIRECTIONS);
    batch.surroundings = random.u32();
    batch.identical = random.chance(6);
    this.#now += random.chance(4) ? random.pick(JUMPS) : random.below(50);
    batch.now = random.chance(0.2) ? random.pick(ODD_TIMES) : this.#now;
    if (random.chance(6)) batch.expire = random.chance(95) ? this.#now - random.below(1000) : random.pick(ODD_TIMES);
    if (random.chance(6)) batch.narrow = this.#drawNarrow();
    if (random.chance(6)) batch.refuse = { every: random.between(1, 20), code: random.pick(CODES) };
    maker.drawFlows();
    this.#fill(random.chance(80) ? abi.BATCH_SIZE : random.between(1, 4));
    batch.count = random.chance(96) ? batch.size : (batch.size + random.pick([-1, 1, ...ODD_COUNTS])) | 0;
    if (random.chance(4)) batch.first = random.pick([1, 5, -1, ...ODD_COUNTS]);
    return isNew ? maker.setup : null;
  }

  /** Adds up to `most` packets of one kind. */
  #fill(most) {
    const random = this.#random;
    const batch = this.#batch;
    const add = random.pick(KINDS[batch.direction]);
    for (let n = 0; n < most && batch.size < most && batch.used < ENOUGH; n++) {
      if (random.chance(0.5)) addOddDescriptor(batch, random, random.pick(this.#maker.setup.peers));
      else add(this.#maker);
    }
  }

  /** What a host may know of a path, or none does. */
  #drawNarrow() {
    const random = this.#random;
    const { setup } = this.#maker;
    const vm = random.chance(90) ? anyPeer(random, setup) : random.pick([0, setup.local, random.u32()]);
    return { vm, mtu: random.pick(random.chance(90) ? MTUS : [-1, 65536, 2147483647, -2147483648]) };
  }

  /** Draws a set-up if it is time. The VMs often stay. */
  #drawSetup() {
    const random = this.#random;
    const maker = this.#maker;
    if (this.#batches++ % BATCHES_PER_SETUP !== 0 && !random.chance(4)) return false;
    const isOther = maker.setup === null || random.chance(50);
    maker.setup = isOther ? drawSetup(random, this.#isCrowded) : redrawSetup(random, maker.setup);
    return true;
  }
}

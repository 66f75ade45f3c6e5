/**
 * Many VMs on one core. All that a core knows is in its memory, nearly all of which is empty tables. So a VM whose turn is over is what is not 0 there: its
 * settings, counters, buckets and tunnels (docs/abi.md). What only one call uses (descriptors, messages, slots) is nobody's.
 *
 * Only what a VM can have used is looked at, or a turn would cost more than its packets: counters and settings always; of each table of buckets the part that its
 * own slice falls on; and of the tunnels those that it came with and those that the core said it opened. `check` sees whether that was all. `share` is never
 * called here: a VM that is not busy has no shares.
 */
import { abi } from 'inlay/core';

const LINE = 16;
const SMALL = abi.CONFIG / 4;
const SMALL_END = abi.CHANGES / 4;
const CHANGES = abi.CHANGES / 4;
const KEYS = abi.TUNNEL_KEYS / 4;
const RECORDS = abi.TUNNELS / 4;
const TUNNEL = abi.TUNNEL_SIZE / 4;
const SOURCES = (1 << abi.SOURCES_LOG2) - 1;
const BUCKETS = [abi.REPLY_BUCKETS / 4, abi.RELAY_BUCKETS / 4, abi.LEASE_BUCKETS / 4];
/** Buckets of all sources together; and what else is one pair of words: how many tunnels there are. */
const PAIRS = [abi.REPLY_BUCKETS, abi.RELAY_BUCKETS].map((at) => (at + abi.BUCKET_OF_ALL) / 4).concat(CHANGES);
/** Where everything has to be 0 while no VM is in the core. */
const EMPTY = [
  [abi.CONFIG, abi.CHANGES + 16],
  [abi.REPLY_BUCKETS, abi.REPLIES],
  [abi.LEASE_BUCKETS, abi.SLOTS],
];

/** Where, in a VM's state, it is said how much there is of what: lines, pairs, tunnels. */
const HEAD = 3;

export class Swap {
  /** The VM that is in the core, -1 if none is. */
  current = -1;
  #words;
  #bytes;
  #core;
  /** By VM: its state as words, of which so many are used; 0 is a VM that has not begun. */
  #states = [];
  #used;
  #fresh;
  /** Underlay addresses of the tunnels that may be there. */
  #vms = [];
  #firstSource = 0;
  #sources;
  #saved = new Int32Array(1 << 16);

  /** `configOf` says how a VM is configured; VMs have sources from `firstSourceOf(vm)` on, `sources` of them. */
  constructor(core, { vms, sources, firstSourceOf, configOf }) {
    this.#core = core;
    this.#words = new Int32Array(core.memory);
    this.#bytes = Buffer.from(core.memory);
    this.#used = new Int32Array(vms);
    this.configOf = configOf;
    this.#sources = sources;
    this.firstSourceOf = firstSourceOf;
    core.configure(configOf(0));
    core.attach({});
    this.#fresh = this.#save();
  }

  /** Puts a VM into the core, if it is not there: with what it had, or as a VM that begins. */
  in(vm) {
    if (this.current === vm) return;
    this.out();
    this.current = vm;
    this.#firstSource = this.firstSourceOf(vm) & SOURCES;
    if (this.#used[vm] > 0) return this.#load(this.#states[vm]);
    this.#load(this.#fresh);
    this.#core.configure(this.configOf(vm));
  }

  /** Takes the VM that is in the core out of it: the core is empty then. */
  out() {
    const vm = this.current;
    if (vm < 0) return;
    const length = this.#take();
    let state = this.#states[vm];
    if (state === undefined || state.length < length) {
      state = new Int32Array(length + (length >> 2));
      this.#states[vm] = state;
    }
    for (let i = 0; i < length; i++) state[i] = this.#saved[i];
    this.#used[vm] = length;
    this.current = -1;
  }

  /** A VM forgets everything. */
  forget(vm) {
    if (this.current === vm) this.out();
    this.#states[vm] = undefined;
    this.#used[vm] = 0;
  }

  /** Whether a VM has begun. */
  has(vm) {
    return this.current === vm || this.#used[vm] > 0;
  }

  /** The core has opened tunnels. */
  opened(vms) {
    for (const vm of vms) this.#vms.push(vm);
  }

  /** Bytes of what VMs keep, all together, and of what is set aside for it. */
  get size() {
    let [used, kept] = [0, 0];
    for (const n of this.#used) used += 4 * n;
    for (const state of this.#states) kept += state === undefined ? 0 : state.byteLength;
    return { used, kept };
  }

  /** What a VM keeps, as words. */
  stateOf(vm) {
    return this.#states[vm]?.subarray(0, this.#used[vm]) ?? new Int32Array();
  }

  /** Where something lies that a VM left behind, while none is in the core; -1 if nothing does. */
  check() {
    for (const [start, end] of EMPTY) {
      for (let at = start; at < end; at += ZEROS.length) {
        const stop = Math.min(at + ZEROS.length, end);
        if (this.#bytes.compare(ZEROS, 0, stop - at, at, stop) !== 0) return at;
      }
    }
    return -1;
  }

  /** The record of the tunnel to the VM with this address, as a place in words; 0 if there is none. */
  tunnel(address) {
    const first = firstWay(address);
    for (let i = first; i < first + abi.TUNNEL_WAYS; i++) {
      if (this.#words[KEYS + i] === (address | 0)) return RECORDS + i * TUNNEL;
    }
    return 0;
  }

  #load(state) {
    const words = this.#words;
    let at = HEAD;
    for (let n = state[0]; n > 0; n--) {
      const to = state[at++];
      for (let i = 0; i < LINE; i++) words[to + i] = state[at++];
    }
    for (let n = state[1]; n > 0; n--, at += 3) {
      words[state[at]] = state[at + 1];
      words[state[at] + 1] = state[at + 2];
    }
    this.#vms.length = 0;
    for (let n = state[2]; n > 0; n--) {
      const way = state[at++];
      this.#vms.push(state[at]);
      words[KEYS + way] = state[at++];
      const to = RECORDS + way * TUNNEL;
      for (let i = 0; i < TUNNEL; i++) words[to + i] = state[at++];
    }
  }

  #save() {
    return this.#saved.slice(0, this.#take());
  }

  /** Moves what is there to `#saved`; returns how many words that are. */
  #take() {
    const words = this.#words;
    // Of what the last call told, nothing is kept.
    words.fill(0, CHANGES + 1, CHANGES + 4);
    let [at, lines, pairs] = [HEAD, 0, 0];
    for (let from = SMALL; from < SMALL_END; from += LINE) {
      if (this.#isEmpty(from, LINE)) continue;
      lines++;
      at = this.#move(from, LINE, at, from);
    }
    for (const from of PAIRS) {
      if (this.#isEmpty(from, 2)) continue;
      pairs++;
      at = this.#move(from, 2, at, from);
    }
    for (const table of BUCKETS) {
      for (let i = 0; i < this.#sources; i++) {
        const from = table + 2 * ((this.#firstSource + i) & SOURCES);
        if (this.#isEmpty(from, 2)) continue;
        pairs++;
        at = this.#move(from, 2, at, from);
      }
    }
    this.#saved[0] = lines;
    this.#saved[1] = pairs;
    return this.#takeTunnels(at);
  }

  #takeTunnels(start) {
    const words = this.#words;
    let [at, tunnels] = [start, 0];
    this.#grow(at + this.#vms.length * (TUNNEL + 2));
    for (const vm of this.#vms) {
      const record = this.tunnel(vm);
      if (record === 0) continue;
      tunnels++;
      const way = (record - RECORDS) / TUNNEL;
      this.#saved[at++] = way;
      at = this.#move(record, TUNNEL, at, words[KEYS + way]);
      words[KEYS + way] = 0;
    }
    this.#vms.length = 0;
    this.#saved[2] = tunnels;
    return at;
  }

  #isEmpty(from, count) {
    let any = 0;
    for (let i = from; i < from + count; i++) any |= this.#words[i];
    return any === 0;
  }

  /** Moves words to `#saved`, with `head` before them. */
  #move(from, count, to, head) {
    this.#saved[to++] = head;
    for (let i = from; i < from + count; i++) {
      this.#saved[to++] = this.#words[i];
      this.#words[i] = 0;
    }
    return to;
  }

  #grow(length) {
    if (this.#saved.length >= length) return;
    const larger = new Int32Array(2 * length);
    larger.set(this.#saved);
    this.#saved = larger;
  }
}

const ZEROS = Buffer.alloc(1 << 18);

/** The first way of the set that an underlay address falls on (docs/core-state.md, Tunnels). */
function firstWay(address) {
  return (Math.imul(address, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2)) * abi.TUNNEL_WAYS;
}

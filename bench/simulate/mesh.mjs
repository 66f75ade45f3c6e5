/**
 * What the seed alone decides about the mesh, the same whenever it is asked: nothing here is kept or remembered. 10.0.0.0/8 over 192.168.0.0/16, so up to 65,534
 * VMs; VM n, from 0, is 192.168.0.1 + n.
 */
export const MOST_VMS = 65534;
export const MOST_CONTAINERS = 253;
export const MAPPING = { overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 };
/** Bytes that the underlay takes, where a path is not narrower. */
export const UNDERLAY_MTU = 1500;
/** Bytes of outer headers: IPv4 and GRE, with UDP in between or without. */
export const OVERHEAD = { gre: 24, 'gre-udp': 32 };
/** ms that a whole run stands for, however many rounds it has: longer than a path MTU is remembered. */
const DURATION = 900_000;
/** How often paths change, and VMs may vanish, in one run. */
const EPOCHS = 8;
const FIRST_VM = 0xc0a80001;
/** Bytes that some paths take. */
const NARROW = [1480, 1400, 1280, 1006, 576];

/** 32 bits in which every bit of the input counts (Chris Wellons, "Prospecting for hash functions": lowbias32). */
export function mix(n) {
  let h = n | 0;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The underlay address of VM `n`, and its number; what is no VM's address has a number that no VM has. */
export const addressOf = (n) => FIRST_VM + n;
export const vmAt = (address) => address - FIRST_VM;
/** The overlay address with this index in the slice of VM `n`: 1 is the VM itself, containers begin with 2. */
export const overlayOf = (n, index) => (MAPPING.overlay | (((FIRST_VM + n) & 0xffff) << 8) | index) >>> 0;

export class Mesh {
  /** `vanish`, `spoofers` and `narrow` are parts (0..1) of VMs, VMs and paths. */
  constructor({ vms, containers, seed, rounds, vanish, spoofers, narrow }) {
    Object.assign(this, { vms, containers, rounds });
    this.parts = { vanish: vanish * 2 ** 32, spoofers: spoofers * 2 ** 32, narrow: narrow * 2 ** 32 };
    this.epochRounds = Math.max(2, Math.ceil(rounds / EPOCHS));
    this.roundTime = DURATION / rounds;
    this.key = mix(seed ^ 0x243f6a88);
  }

  /** 32 bits that belong to these numbers; `about` keeps questions apart. */
  hash(about, a, b = 0) {
    return mix(mix(mix(this.key + about) ^ a) + Math.imul(b, 0x9e3779b1));
  }

  encapsulationOf(vm) {
    return this.hash(1, vm) & 1 ? 'gre-udp' : 'gre';
  }

  /** Bytes of the longest inner packet of a VM. */
  mtuOf(vm) {
    return UNDERLAY_MTU - OVERHEAD[this.encapsulationOf(vm)];
  }

  /** The VM's own clock in a round, in ms: it began some time, and goes up to 0.1 % too slow or too fast. */
  clock(vm, round) {
    const h = this.hash(2, vm);
    return (h >>> 12) + round * this.roundTime * (1 + ((h & 0xfff) - 2048) / 2048e3);
  }

  isSpoofer(vm) {
    return this.hash(3, vm) < this.parts.spoofers;
  }

  epochOf(round) {
    return Math.floor(round / this.epochRounds);
  }

  /** Whether a VM runs. One that vanishes is away for a quarter of an epoch, not at its beginning, which is another one's for every VM. */
  isThere(vm, round) {
    const shifted = round + (this.hash(4, vm) % this.epochRounds);
    if (this.hash(5, vm, Math.floor(shifted / this.epochRounds)) >= this.parts.vanish) return true;
    return Math.floor(((shifted % this.epochRounds) * 4) / this.epochRounds) !== 2;
  }

  /** Bytes that an outer packet from one address to another may have in an epoch. */
  pathMtu(from, to, epoch) {
    if (this.hash(6, from, to) >= this.parts.narrow) return UNDERLAY_MTU;
    const h = this.hash(7, from ^ Math.imul(to, 0x85ebca6b), epoch);
    return h & 1 ? UNDERLAY_MTU : NARROW[(h >>> 1) % NARROW.length];
  }

  /** The least that a path has taken up to a round. */
  leastPathMtu(from, to, round) {
    let least = UNDERLAY_MTU;
    for (let epoch = this.epochOf(round); epoch >= 0; epoch--) least = Math.min(least, this.pathMtu(from, to, epoch));
    return least;
  }
}

/**
 * The programs of the fast path as a third twin of the core: for every frame either the program passes it unchanged, or
 * program and core leave the same bytes for the same VM. And what is plain has to be taken.
 */
import { placesOf } from '../../dist/dataplane/check/arithmetic.js';
import { inbound, outbound } from '../../dist/dataplane/fast-path/programs/programs.js';
import * as layout from '../../dist/dataplane/fast-path/state.js';
import { assemble } from '../../dist/linux/bpf/assembler.js';
import { loadProgram } from '../../dist/linux/bpf/program.js';
import * as native from '../../dist/linux/native.js';
import { contains, ipv4, lowBits } from '../../dist/mesh/address.js';
import { mappingsWith } from '../../dist/mesh/mapping.js';
import { u32 } from '../fuzz/bytes.mjs';
import { CoreOracle } from './core-oracle.mjs';
import { Expectation, FORMATS } from './expectation.mjs';
import { bytesDifference } from './kernel-oracle.mjs';
import { enterNamespace, LINKS, macOf, peerMacOf, UPLINK } from './namespace.mjs';
import { mappingsOf } from './setup.mjs';
import { PASSED, REDIRECTED, testRun } from './test-run.mjs';

const ETHERNET = 14;
const SOURCE = ETHERNET + 12;
const DESTINATION = ETHERNET + 16;
const OVERHEAD = { gre: 24, 'gre-udp': 32 };
const WORDS = layout.VM_SIZE / 4;
const none = () => ({ packets: 0, bytes: 0 });
const add = (total, { packets, bytes }) => {
  total.packets += packets;
  total.bytes += bytes;
};
/** ms between two signs of life. */
const SIGN_OF_LIFE = 500;
const FLAGS = [
  ['heard', layout.VM_HEARD],
  ['outbound', layout.VM_OUTBOUND_FRESH],
  ['inbound', layout.VM_INBOUND_FRESH],
  ['limit', layout.VM_LIMIT],
];

export class ProgramTwin {
  /** What became of the frames, by name. */
  met = { outbound: 0, local: 0, inbound: 0, datagram: 0, passed: 0 };
  /** Looks at the counters of all packets after each frame, and not only where `checkTotals` is called. */
  careful = true;
  #mappings;
  #oracle;
  #state;
  #view;
  #words;
  #places;
  #fds = {};
  #expectation;
  /** What all frames together have to be counted as. */
  #totals = { outbound: none(), inbound: none(), local: none() };
  /** When the settings were last told, in ms: the programs take it as a sign of life. */
  #setAt = 0;

  /** `config` is the core's. `change` makes other programs of them: instructions of instructions. */
  constructor(config, change = (_, instructions) => instructions) {
    const { encapsulation = 'gre', key, ttl = 64, dscp = 0, ecn = 'normal', clampMss = false } = config;
    const mtu = config.mtu ?? 1500 - OVERHEAD[encapsulation] - (key === undefined ? 0 : 4);
    const core = { ...config, encapsulation, mtu };
    this.#mappings = mappingsOf(config.mappings);
    this.#places = placesOf(this.#mappings);
    this.#oracle = new CoreOracle(core);
    this.#expectation = new Expectation(core, this.#oracle, (vm) => this.#placeOf(vm));
    const local = ipv4(config.local);
    this.#state = new layout.FastPathState(this.#mappings, local);
    const { fds } = this.#state;
    const receives = config.receives ?? FORMATS;
    const options = { mappings: this.#mappings, local, encapsulation, receives, key, ttl, dscp, ecn, clampMss };
    try {
      for (const [direction, make] of Object.entries({ outbound, inbound })) {
        const instructions = change(direction, assemble(make(options, fds)));
        this.#fds[direction] = loadProgram(instructions, `for the twin, ${direction}`);
      }
      const vms = Math.min(
        Math.max(...this.#mappings.map(({ vmBits }, i) => this.#places[i] + 2 ** vmBits)),
        layout.MAX_VMS ?? 1 << 18,
      );
      this.#view = native.mapped(fds.vms, vms * layout.VM_SIZE, 'the VMs of the twin', true);
      this.#words = new Uint32Array(this.#view.bytes);
    } catch (error) {
      this.close();
      throw error;
    }
    this.set({ limit: mtu });
    this.slices = mappingsWith(this.#mappings, local).map((mapping) => Number(mapping.sliceOf(local).bits));
    // The first containers of each; beyond a small slice's end there are none.
    for (const slice of this.slices)
      LINKS.forEach((link, i) => {
        this.place((slice + i + 2) >>> 0, link);
      });
  }

  close() {
    this.#view?.unmap();
    for (const fd of Object.values(this.#fds)) native.close(fd);
    this.#state.close();
  }

  /** Other settings. */
  set(settings) {
    const all = { ...this.#expectation.settings, ...settings };
    this.#expectation.settings = all;
    this.#expectation.hasDaemon = true;
    this.#state.set({ ...all, uplink: UPLINK });
    this.#setAt = performance.now();
  }

  /** The daemon has given its last sign of life so many ms ago. */
  setBefore(ms) {
    const now = process.hrtime.bigint() - BigInt(ms) * 1_000_000n;
    this.#state.set({ ...this.#expectation.settings, uplink: UPLINK }, now);
    this.#expectation.hasDaemon = false;
  }

  /** The daemon ends. */
  leave() {
    this.#state.leave();
    this.#expectation.hasDaemon = false;
  }

  /** Puts the container with an address at a link, or nowhere. False if no container can have the address. */
  place(address, link) {
    const slot = link && { link, mac: Uint8Array.from(peerMacOf(link)), hostMac: Uint8Array.from(macOf(link)) };
    const isPlaced = this.#state.setContainer(address, slot);
    const { links } = this.#expectation;
    if (link === undefined || !isPlaced) links.delete(address);
    else links.set(address, link);
    return isPlaced;
  }

  /** Where the container with an address is. */
  linkOf(address) {
    return this.#expectation.links.get(address);
  }

  /**
   * Runs the program on a frame that comes in by `ifindex`, `record` being what is known of the VM. Returns what is wrong,
   * or null. `must` says that the frame has to be taken, or has to be passed.
   * @param {string} direction
   * @param {Uint8Array} frame
   * @param {Partial<import('./frames.ts').Edge>} options
   */
  check(direction, frame, { ifindex, record = {}, gsoSize = 0, must } = {}) {
    if (this.#expectation.hasDaemon && performance.now() - this.#setAt > SIGN_OF_LIFE) this.set({});
    const from = ifindex ?? (direction === 'inbound' ? UPLINK : (this.linkOf(u32(frame, SOURCE)) ?? LINKS[0]));
    const expected = this.#expectation[direction](frame, from, record, gsoSize);
    // The VM that the frame names, whether it may or not: all of that is to be decided by the frame.
    const vm = direction === 'inbound' ? u32(frame, SOURCE) : this.#oracle.vmOf(u32(frame, DESTINATION));
    const place = this.#placeOf(vm);
    const at = place === undefined ? undefined : place * WORDS;
    const counts = at === undefined ? undefined : vm;
    const known = { heard: 1, outbound: 1, inbound: 1, limit: 0, ...record };
    if (at !== undefined) {
      for (const [name, offset] of FLAGS) this.#words[at + offset / 4] = known[name];
    }
    const before = this.#counted(counts);
    const result = testRun(this.#fds[direction], frame, from, gsoSize, gsoSize === 0 ? 0 : 2);
    const after = this.#counted(counts);
    const wrong =
      this.#checkResult(expected, frame, result, must) ??
      this.#checkState(direction, expected, known, at, before, after, result);
    if (wrong === null) this.met[result.verdict === REDIRECTED ? (expected.kind ?? direction) : 'passed']++;
    return (
      wrong && `${direction}: ${wrong} (${expected.why ?? 'to be taken'}; frame ${Buffer.from(frame).toString('hex')})`
    );
  }

  #checkResult(expected, frame, { verdict, frame: got, isMarked }, must) {
    if (isMarked) return 'mark or priority changed';
    if (verdict === PASSED) {
      if (must === true || (must === undefined && expected.must)) return 'passed, though it is plain';
      return Buffer.compare(got, frame) === 0 ? null : `passed, but changed: ${bytesDifference(got, frame)}`;
    }
    if (verdict !== REDIRECTED) return `verdict ${verdict}`;
    if (must === false) return 'taken, though it has to pass';
    return expected.may ? expected.difference(got) : 'taken, though the core would not have done so';
  }

  /** Counters and what is known of the VM. */
  #checkState(direction, expected, known, at, before, after, { verdict }) {
    const isTaken = verdict === REDIRECTED;
    const counter = expected.kind === 'local' ? 'local' : direction;
    if (isTaken) add(this.#totals[counter], expected.content);
    for (const name of Object.keys(before)) {
      const isCounted = isTaken && (name === counter || (name === `vm ${direction}` && counter !== 'local'));
      const { packets, bytes } = isCounted ? expected.content : none();
      const more = {
        packets: after[name].packets - before[name].packets,
        bytes: after[name].bytes - before[name].bytes,
      };
      if (more.packets !== packets || more.bytes !== bytes)
        return `${name} counts ${more.packets} packets, ${more.bytes} bytes more, expected ${packets} and ${bytes}`;
    }
    if (at === undefined) return null;
    for (const [name, offset] of FLAGS) {
      const now = this.#words[at + offset / 4];
      const isSet = name === direction || (name === 'heard' && direction === 'inbound');
      const mayBeSet = isSet && expected.isForwarded;
      if (now !== known[name] && !(mayBeSet && now === 1)) return `${name} is ${now}, was ${known[name]}`;
      if (name === direction && expected.renews && now !== 1) return `${name} stays ${now}`;
    }
    return null;
  }

  /** What is wrong with the counters of all frames together, or null. */
  checkTotals() {
    const counted = this.#state.counts();
    for (const [name, { packets, bytes }] of Object.entries(this.#totals)) {
      if (counted[name].packets !== packets || counted[name].bytes !== bytes)
        return `${name} counts ${counted[name].packets} packets, ${counted[name].bytes} bytes, expected ${packets} and ${bytes}`;
    }
    return null;
  }

  #counted(vm) {
    const { outbound, inbound, local } = this.careful ? this.#state.counts() : {};
    const counted = this.careful ? { outbound, inbound, local } : {};
    if (vm === undefined) return counted;
    const traffic = this.#state.traffic(vm);
    return { ...counted, 'vm outbound': traffic.outbound, 'vm inbound': traffic.inbound };
  }

  /** Where the record of a VM is; undefined if there is none. */
  #placeOf(vm) {
    const i = this.#mappings.findIndex(({ underlay }) => contains(underlay, ipv4(vm)));
    if (i === -1) return undefined;
    const place = this.#places[i] + (vm & Number(lowBits(this.#mappings[i].vmBits)));
    return place * WORDS < this.#words.length ? place : undefined;
  }
}

/** Why programs cannot be run here; undefined if they can. The thread is where it was then, or stays where they can. */
export function why({ stay = false } = {}) {
  try {
    const leave = enterNamespace();
    if (!stay) leave();
    new ProgramTwin({
      local: 0xc0a81020,
      mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
    }).close();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

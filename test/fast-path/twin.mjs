/**
 * The programs of the fast path as a third twin of the core: for every frame either the program passes it unchanged, or
 * program and core leave the same bytes for the same VM. And what is plain has to be taken.
 */
import { abi } from 'inlay/core';
import { placesOf } from '../../dist/dataplane/check/arithmetic.js';
import { inbound, outbound } from '../../dist/dataplane/fast-path/programs.js';
import * as layout from '../../dist/dataplane/fast-path/state.js';
import { assemble } from '../../dist/linux/bpf/assembler.js';
import { loadProgram } from '../../dist/linux/bpf/program.js';
import * as native from '../../dist/linux/native.js';
import { contains, ipv4, lowBits } from '../../dist/mesh/address.js';
import { checkMappings, Mapping, mappingsWith } from '../../dist/mesh/mapping.js';
import { u16 } from '../fuzz/bytes.mjs';
import { CoreOracle } from './core-oracle.mjs';
import { bytesDifference, datagramIn, forwarded, udpDifference } from './kernel-oracle.mjs';
import { enterNamespace, LINKS, macOf, mtuOf, peerMacOf, UPLINK } from './namespace.mjs';
import { PASSED, REDIRECTED, testRun } from './test-run.mjs';

const ETHERNET = 14;
const DESTINATION = ETHERNET + 16;
const OUTER_SOURCE = ETHERNET + 12;
const IPV4_TYPE = 0x0800;
const [TCP, UDP, GRE] = [6, 17, 47];
const SYN = 2;
const CE = 3;
const OVERHEAD = { gre: 24, 'gre-udp': 32 };
/** A VM that sends one understands the other, too. */
const FORMATS = ['gre', 'gre-udp'];
const WORDS = layout.VM_SIZE / 4;
const none = () => ({ packets: 0, bytes: 0 });
const add = (total, { packets, bytes }) => {
  total.packets += packets;
  total.bytes += bytes;
};
/** Why a frame may not be taken, or that it may be or has to be. */
const no = (why) => ({ may: false, why });

/**
 * Why there are no programs for a configuration of the core; undefined if there are.
 * @param {import('../../src/core/index.ts').CoreConfig} config
 */
export function whyNot({ local, mappings, greChecksum, greSequence, pathMtuDiscovery, ttl = 64, dscp = 0, mtu }) {
  if (greChecksum) return 'gre-checksum';
  if (greSequence) return 'gre-sequence';
  if (pathMtuDiscovery === false) return 'path-mtu-discovery';
  if (typeof ttl === 'number' && !(ttl >= 1 && ttl <= 255)) return 'ttl';
  if (typeof dscp === 'number' && !(dscp >= 0 && dscp <= 63)) return 'dscp';
  if (mtu !== undefined && !(mtu >= 68 && mtu <= 65535)) return 'mtu';
  try {
    const made = mappingsOf(mappings);
    checkMappings(made);
    const own = mappingsWith(made, ipv4(local));
    if (own.length === 0) return 'no slice';
    for (const mapping of own) mapping.checkVm(ipv4(local));
  } catch {
    return 'mappings';
  }
  return undefined;
}

const mappingsOf = (mappings) =>
  mappings.map(({ overlay, overlayLength, underlay, underlayLength }) => {
    const prefix = (address, length) => ({ ...ipv4(address), length });
    return new Mapping(prefix(overlay, overlayLength), prefix(underlay, underlayLength));
  });

export class ProgramTwin {
  /** What became of the frames, by name. */
  met = { outbound: 0, local: 0, inbound: 0, datagram: 0, passed: 0 };
  /** Looks at the counters of all packets after each frame, and not only where `checkTotals` is called. */
  careful = true;
  /** Source ports by flow, of GRE-in-UDP. */
  ports = new Map();
  #config;
  #mappings;
  #oracle;
  #state;
  #view;
  #words;
  #places;
  #fds = {};
  /** The links of containers by address. */
  #links = new Map();
  /** What all frames together have to be counted as. */
  #totals = { outbound: none(), inbound: none(), local: none() };
  #settings = { enabled: true, uplink: UPLINK, limit: 0 };
  /** When the settings were last told, in ms: the programs take it as a sign of life. */
  #setAt = 0;
  /** Whether there is a daemon that packets may go to now and then. */
  #hasDaemon = true;

  /** `config` is the core's. `change` makes other programs of them: instructions of instructions. */
  constructor(config, change = (_, instructions) => instructions) {
    const { encapsulation = 'gre', key, ttl = 64, dscp = 0, ecn = 'normal', clampMss = false } = config;
    const mtu = config.mtu ?? 1500 - OVERHEAD[encapsulation] - (key === undefined ? 0 : 4);
    this.#config = { ...config, encapsulation, mtu };
    this.#mappings = mappingsOf(config.mappings);
    this.#places = placesOf(this.#mappings);
    this.#oracle = new CoreOracle(this.#config);
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
    this.#settings = { ...this.#settings, ...settings };
    this.#state.set(this.#settings);
    this.#setAt = performance.now();
    this.#hasDaemon = true;
  }

  /** The daemon ends. */
  leave() {
    this.#state.leave();
    this.#hasDaemon = false;
  }

  /** Puts the container with an address at a link, or nowhere. False if no container can have the address. */
  place(address, link) {
    const slot = link && { link, mac: Uint8Array.from(peerMacOf(link)), hostMac: Uint8Array.from(macOf(link)) };
    const isPlaced = this.#state.setContainer(address, slot);
    if (link === undefined || !isPlaced) this.#links.delete(address);
    else this.#links.set(address, link);
    return isPlaced;
  }

  /** Where the container with an address is. */
  linkOf(address) {
    return this.#links.get(address);
  }

  /**
   * Runs the program on a frame that comes in by `ifindex`, `record` being what is known of the VM. Returns what is wrong,
   * or null. `must` says that the frame has to be taken, or has to be passed.
   * @param {string} direction
   * @param {Uint8Array} frame
   * @param {Partial<import('./frames.ts').Edge>} options
   */
  check(direction, frame, { ifindex, record = {}, gsoSize = 0, must } = {}) {
    if (this.#hasDaemon && performance.now() - this.#setAt > SIGN_OF_LIFE) this.set({});
    const from = ifindex ?? (direction === 'inbound' ? UPLINK : (this.linkOf(u32(frame, ETHERNET + 12)) ?? LINKS[0]));
    const expected = this[direction](frame, from, record, gsoSize);
    // The VM that the frame names, whether it may or not: all of that is to be decided by the frame.
    const vm = direction === 'inbound' ? u32(frame, OUTER_SOURCE) : this.#oracle.vmOf(u32(frame, DESTINATION));
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

  /** What may become of a container's frame. */
  outbound(frame, ifindex, record = {}, gsoSize = 0) {
    const why = this.#whyNotRead(frame, ifindex);
    if (why) return no(why);
    const packet = frame.slice(ETHERNET);
    if (packet[8] <= 1) return no('time to live');
    const [source, destination] = [u32(packet, 12), u32(packet, 16)];
    if (this.linkOf(source) !== ifindex) return no('not this container');
    const routed = forwarded(packet);
    const { limit, enabled } = this.#settings;
    const vm = this.#oracle.vmOf(destination);
    const known = { heard: 1, outbound: 1, limit: 0, ...record };
    const most = known.limit === 0 ? limit : Math.min(limit, known.limit);
    const sent = this.#oracle.outbound(routed, most, gsoSize);
    const isPlain = packet[0] === 0x45 && (u16(packet, 6) & 0xbfff) === 0 && packet.length === u16(packet, 2);
    if (sent.verdict === abi.DROP_OWN_SLICE) return this.#local(packet, routed, gsoSize, isPlain, enabled);
    const place = this.#placeOf(vm);
    if (sent.verdict !== abi.FORWARD) return no(`verdict ${sent.verdict}`);
    if (sent.messages !== 1) {
      // The kernel cuts as the core does; here it has no super-packets that could be sent.
      const isSuper = gsoSize !== 0 && packet[9] === TCP && headersOf(packet) + gsoSize <= most;
      return { ...no('cut'), isForwarded: isSuper && enabled && known.heard !== 0 };
    }
    const isOpening = this.#config.clampMss && packet[9] === TCP && u16(packet, 2) >= 40 && (packet[33] & SYN) !== 0;
    const isMuch = isPlain && !isOpening && gsoSize === 0 && place !== undefined;
    const isReady = enabled && known.heard !== 0;
    const isFresh = known.outbound !== 0 || !this.#hasDaemon;
    return {
      may: isReady && isFresh && place !== undefined,
      must: isReady && isFresh && isMuch,
      renews: isReady && !isFresh && isMuch,
      isForwarded: isReady,
      why: isReady ? undefined : 'off or unheard',
      ...{ kind: 'outbound', content: sent.content },
      difference: (got) => this.#sentDifference(got, sent, vm, packet),
    };
  }

  /** Straight to another container of this VM. */
  #local(packet, routed, gsoSize, isPlain, enabled) {
    const link = this.linkOf(u32(packet, 16));
    if (link === undefined) return no('no such container');
    const total = u16(packet, 2);
    const fits = (gsoSize === 0 ? total : Math.min(total, headersOf(packet) + gsoSize)) <= mtuOf(link);
    if (!fits) return no('longer than the link takes');
    const segments = gsoSize === 0 ? 1 : Math.ceil((total - headersOf(packet)) / gsoSize);
    const bytes = total + (segments - 1) * headersOf(packet);
    const isToItself = link === this.linkOf(u32(packet, 12));
    return {
      may: enabled,
      must: enabled && isPlain && gsoSize === 0 && packet[9] !== GRE && !isToItself,
      kind: 'local',
      content: { packets: segments, bytes },
      difference: (got) => bytesDifference(got, delivered(link, routed)),
    };
  }

  #sentDifference(got, sent, vm, packet) {
    if (sent.vm !== vm) return `the core sends to ${sent.vm}`;
    if (u16(got, 12) !== IPV4_TYPE) return `Ethernet type ${u16(got, 12)}`;
    const outer = got.subarray(ETHERNET);
    const { local, encapsulation, ttl } = this.#config;
    if (encapsulation === 'gre') {
      // The kernel forwards a super-packet once more, which takes one off.
      return bytesDifference(outer, sent.isWhole ? forwarded(sent.bytes) : sent.bytes);
    }
    const configured = typeof ttl === 'number' ? ttl : 64;
    const fields = { source: local, destination: vm, tos: sent.tos ?? 0, ttl: sent.ttl ?? configured };
    return udpDifference(outer, sent.bytes, fields) ?? this.#portDifference(u16(outer, 20), packet);
  }

  /** A flow keeps its source port, fragments too. */
  #portDifference(port, packet) {
    const hasPorts = [TCP, UDP].includes(packet[9]) && packet[0] === 0x45 && (u16(packet, 6) & 0x3fff) === 0;
    const flow = Buffer.from([...packet.subarray(12, hasPorts ? 24 : 20), packet[9]]).toString('hex');
    const before = this.ports.get(flow) ?? port;
    this.ports.set(flow, before);
    return port === before ? null : `source port ${port} of a flow that had ${before}`;
  }

  /** What may become of a frame of the underlay. */
  inbound(frame, ifindex, record = {}, gsoSize = 0) {
    const why = this.#whyNotRead(frame, ifindex);
    if (why) return no(why);
    const { local, key, receives = FORMATS } = this.#config;
    const outer = frame.slice(ETHERNET);
    const datagram = datagramIn(outer, local);
    // Whether a checksum is right only the card has looked: it is enough to be heard.
    if (datagram?.isWrong) return { ...no('UDP checksum'), isForwarded: true };
    const from = datagram
      ? this.#oracle.datagram(datagram.payload, datagram.vm, datagram.tos)
      : this.#oracle.inbound(outer);
    const place = this.#placeOf(u32(outer, 12));
    if (from.verdict !== abi.FORWARD) return no(`verdict ${from.verdict}`);
    const inner = from.bytes;
    const { enabled } = this.#settings;
    const forward = { isForwarded: true };
    if (inner[8] <= 1) return { ...no('time to live'), ...forward };
    if (from.isAnomaly) return { ...no('anomaly'), ...forward };
    const link = this.linkOf(u32(inner, 16));
    if (link === undefined) return { ...no('no such container'), ...forward };
    if (inner.length > mtuOf(link) && gsoSize === 0) return { ...no('longer than the link takes'), ...forward };
    const header = datagram ? 28 : (outer[0] & 15) * 4;
    const gre = header + (key === undefined ? 4 : 8);
    const isExact =
      frame.length === ETHERNET + gre + inner.length &&
      outer[0] === 0x45 &&
      (datagram?.isPlain ?? true) &&
      [0, 0x20].includes(outer[header]) &&
      outer[header + 1] === 0;
    const isOpening = this.#config.clampMss && inner[9] === TCP && inner.length >= 40 && (inner[33] & SYN) !== 0;
    // As it came, or with a congestion mark.
    const sent = outer[gre + 1];
    const isMarked = inner[1] === sent || (inner[1] === (sent | CE) && (sent & CE) !== 0);
    const isPlain =
      isExact && isMarked && inner[0] === 0x45 && (u16(inner, 6) & 0xbfff) === 0 && !isOpening && gsoSize === 0;
    const isMuch = isPlain && place !== undefined && receives.includes(datagram ? 'gre-udp' : 'gre');
    const isFresh = record.inbound !== 0 || !this.#hasDaemon;
    return {
      may: enabled && isFresh && place !== undefined,
      must: enabled && isFresh && isMuch && record.heard !== 0,
      renews: enabled && !isFresh && isMuch,
      ...{ ...forward, kind: datagram ? 'datagram' : 'inbound', content: from.content },
      difference: (got) => bytesDifference(got, delivered(link, forwarded(inner))),
    };
  }

  /** Why nobody on this machine reads the frame as a packet that is for it. */
  #whyNotRead(frame, ifindex) {
    if (!this.#settings.enabled) return 'off';
    if (u16(frame, 12) !== IPV4_TYPE) return 'not IPv4';
    return macOf(ifindex).some((byte, i) => frame[i] !== byte) ? 'for another host' : undefined;
  }

  /** Where the record of a VM is; undefined if there is none. */
  #placeOf(vm) {
    const i = this.#mappings.findIndex(({ underlay }) => contains(underlay, ipv4(vm)));
    if (i === -1) return undefined;
    const place = this.#places[i] + (vm & Number(lowBits(this.#mappings[i].vmBits)));
    return place * WORDS < this.#words.length ? place : undefined;
  }
}

/** ms between two signs of life. */
const SIGN_OF_LIFE = 500;
const FLAGS = [
  ['heard', layout.VM_HEARD],
  ['outbound', layout.VM_OUTBOUND_FRESH],
  ['inbound', layout.VM_INBOUND_FRESH],
  ['limit', layout.VM_LIMIT],
];

const u32 = (bytes, at) => (at + 4 > bytes.length ? 0 : (u16(bytes, at) * 0x10000 + u16(bytes, at + 2)) >>> 0);

/** The frame to a container. */
const delivered = (link, packet) => Uint8Array.from([...peerMacOf(link), ...macOf(link), 8, 0, ...packet]);

/** Bytes in the headers of a TCP or UDP packet. */
function headersOf(packet) {
  const header = (packet[0] & 15) * 4;
  return header + (packet[9] === TCP ? (packet[header + 12] >> 4) * 4 : 8);
}

/** Why programs cannot be run here; undefined if they can. */
export function why() {
  try {
    enterNamespace()();
    new ProgramTwin({
      local: 0xc0a81020,
      mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
    }).close();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

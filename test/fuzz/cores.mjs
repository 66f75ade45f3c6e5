/** All that the fuzzer knows of the core's interface (docs/abi.md). */
import { readFileSync } from 'node:fs';
import { abi, DROP_REASONS, typescriptCore, wasmCore } from 'inlay/core';

const load = (name) => wasmCore(new WebAssembly.Module(readFileSync(new URL(`../../build/${name}`, import.meta.url))));

/** Both twins; of the Wasm core, the build with SIMD or that without. */
export const makeTwins = (scalar) => [load(scalar ? 'core-scalar.wasm' : 'core.wasm'), typescriptCore()];

/** What a batch may be for, and the call. */
export const DIRECTIONS = {
  outbound: (core, first, count, now) => core.encapsulate(first, count, now),
  inbound: (core, first, count, now) => core.decapsulate(first, count, now),
};

/** Ranges of memory in which both must have the same after every call: all that is small. */
const ANSWERS = [
  [0, abi.SCRATCH],
  [abi.SCRATCH + abi.SCRATCH_SIZE, abi.IOVS],
];
/** Where both must have the same, whatever lay around the packets. */
const EVERYTHING = [
  [0, abi.SCRATCH],
  [abi.SCRATCH + abi.SCRATCH_SIZE, abi.SLOTS],
];
/** What the host says, which no call may change. */
const SETTINGS = [abi.CONFIG, abi.OUTBOUND_COUNTERS];
/** Where a packet may begin, where all must end, and how much before a packet may become outer headers. */
export const [LEAST, MOST, HEADROOM] = [abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE, abi.MEMORY_SIZE, abi.HEADROOM];

const REGIONS =
  `CONFIG MAPPINGS OUTBOUND_COUNTERS INBOUND_COUNTERS CHANGES MESSAGE_COUNTS SCRATCH DESCRIPTORS CARGOS NAMES CONTROLS
  MESSAGE_TABLE IOVS HEADERS TUNNEL_KEYS TUNNELS SLOTS`
    .split(/\s+/)
    .map((name) => ({ name, start: abi[name] }))
    .sort((a, b) => b.start - a.start);

/** Where in memory that is, for people. */
export function placeName(address) {
  const region = REGIONS.find(({ start }) => start <= address);
  return region ? `${region.name} + ${address - region.start}` : `${address}`;
}

const DESCRIPTOR_WORDS = abi.DESCRIPTOR_SIZE / 4;
/** In descriptors, what a core may write. */
const ANSWERED = [abi.DESCRIPTOR_VERDICT / 4, abi.DESCRIPTOR_PEER / 4];

/** Numbers in one core's memory. */
export class View {
  constructor(core) {
    this.core = core;
    this.name = core.name;
    this.bytes = core.bytes;
    this.words = new Uint32Array(core.memory);
    this.floats = new Float64Array(core.memory);
    this.answers = ANSWERS.map(([start, end]) => core.bytes.subarray(start, end));
    this.everything = EVERYTHING.map(([start, end]) => core.bytes.subarray(start, end));
    this.slots = core.bytes.subarray(abi.SLOTS);
    this.settings = core.bytes.subarray(...SETTINGS);
    this.initial = core.bytes.slice(0, abi.SLOTS);
    this.descriptors = this.words.subarray(
      abi.DESCRIPTORS / 4,
      abi.DESCRIPTORS / 4 + DESCRIPTOR_WORDS * abi.BATCH_SIZE,
    );
  }

  /** As if just made, but for the slots. */
  reset() {
    this.bytes.set(this.initial);
  }

  describe(index, address, length, segment, peer) {
    const at = index * DESCRIPTOR_WORDS;
    this.descriptors[at + abi.DESCRIPTOR_ADDRESS / 4] = address;
    this.descriptors[at + abi.DESCRIPTOR_LENGTH / 4] = length;
    this.descriptors[at + abi.DESCRIPTOR_PEER / 4] =
      ((peer >>> 24) | ((peer >>> 8) & 0xff00) | ((peer << 8) & 0xff0000) | (peer << 24)) >>> 0;
    this.descriptors[at + abi.DESCRIPTOR_SEGMENT / 4] = segment;
  }

  /** Fills `pieces` with address and length of each piece of each message of the last call. Returns how many numbers. */
  pieces(pieces) {
    const { core, words } = this;
    const base = words[(abi.CONFIG + abi.CONFIG_BASE) / 4];
    let n = 0;
    for (let port = 0; port < abi.MAX_PORTS; port++) {
      const first = port * abi.MESSAGES_PER_PORT;
      const count = core.messageCount(port);
      for (let message = first; message < first + count; message++) {
        let iov = (abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE) / 4;
        const count = core.messagePieces(message);
        for (let i = 0; i < count; i++, iov += abi.IOV_SIZE / 4) {
          pieces[n++] = words[iov + abi.IOV_BASE / 4] - base;
          pieces[n++] = words[iov + abi.IOV_LENGTH / 4];
        }
      }
    }
    return n;
  }

  /** Adds what the last call did to `met`, by name. */
  tally(direction, met) {
    const { core, words } = this;
    if (core.tunnelsChanged && core.closed().length > 0) met.evicted++;
    for (let port = 0; port < abi.MAX_PORTS; port++) {
      const count = core.messageCount(port);
      if (port > 0 && count > 0) met.ports++;
      for (let message = port * abi.MESSAGES_PER_PORT, end = message + count; message < end; message++) {
        const iov = (abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE) / 4;
        const first = (words[iov] - words[(abi.CONFIG + abi.CONFIG_BASE) / 4]) >>> 0;
        const packets = words[(abi.CARGOS + message * abi.CARGO_SIZE + abi.CARGO_PACKETS) / 4];
        if (direction === 'outbound') this.#tallySent(message, first, packets, met);
        else if (first < abi.SLOTS) this.#tallyDelivered(first, packets, met);
      }
    }
  }

  #tallySent(message, first, packets, met) {
    if (this.core.isWhole(message)) met.whole++;
    else if (packets > 1) met.joined++;
    if (first < abi.SLOTS) met.cut++;
  }

  /** Its first piece is a virtio header. */
  #tallyDelivered(virtio, packets, met) {
    if (packets > 1) met[this.bytes[virtio + abi.VIRTIO_GSO_TYPE] === 1 ? 'mergedTcp' : 'mergedUdp']++;
    else if (this.bytes[virtio + abi.VIRTIO_FLAGS] === 1) met.open++;
  }

  /** Whether received = forwarded + the sum of all drops, in both directions. */
  isBalanced() {
    for (const start of [abi.OUTBOUND_COUNTERS, abi.INBOUND_COUNTERS]) {
      const drops = (start + abi.COUNTERS_DROPS) / 8;
      let sum = this.floats[(start + abi.COUNTERS_FORWARDED) / 8];
      for (let i = 0; i < abi.VERDICTS; i++) sum += this.floats[drops + i];
      if (sum !== this.floats[(start + abi.COUNTERS_RECEIVED) / 8]) return false;
    }
    return true;
  }
}

/** The first word of the descriptors that is not as it was before, though the core may not write it; -1 if there is none. */
export function changedWord(descriptors, before) {
  for (let i = 0; i < descriptors.length; i++) {
    if (descriptors[i] !== before[i] && !ANSWERED.includes(i % DESCRIPTOR_WORDS)) return i;
  }
  return -1;
}

/** What has to be met sooner or later, besides every reason that a core itself can give. */
export const newMet = () => ({
  cut: 0,
  whole: 0,
  joined: 0,
  mergedTcp: 0,
  mergedUdp: 0,
  open: 0,
  ports: 0,
  continued: 0,
  evicted: 0,
  expired: 0,
});

/** Packets by verdict since the last reset: `forward`, or the drop reason. */
export function verdictsOf(core) {
  const verdicts = {};
  for (const direction of Object.keys(DIRECTIONS)) {
    const { forwarded, drops } = core.counters(direction);
    verdicts[`${direction} forward`] = forwarded;
    for (const { verdict, name } of DROP_REASONS) {
      if (verdict !== abi.DROP_NOT_WRITTEN) verdicts[`${direction} ${name}`] = drops[-verdict];
    }
  }
  return verdicts;
}

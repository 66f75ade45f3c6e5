/** One core's memory, and what docs/abi.md says must be so in it whatever the other has. */
import { abi } from 'inlay/core';
import { ANSWERS, COUNTERS, DESCRIPTOR_WORDS, EVERYTHING, SETTINGS } from './cores.mjs';

/** Bytes of the longest reply. */
const LONGEST_REPLY = 576;
const GRE_OPTIONS = [abi.OPTION_KEY, abi.OPTION_CHECKSUM, abi.OPTION_SEQUENCE];
/** All counters of the three directions. */
const ALL_COUNTERS = [abi.OUTBOUND_COUNTERS / 8, abi.CHANGES / 8];
/** The counters of outbound that `learn` writes too. */
const REPLIES = [abi.COUNTERS_REPLIES, abi.COUNTERS_SUPPRESSED].map((offset) => (abi.OUTBOUND_COUNTERS + offset) / 8);

const swapped = (word) => ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff0000) | (word << 24)) >>> 0;

export class View {
  #counted = new Float64Array(ALL_COUNTERS[1] - ALL_COUNTERS[0]);
  #base = 0;
  /** What is configured, as far as it matters here. */
  config = { local: 0, options: 0, isUdp: false, mtu: 0, outer: 0, overhead: 0, hasVirtio: false };

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

  describe(index, address, length, segment, peer, tos, merged) {
    const at = index * DESCRIPTOR_WORDS;
    this.descriptors[at + abi.DESCRIPTOR_ADDRESS / 4] = address;
    this.descriptors[at + abi.DESCRIPTOR_LENGTH / 4] = length;
    this.descriptors[at + abi.DESCRIPTOR_PEER / 4] = swapped(peer);
    this.descriptors[at + abi.DESCRIPTOR_SEGMENT / 4] = segment;
    this.descriptors[at + abi.DESCRIPTOR_TOS / 4] = tos;
    this.descriptors[at + abi.DESCRIPTOR_MERGED / 4] = merged;
  }

  /** Before a batch: notes what is configured, and what is counted so far. */
  begin() {
    const word = (offset) => this.words[(abi.CONFIG + offset) / 4];
    const options = word(abi.CONFIG_OPTIONS);
    const isUdp = word(abi.CONFIG_ENCAPSULATION) === abi.ENCAPSULATION_GRE_UDP;
    const gre = 4 + 4 * GRE_OPTIONS.filter((option) => (options & option) !== 0).length;
    this.#base = word(abi.CONFIG_BASE);
    Object.assign(this.config, { local: word(abi.CONFIG_LOCAL), options, isUdp, mtu: word(abi.CONFIG_MTU) });
    this.config.outer = isUdp ? gre : 20 + gre;
    this.config.overhead = isUdp ? 28 + gre : 20 + gre;
    this.config.hasVirtio = (word(abi.CONFIG_OFFLOADS) & abi.OFFLOAD_VIRTIO) !== 0;
    this.#counted.set(this.floats.subarray(...ALL_COUNTERS));
  }

  // Messages of the last call.

  pieceStart(message, piece) {
    return (this.words[this.#iov(message, piece) + abi.IOV_BASE / 4] - this.#base) >>> 0;
  }

  pieceLength(message, piece) {
    return this.words[this.#iov(message, piece) + abi.IOV_LENGTH / 4];
  }

  #iov(message, piece) {
    return (abi.IOVS + (message * abi.IOVS_PER_MESSAGE + piece) * abi.IOV_SIZE) / 4;
  }

  /** The VM that a message is for. */
  remote(message) {
    return this.core.messages.peer(message);
  }

  /** Packets that a message carries, and their bytes. */
  packets(message) {
    return this.words[(abi.CONTENTS + message * abi.CONTENT_SIZE + abi.CONTENT_PACKETS) / 4];
  }

  packetBytes(message) {
    return this.words[(abi.CONTENTS + message * abi.CONTENT_SIZE + abi.CONTENT_BYTES) / 4];
  }

  /** Fills `pieces` with address and length of each piece of each message, replies included. Returns how many numbers. */
  pieces(pieces) {
    const { core, words } = this;
    let n = 0;
    for (let port = 0; port <= abi.REPLY_PORT; port++) {
      const first = port * abi.MESSAGES_PER_PORT;
      const end = first + core.messages.count(port);
      for (let message = first; message < end; message++) {
        let iov = this.#iov(message, 0);
        const count = core.messages.pieces(message);
        for (let i = 0; i < count; i++, iov += abi.IOV_SIZE / 4) {
          pieces[n++] = (words[iov + abi.IOV_BASE / 4] - this.#base) >>> 0;
          pieces[n++] = words[iov + abi.IOV_LENGTH / 4];
        }
      }
    }
    return n;
  }

  // What must be so.

  /** What is wrong with the messages, or null: packets longer than their tunnels take, replies longer than they may be. */
  checkMessages(direction) {
    const { core } = this;
    for (let port = 0; direction === 'outbound' && port < abi.MAX_PORTS; port++) {
      const first = port * abi.MESSAGES_PER_PORT;
      for (let message = first, end = first + core.messages.count(port); message < end; message++) {
        const most = this.packets(message) * this.#limit(this.remote(message));
        if (this.packetBytes(message) > most) return `message ${message} has packets longer than their tunnel takes`;
      }
    }
    if (direction === 'inbound' && core.messages.count(abi.REPLY_PORT) > 0)
      return 'a reply, though nobody is to be answered';
    const longest = LONGEST_REPLY + (this.config.hasVirtio ? abi.VIRTIO_SIZE : 0);
    for (let reply = abi.MESSAGES, end = reply + core.messages.count(abi.REPLY_PORT); reply < end; reply++) {
      const [headers, quote] = [this.pieceLength(reply, 0), this.pieceLength(reply, 1)];
      if (core.messages.length(reply) !== headers + quote || headers + quote > longest)
        return `reply ${reply} is too long`;
    }
    return null;
  }

  /** Bytes that a packet to `vm` may have; during a call it only grows. */
  #limit(vm) {
    const { mtu, overhead } = this.config;
    const set = (Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2)) * abi.TUNNEL_WAYS;
    for (let i = set; i < set + abi.TUNNEL_WAYS; i++) {
      if (this.words[abi.TUNNEL_KEYS / 4 + i] !== vm) continue;
      const pathMtu = this.words[(abi.TUNNELS + i * abi.TUNNEL_SIZE + abi.TUNNEL_PATH_MTU) / 4] & 0xffff;
      if (pathMtu !== 0) return Math.min(mtu, pathMtu - overhead);
    }
    return mtu;
  }

  /** What is wrong with the counters, or null: received = forwarded + all drops that there may be, and only one direction counts. */
  checkCounters(direction) {
    const { floats } = this;
    for (const { direction: each, start, reasons } of COUNTERS) {
      let sum = floats[(start + abi.COUNTERS_FORWARDED) / 8];
      for (const { verdict } of reasons) sum += floats[(start + abi.COUNTERS_DROPS) / 8 - verdict];
      if (sum !== floats[(start + abi.COUNTERS_RECEIVED) / 8]) return 'received is not forwarded and drops together';
      if (each === direction) continue;
      for (let at = start / 8; at < (start + abi.COUNTERS_SIZE) / 8; at++) {
        const isReply = direction === 'icmp' && REPLIES.includes(at);
        if (floats[at] !== this.#counted[at - ALL_COUNTERS[0]] && !isReply) return `${direction} counted as ${each}`;
      }
    }
    return null;
  }
}

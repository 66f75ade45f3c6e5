/** The underlay side of the VM that is in the core: a device as the forwarder knows them, between the network and the core's memory. */
import { abi } from 'inlay/core';
import { GRE_UDP, isUdp } from './network.mjs';
import { swapped } from './traffic.mjs';

/** Bytes from one packet to the next: none is longer than the underlay takes. A slot has room for 64 KiB, which only keeps packets apart in the caches. */
const STRIDE = 2048;
const FIRST = abi.SLOTS + abi.HEADROOM;
/** Where packet `i` lies, in words. */
export const placeOf = (i) => (FIRST + i * STRIDE) / 4;
const WORDS = {
  descriptor: abi.DESCRIPTOR_SIZE / 4,
  message: abi.MESSAGE_SIZE / 4,
  iov: abi.IOV_SIZE / 4,
  iovs: (abi.IOVS_PER_MESSAGE * abi.IOV_SIZE) / 4,
};
/** Whether a packet is a fragment: the bits of the word with its identification (more fragments, offset). */
export const FRAGMENT_BITS = 0xff3f0000 | 0;

/** Describes packet `i`; `peer` and 1 as its segment if it is a datagram. */
export function describe(words, i, length, peer = 0) {
  const d = abi.DESCRIPTORS / 4 + i * WORDS.descriptor;
  words[d + abi.DESCRIPTOR_ADDRESS / 4] = FIRST + i * STRIDE;
  words[d + abi.DESCRIPTOR_LENGTH / 4] = length;
  words[d + abi.DESCRIPTOR_PEER / 4] = peer;
  words[d + abi.DESCRIPTOR_SEGMENT / 4] = peer === 0 ? 0 : length;
  words[d + abi.DESCRIPTOR_TOS / 4] = 0;
  words[d + abi.DESCRIPTOR_MERGED / 4] = 0;
}

/** A message of the core: its bytes lie in `words` from `at` on. */
export class Gathered {
  words;
  at = 0;
  length = 0;
  #memory;
  #own = new Int32Array(STRIDE / 4);

  constructor(memory) {
    this.#memory = memory;
    this.words = memory;
  }

  /** Finds message `m`; what is in pieces is put together. */
  look(m) {
    const memory = this.#memory;
    const message = abi.MESSAGE_TABLE / 4 + m * WORDS.message;
    const iov = abi.IOVS / 4 + m * WORDS.iovs;
    const pieces = memory[message + abi.MESSAGE_IOV_COUNT / 4];
    this.length = memory[message + abi.MESSAGE_LENGTH / 4];
    this.words = pieces === 1 ? memory : this.#own;
    this.at = pieces === 1 ? memory[iov] >> 2 : 0;
    if (pieces === 1) return;
    for (let i = 0, end = 0; i < pieces; i++) {
      const from = memory[iov + i * WORDS.iov] >> 2;
      const count = (memory[iov + i * WORDS.iov + abi.IOV_LENGTH / 4] + 3) >> 2;
      for (let n = 0; n < count; n++) this.#own[end++] = memory[from + n];
    }
  }
}

export class Underlay {
  /** The VM that is in the core, and its kind of messages. */
  vm = 0;
  kind = GRE_UDP;
  /** What was read: kind, packet and sender of each. */
  kinds = new Int32Array(abi.BATCH_SIZE);
  numbers = new Int32Array(abi.BATCH_SIZE);
  count = 0;
  /** Messages that each packet of the containers became in this call, and bytes of all their inner packets. */
  messages = new Int32Array(abi.BATCH_SIZE);
  bytes = 0;
  #words;
  #gathered;

  constructor(core, network, ledger, numbersSent) {
    Object.assign(this, { network, ledger, numbersSent });
    this.#words = new Int32Array(core.memory);
    this.#gathered = new Gathered(this.#words);
  }

  /** Something has arrived: it is put where `read` tells of it. `peer` is its sender's address. */
  put(kind, number, peer, words, place, length) {
    const i = this.count++;
    this.kinds[i] = kind;
    this.numbers[i] = number;
    const to = placeOf(i);
    const count = (length + 3) >> 2;
    for (let n = 0; n < count; n++) this.#words[to + n] = words[place + n];
    describe(this.#words, i, length, isUdp(kind) ? swapped(peer) : 0);
  }

  read() {
    return this.count;
  }

  /** Hands the messages of the core to the network. */
  write(_core, first, end) {
    const words = this.#words;
    const message = this.#gathered;
    const inner = this.kind === GRE_UDP ? 1 : 6;
    for (let m = first; m < end; m++) {
      message.look(m);
      const peer = swapped(words[(abi.NAMES + m * abi.NAME_SIZE + abi.NAME_ADDRESS) / 4]) >>> 0;
      const packet = words[(abi.CONTENTS + m * abi.CONTENT_SIZE + abi.CONTENT_PACKET) / 4];
      const i = (packet - FIRST) / STRIDE;
      const number = this.numbersSent[i];
      this.messages[i]++;
      this.bytes += message.length - 4 * inner;
      this.ledger.put(number);
      if (message.words[message.at + inner + 1] & FRAGMENT_BITS) this.ledger.fragment(number);
      this.network.send(this.vm, peer, this.kind, number, message.words, message.at, message.length);
    }
  }
}

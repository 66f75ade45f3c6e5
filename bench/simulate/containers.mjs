/** The overlay side of the VM that is in the core: its containers, which send what the traffic says, and look at what they get. */
import { abi } from 'inlay/core';
import { BYTES, REPLIES } from './failures.mjs';
import { LOCALLY } from './ledger.mjs';
import { overlayOf } from './mesh.mjs';
import { isUdp } from './network.mjs';
import { checksumOf, LOCAL, swapped } from './traffic.mjs';
import { describe, FRAGMENT_BITS, Gathered, placeOf } from './underlay.mjs';

const FIRST_REPLY = abi.REPLY_PORT * abi.MESSAGES_PER_PORT;
/** Words of a reply before what it quotes. */
const REPLY_HEADERS = 7;
const FRAGMENTATION_NEEDED = 4;

export class Containers {
  vm = 0;
  /** How often each VM has begun. */
  lives;
  /** Packets that are in the core: their numbers, and what they are meant for. */
  numbers = new Int32Array(abi.BATCH_SIZE);
  kinds = new Int32Array(abi.BATCH_SIZE);
  count = 0;
  /** Packets and copies that were compared with what was sent, and replies that were looked at, of all and of this turn. */
  compared = 0;
  replies = 0;
  /** Bytes of what this turn brought. */
  bytes = 0;
  /** The next packet of the batch from the underlay of which a message has to come. */
  next = 0;
  #words;
  #message;

  constructor(core, { traffic, ledger, failures, digest, batch, packets, vms }) {
    Object.assign(this, { traffic, ledger, failures, digest, batch, packets, core });
    this.lives = new Int32Array(vms);
    this.#words = new Int32Array(core.memory);
    this.#message = new Gathered(this.#words);
  }

  /** The containers of the VM send a batch. */
  read() {
    const { ledger, traffic } = this;
    this.count = 0;
    for (let n = 0; n < this.batch && ledger.sent < this.packets; n++) {
      const number = ledger.send(this.vm);
      traffic.look(number, this.vm);
      if (traffic.kind === LOCAL) {
        // The VM's own routes lead there: the core never sees it.
        ledger.end(number, LOCALLY);
        continue;
      }
      const i = this.count++;
      this.numbers[i] = number;
      this.kinds[i] = traffic.kind;
      traffic.write(this.#words, placeOf(i), number);
      describe(this.#words, i, traffic.length);
    }
    return this.count;
  }

  write(core, first, end) {
    for (let m = first; m < end; m++) {
      this.#message.look(m);
      if (m >= FIRST_REPLY) this.#takeReply();
      else this.#take(core);
    }
  }

  /** A batch from the underlay begins. */
  begin(underlay) {
    this.underlay = underlay;
    this.next = 0;
    this.bytes = 0;
  }

  /** The next packet of the batch that was forwarded; `count` if there is none. */
  forwarded() {
    while (this.next < this.underlay.count && this.core.verdict(this.next) < 0) this.next++;
    return this.next;
  }

  #take() {
    const { words, at, length } = this.#message;
    const { underlay, ledger, traffic, failures, vm } = this;
    const i = this.forwarded();
    this.next++;
    this.bytes += length;
    const number = i < underlay.count ? underlay.numbers[i] : -1;
    if (!ledger.has(number)) {
      failures.add(BYTES, 'a container got a packet that no container had sent', { vm, forged: number });
      return;
    }
    this.digest.add(number, vm);
    this.compared++;
    traffic.look(number, ledger.senderOf(number));
    if (traffic.vm !== vm)
      failures.add(BYTES, 'a packet was delivered by the wrong VM', { number, vm, right: traffic.vm });
    if (words[at + 1] & FRAGMENT_BITS) {
      ledger.deliverFragment(number, words, at, length, this.lives[vm]);
      return;
    }
    const byte = traffic.difference(words, at, length, number);
    if (byte >= 0) failures.add(BYTES, 'a packet was delivered that is not what was sent', { number, vm, byte });
    ledger.deliver(number);
  }

  /** A container is told by ICMP about a packet of its own. */
  #takeReply() {
    const { words, at, length } = this.#message;
    const { ledger, traffic, vm } = this;
    this.replies++;
    for (let i = at; i < at + (length >> 2); i++) this.digest.add(words[i], i - at);
    const quoted = at + REPLY_HEADERS;
    const number = words[quoted + 7];
    const isOurs = ledger.has(number) && ledger.senderOf(number) === vm;
    if (isOurs) traffic.look(number, vm);
    const end = at + (length >> 2);
    const tail = length & 3 ? words[end] & ((1 << (8 * (length & 3))) - 1) : 0;
    const [mtu, code] = [swapped(words[at + 6]), (words[at + 5] >>> 8) & 0xff];
    const isRight =
      isOurs &&
      words[at + 3] === swapped(overlayOf(vm, 1)) &&
      words[at + 4] === swapped(traffic.source) &&
      checksumOf(words, at, 5) === 0 &&
      checksumWith(words, at + 5, end, tail) === 0 &&
      traffic.begins(words, quoted, (length >> 2) - REPLY_HEADERS, number) &&
      (code !== FRAGMENTATION_NEEDED || (traffic.isWhole && mtu >= 68 && mtu < traffic.length));
    if (!isRight) this.failures.add(REPLIES, 'a reply to a container is not about its packet', { vm, number });
  }
}

function checksumWith(words, start, end, tail) {
  const sum = (~checksumOf(words, start, end - start) & 0xffff) + (tail & 0xffff) + (tail >>> 16);
  return ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}

/** Whether a message that a VM should have believed was about a packet whose container is to be told; `words` from `at` on are the ICMP message. */
export function asksForReply(words, at, length, kind) {
  const inner = at + 7 + (isUdp(kind) ? 8 : 6);
  // Of the container's packet its header and 8 bytes have to be there (docs/core-state.md, ICMP messages from the underlay).
  if (length < 4 * (inner - at) + 28) return false;
  const field = words[inner + 1];
  if (field & 0xff1f0000) return false;
  return ((words[at + 5] >>> 8) & 0xff) !== FRAGMENTATION_NEEDED || (field & (0x40 << 16)) !== 0;
}

/**
 * What became of every packet. A packet, and each copy that the network makes of it, comes to exactly one end: it is delivered, or it is counted under one reason.
 * Of a packet in fragments it is seen when the last of them has come to its end.
 */
import { abi, verdictName } from 'inlay/core';
import { BYTES, ENDS } from './failures.mjs';
import { checksumOf } from './traffic.mjs';

const NAMES = [
  'delivered',
  'delivered again: the network had made a copy',
  'delivered in fragments, put together',
  'delivered on the same VM',
  'lost by the network',
  'too long for the path',
  'no such VM',
  'receiver had vanished',
  'in fragments, of which some did not arrive',
];
const [DELIVERED, AGAIN] = [0, 1];
export const [REASSEMBLED, LOCALLY, LOST, TOO_LONG, NOBODY, VANISHED, INCOMPLETE] = [2, 3, 4, 5, 6, 7, 8];
export const OUTBOUND = NAMES.length;
export const INBOUND = OUTBOUND + abi.VERDICTS;
const ALL = INBOUND + abi.VERDICTS;

const IS_DELIVERED = 1;
const IS_FRAGMENTED = 2;
/** Units of 8 bytes in the longest packet. */
const UNITS = 192;

export class Ledger {
  /** By how it ended: packets and copies. */
  ends = new Float64Array(ALL);
  sent = 0;
  copies = 0;
  fragmented = 0;
  pieces = 0;
  #senders;
  #open;
  #flags;
  /** Packets in fragments, by number, while a fragment is on its way. */
  #fragments = new Map();

  constructor(packets, traffic, failures) {
    this.#senders = new Uint32Array(packets);
    this.#open = new Uint8Array(packets);
    this.#flags = new Uint8Array(packets);
    this.traffic = traffic;
    this.failures = failures;
  }

  /** A container sends a packet: it is in its VM's hands. Returns its number. */
  send(vm) {
    const number = this.sent++;
    this.#senders[number] = vm;
    this.#open[number] = 1;
    return number;
  }

  senderOf(number) {
    return this.#senders[number];
  }

  /** Whether there is such a packet. */
  has(number) {
    return number >= 0 && number < this.sent;
  }

  /** One more message with the packet is on its way. */
  put(number) {
    this.#open[number]++;
  }

  /** The network has made a copy of a message. */
  copy(number) {
    this.#open[number]++;
    if ((this.#flags[number] & IS_FRAGMENTED) === 0) this.copies++;
  }

  /** A message has a fragment of the packet. */
  fragment(number) {
    this.pieces++;
    if (this.#flags[number] & IS_FRAGMENTED) return;
    this.#flags[number] |= IS_FRAGMENTED;
    this.fragmented++;
  }

  isFragmented(number) {
    return (this.#flags[number] & IS_FRAGMENTED) !== 0;
  }

  /** The VM has sent the packet in `messages` messages, and has it no more. */
  release(number, messages) {
    if (messages === 0) this.failures.add(ENDS, 'a packet that the core says it forwards is in no message', { number });
    if (this.#open[number] === 0) this.failures.add(ENDS, 'a packet has more ends than copies', { number });
    this.#open[number]--;
    if (this.isFragmented(number) && this.#open[number] === 0) this.#endFragmented(number);
  }

  /** A copy of the packet, or one of its fragments, has come to its end. */
  end(number, how) {
    if (this.#open[number] === 0) {
      this.failures.add(ENDS, 'a packet has more ends than copies', { number, end: endName(how) });
      return;
    }
    this.#open[number]--;
    if (!this.isFragmented(number)) this.ends[how]++;
    else if (this.#open[number] === 0) this.#endFragmented(number);
  }

  /** A container has got the packet. */
  deliver(number) {
    const isFirst = (this.#flags[number] & IS_DELIVERED) === 0;
    this.#flags[number] |= IS_DELIVERED;
    this.end(number, isFirst ? DELIVERED : AGAIN);
  }

  /** A container has got a fragment: `length` bytes at `words` from `at` on, with its IPv4 header. `life` tells one time that the VM runs from another. */
  deliverFragment(number, words, at, length, life) {
    let known = this.#fragments.get(number);
    if (known?.life !== life) {
      known = { life, data: new Int32Array(2 * UNITS), seen: new Uint8Array(UNITS), length: -1 };
      this.#fragments.set(number, known);
    }
    const field = ((words[at + 1] >> 8) & 0xff00) | (words[at + 1] >>> 24);
    const offset = (field & 0x1fff) * 8;
    if ((field & 0x2000) === 0) known.length = offset + length;
    if (offset === 0) known.data.set(words.subarray(at, at + 5));
    for (let i = 5; i < (length + 3) >> 2; i++) known.data[(offset >> 2) + i] = words[at + i];
    known.seen.fill(1, offset / 8, (offset + length - 20 + 7) >> 3);
    this.end(number, DELIVERED);
  }

  #endFragmented(number) {
    const known = this.#fragments.get(number);
    this.#fragments.delete(number);
    if (known === undefined || known.length < 0 || known.seen.indexOf(0) < (known.length - 20 + 7) >> 3) {
      this.ends[INCOMPLETE]++;
      return;
    }
    this.traffic.look(number, this.#senders[number]);
    const { data, length } = known;
    // The header of what is put together: all in one piece (RFC 791 §3.2).
    data[0] = (data[0] & 0xffff) | ((length >> 8) << 16) | (length << 24);
    data[1] &= 0xffff;
    data[2] &= 0xffff;
    data[2] |= checksumOf(data, 0, 5) << 16;
    const different = this.traffic.difference(data, 0, length, number);
    if (different >= 0)
      this.failures.add(BYTES, 'a packet put together from its fragments is not what was sent', {
        number,
        byte: different,
      });
    this.ends[REASSEMBLED]++;
  }

  /** Packets that have not come to their end. */
  get unaccounted() {
    let n = 0;
    for (let i = 0; i < this.sent; i++) if (this.#open[i] > 0) n++;
    return n;
  }

  /** How packets and copies ended, and how many did so: those that there are. */
  get list() {
    return Array.from(this.ends, (count, how) => ({ name: endName(how), count })).filter(({ count }) => count > 0);
  }
}

function endName(how) {
  if (how < OUTBOUND) return NAMES[how];
  return how < INBOUND
    ? `dropped by its own VM: ${verdictName(OUTBOUND - how)}`
    : `dropped by the receiving VM: ${verdictName(INBOUND - how)}`;
}

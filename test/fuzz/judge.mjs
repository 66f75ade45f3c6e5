/**
 * Whether two cores do the same with a batch, and only what they may. What lies before and behind each packet is random, and different
 * in the two, so that a core that reads there, or writes there, gives itself away.
 */
import { abi } from 'inlay/core';
import { ALIAS, CAPACITY, NOWHERE, PACKET } from './batch.mjs';
import { changedWord, DIRECTIONS, HEADROOM, LEAST, MOST, placeName, verdictsOf } from './cores.mjs';
import { newMet, tally } from './met.mjs';
import { Random } from './random.mjs';
import { Sent } from './sent.mjs';
import { View } from './view.mjs';

/** Calls that one batch may take: each handles at least one descriptor. */
const MOST_CALLS = 2 * abi.BATCH_SIZE;

export class Judge {
  met = newMet();
  /** What was sent since the last reset. */
  sent = new Sent();
  #views;
  /** Compares all of memory after each batch, and not only at `compareAll`. */
  #careful;
  #random = new Random(0);
  #image = new Uint8Array(CAPACITY);
  #imageWords = new Uint32Array(this.#image.buffer);
  /** What each byte of one core, XORed with that of the other, has to be: 0 in packets and messages. */
  #mask = new Uint8Array(CAPACITY);
  #maskWords = new Uint32Array(this.#mask.buffer);
  /** Where in memory the image lies, and its length. */
  #base = 0;
  #length = 0;
  /** What the mask has before and behind packets. */
  #before = 0;
  #behind = 0;
  #places = new Uint32Array(abi.BATCH_SIZE);
  #pieces = [new Uint32Array(2 ** 18), new Uint32Array(2 ** 18)];
  #descriptors = new Uint32Array((abi.DESCRIPTOR_SIZE / 4) * abi.BATCH_SIZE);
  #settings;

  constructor(left, right, careful = false) {
    this.#views = [new View(left), new View(right)];
    this.#settings = this.#views[0].settings.slice();
    this.#careful = careful;
  }

  reset() {
    for (const view of this.#views) view.reset();
    this.sent.clear();
  }

  /** What became of all packets since then. */
  get verdicts() {
    return verdictsOf(this.#views[0]);
  }

  /** Configures both. Returns what differs, or null. */
  configure({ config, devices }) {
    const [left, right] = this.#views.map(({ core }) => {
      try {
        core.attach(devices);
        core.configure(config);
        return 'fits';
      } catch (error) {
        return String(error);
      }
    });
    this.#settings.set(this.#views[0].settings);
    return left === right ? this.#compare('answers') : `configure: ${left}, and ${right}`;
  }

  /** Gives the batch to both. Returns what differs, or what neither may do; null if all is well. */
  judge(batch) {
    this.#place(batch);
    for (const view of this.#views) view.begin();
    const { direction } = batch;
    const before = (address) => this.#image[address - this.#base];
    const limit = Math.min(Math.max(batch.count, 0), abi.BATCH_SIZE);
    for (let first = batch.first, calls = 1; ; calls++) {
      const ends = this.#call((core) => DIRECTIONS[direction](core, first, batch.count, batch.now));
      if (typeof ends === 'string') return ends;
      const [view] = this.#views;
      const wrong = this.#compare('answers') ?? view.checkMessages(direction) ?? this.#comparePieces();
      if (wrong) return wrong;
      tally(view, direction, this.met, before);
      if (direction === 'outbound') this.sent.note(view);
      const unequal = this.#refuse(batch);
      if (unequal) return unequal;
      if (ends >= limit) break;
      this.met.continued++;
      if (ends <= Math.max(first, 0) || calls > MOST_CALLS) return `does not get past descriptor ${ends}`;
      first = ends;
    }
    return (
      this.#compareSlots() ??
      this.#checkUnchanged(batch) ??
      this.#checkHost(direction) ??
      this.#narrow(batch) ??
      this.#expire(batch) ??
      (this.#careful ? this.compareAll() : null)
    );
  }

  /** Compares all of memory but what is different on purpose. */
  compareAll() {
    return this.#compare('everything');
  }

  /** As `judge`, with identical surroundings, and compares all of memory but SCRATCH. */
  judgeAll(batch) {
    const [left, right] = this.#views;
    right.slots.set(left.slots);
    batch.identical = true;
    const wrong = this.judge(batch) ?? this.compareAll();
    if (wrong || Buffer.compare(left.slots, right.slots) === 0) return wrong;
    return this.#differenceAt(abi.SLOTS + left.slots.findIndex((byte, i) => byte !== right.slots[i]));
  }

  // Before the call.

  /** Puts packets and descriptors into both memories, and random bytes around. */
  #place(batch) {
    const { size, kinds, starts, lengths, beyonds, data } = batch;
    const random = this.#random;
    random.seed(batch.surroundings);
    this.#before = batch.identical ? 0 : random.between(1, 127);
    this.#behind = batch.identical ? 0 : random.between(128, 255);
    const isLast = random.chance(20);
    let end = 0;
    for (let i = 0; i < size; i++) {
      if (kinds[i] !== PACKET) continue;
      // The first may begin as early as any may, the last end where memory does.
      const place =
        end + (end === 0 && !isLast ? LEAST - abi.SLOTS : HEADROOM) + (random.chance(50) ? 0 : random.below(16));
      this.#places[i] = place;
      end = place + lengths[i] + beyonds[i] + random.between(1, 20);
      if (isLast && i === size - 1) end = place + lengths[i];
    }
    const shift = isLast ? -end & 3 : 0;
    this.#length = (end + shift + 3) & ~3;
    this.#base = isLast ? MOST - this.#length : abi.SLOTS;
    random.fill(this.#image, 0, this.#length);
    this.#mask.fill(this.#behind, 0, this.#length);
    for (let i = 0; i < size; i++) {
      if (kinds[i] !== PACKET) continue;
      this.#places[i] += shift;
      const place = this.#places[i];
      const bytes = Math.min(lengths[i] + beyonds[i], this.#length - place);
      this.#image.set(data.subarray(starts[i], starts[i] + bytes), place);
      this.#mask.fill(this.#before, Math.max(place - HEADROOM, 0), place);
      this.#mask.fill(0, place, place + lengths[i]);
    }
    this.#putImage();
    for (const view of this.#views) this.#describe(view, batch);
    this.#descriptors.set(this.#views[0].descriptors);
  }

  #putImage() {
    const [left, right] = this.#views;
    left.bytes.set(this.#image.subarray(0, this.#length), this.#base);
    const words = right.words;
    const start = this.#base / 4;
    for (let i = 0, n = this.#length / 4; i < n; i++) words[start + i] = this.#imageWords[i] ^ this.#maskWords[i];
  }

  #describe(view, { size, kinds, starts, lengths, segments, peers, services, merged }) {
    view.descriptors.fill(0);
    for (let i = 0; i < size; i++) {
      let [address, length] = [starts[i], lengths[i]];
      if (kinds[i] === ALIAS) {
        const start = LEAST - abi.SLOTS + (address % Math.max(this.#length - LEAST + abi.SLOTS, 1));
        length = Math.max(Math.min(length, this.#length - start), 0);
        address = this.#base + Math.min(start, this.#length);
      } else if (kinds[i] !== NOWHERE) address = this.#base + this.#places[i];
      view.describe(i, address, length, segments[i], peers[i], services[i], merged[i]);
    }
  }

  // After it.

  /** What both return, or what is wrong with that. */
  #call(work) {
    const answers = this.#views.map(({ core, name }) => {
      try {
        return work(core);
      } catch (error) {
        return `${name} throws ${error}`;
      }
    });
    const thrown = answers.find((answer) => typeof answer === 'string');
    if (thrown) return thrown;
    return answers[0] === answers[1] ? answers[0] : `returned: ${answers.join(', and ')}`;
  }

  #compare(what) {
    const [left, right] = this.#views;
    for (let i = 0; i < left[what].length; i++) {
      const [a, b] = [left[what][i], right[what][i]];
      if (Buffer.compare(a, b) === 0) continue;
      return this.#differenceAt(a.byteOffset + a.findIndex((byte, at) => byte !== b[at]));
    }
    return null;
  }

  #differenceAt(address) {
    const [left, right] = this.#views.map(({ name, bytes }) => `${name} has ${bytes[address]}`);
    return `${placeName(address)}: ${left}, ${right}`;
  }

  /** The pieces of all messages: the same ones, the same bytes, none of them where there may be none. */
  #comparePieces() {
    const [left, right] = this.#views;
    const [a, b] = this.#pieces;
    const count = left.pieces(a);
    if (right.pieces(b) !== count) return 'messages: the numbers of their pieces differ';
    for (let i = 0; i < count; i += 2) {
      const [address, length] = [a[i], a[i + 1]];
      if (address !== b[i] || length !== b[i + 1]) return `messages: piece ${i / 2} is not the same`;
      const start = address - this.#base;
      if (address + length <= abi.SLOTS) {
        // The core made it, be it headers or a whole packet.
        for (let at = address; at < address + length; at++) {
          if (left.bytes[at] !== right.bytes[at]) return this.#differenceAt(at);
        }
      } else if (start < 0 || start + length > this.#length) {
        return `messages: piece ${i / 2} is at ${placeName(address)}`;
      } else if (this.#mask[start] !== 0) {
        // It begins in the headroom, and all of it is a message now: the same in both.
        const next = this.#mask.indexOf(this.#behind, start);
        if (next !== -1 && next < start + length) return `messages: piece ${i / 2} is not in the place of a packet`;
        this.#mask.fill(0, start, start + length);
      } else if (length > 0 && this.#mask[start + length - 1] !== 0) {
        return `messages: piece ${i / 2} ends behind its packet`;
      }
    }
    return null;
  }

  /** Packets and what became messages are the same; all else is as different as it was, since nobody wrote there. */
  #compareSlots() {
    const [left, right] = this.#views;
    const start = this.#base / 4;
    const [a, b, mask] = [left.words, right.words, this.#maskWords];
    for (let i = 0, n = this.#length / 4; i < n; i++) {
      if ((a[start + i] ^ b[start + i] ^ mask[i]) === 0) continue;
      let at = 4 * i;
      while ((left.bytes[this.#base + at] ^ right.bytes[this.#base + at]) === this.#mask[at]) at++;
      const was =
        this.#mask[at] === 0 ? 'in a packet or message' : 'written or copied there though outside of all packets';
      return `${this.#differenceAt(this.#base + at)}, ${was}`;
    }
    return null;
  }

  /** What is dropped keeps its bytes, and so does what is only read. */
  #checkUnchanged({ direction, size, kinds, lengths, identical }) {
    const [view] = this.#views;
    // An ALIAS may lie in a packet that was forwarded.
    for (let i = 0; i < size && !identical; i++) {
      if (kinds[i] !== PACKET || (direction !== 'icmp' && view.core.verdict(i) >= 0)) continue;
      for (let at = this.#places[i], end = at + lengths[i]; at < end; at++) {
        if (view.bytes[this.#base + at] !== this.#image[at]) return `both changed packet ${i}, which is not sent`;
      }
    }
    return null;
  }

  /** What the host said is as it was, and the counters add up. */
  #checkHost(direction) {
    const [view] = this.#views;
    const changed = changedWord(view.descriptors, this.#descriptors);
    if (changed !== -1) return `descriptors: both changed word ${changed}`;
    if (Buffer.compare(view.settings, this.#settings) !== 0) return 'both changed the configuration';
    return view.checkCounters(direction);
  }

  /** Messages that the host could not write, whether there are such or not; of their VMs, some are reached again. */
  #refuse({ refuse, now }) {
    if (!refuse) return null;
    const [view] = this.#views;
    const replies = view.core.messages.count(abi.REPLY_PORT);
    const learnt = view.core.tunnels.learnt().length;
    for (let message = -1; message <= abi.ALL_MESSAGES; message += refuse.every) {
      const peer = message >= 0 && message < abi.MESSAGES ? view.core.messages.peer(message) : message;
      const wrong = this.#call((core) => core.refuse(message, refuse.code, now));
      if (wrong) return wrong;
      if (message % 3 === 0) this.#call((core) => core.reach(peer, now));
    }
    this.met.refused++;
    this.met['refused reply'] += view.core.messages.count(abi.REPLY_PORT) - replies;
    this.met['reached again'] += view.core.tunnels
      .learnt()
      .slice(learnt)
      .filter(({ unreachable }) => unreachable === undefined).length;
    return this.#compare('answers') ?? this.#comparePieces();
  }

  #narrow({ narrow, now }) {
    if (!narrow) return null;
    const wrong = this.#call((core) => core.narrow(narrow.vm, narrow.mtu, now));
    if (this.#views[0].core.tunnels.haveChanged) this.met.narrowed++;
    return wrong ?? this.#compare('answers');
  }

  #expire({ expire }) {
    if (expire < 0) return null;
    const closed = this.#call((core) => core.expire(expire));
    if (typeof closed === 'string') return closed;
    this.met.expired += closed;
    return this.#compare('answers');
  }
}

/**
 * The third implementation: the programs of the fast path, run by the kernel on what the cores are given. What they take
 * has to leave as the core would have sent it.
 */
import { abi } from 'inlay/core';
import { udpAround, unforwarded } from '../fast-path/kernel-oracle.mjs';
import { LINKS, macOf, STRANGER, UPLINK } from '../fast-path/namespace.mjs';
import { whyNot } from '../fast-path/setup.mjs';
import { canRun } from '../fast-path/test-run.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
import { PACKET } from './batch.mjs';
import { put16, put32 } from './bytes.mjs';
import { Judge } from './judge.mjs';
import { putHeaderRight } from './packets.mjs';
import { Random } from './random.mjs';

/** One set-up in so many is for the programs too: the kernel checks them anew for each. */
const SETUPS = 3;
/** Containers that there are, and the index of the first. */
const [FIRST, CONTAINERS] = [2, 30];
/** Links, but for the last, which takes only short packets. */
const WIDE = LINKS.length - 1;
const ETHERNET = 14;
const FROM = [2, 0, 0, 0, 9, 9];
const [NONE, TCPV4, UDP_L4] = [0, 1, 5];

const framed = (packet, link) => {
  const frame = new Uint8Array(ETHERNET + packet.length);
  frame.set(macOf(link));
  frame.set(FROM, 6);
  frame[12] = 8;
  frame.set(packet, ETHERNET);
  return frame;
};

/** As a judge, but the programs are judged as well. Its thread has to be in a namespace with the links. */
export class ProgramJudge extends Judge {
  /** Frames that were given to programs, and how many of them were taken. */
  frames = 0;
  #twin;
  #configured = '';
  #setups = 0;
  #local = 0;
  #hasVirtio = false;
  #random = new Random(0);
  #seed = 0;

  constructor(left, right, careful = false) {
    super(left, right, careful);
    this.careful = careful;
  }

  configure(setup) {
    const wrong = super.configure(setup);
    if (wrong) return wrong;
    const { local, mappings, ...options } = setup.config;
    this.#local = local;
    this.#hasVirtio = (setup.devices.offloads & abi.OFFLOAD_VIRTIO) !== 0;
    const configured = JSON.stringify([local, mappings, options]);
    // A case that is made small has to be the same each time.
    const isTurn = this.careful || this.#setups++ % SETUPS === 0;
    if (configured === this.#configured && this.#twin) return null;
    this.close();
    if (!isTurn || whyNot(setup.config) !== undefined) return null;
    this.#configured = configured;
    this.#twin = new ProgramTwin(setup.config);
    for (let index = FIRST; index < FIRST + CONTAINERS; index++) {
      for (const slice of this.#twin.slices) this.#twin.place((slice + index) >>> 0, LINKS[index % WIDE]);
    }
    this.#twin.careful = this.careful;
    return null;
  }

  judge(batch) {
    return super.judge(batch) ?? this.#run(batch);
  }

  reset() {
    super.reset();
    this.#setups = 0;
    this.close();
  }

  close() {
    this.#twin?.close();
    this.#twin = undefined;
  }

  #run(batch) {
    const twin = this.#twin;
    if (!twin || batch.direction === 'icmp') return null;
    this.#seed = batch.surroundings;
    const before = { ...twin.met };
    for (let i = 0; i < batch.size; i++) {
      if (batch.kinds[i] !== PACKET) continue;
      const wrong = batch.direction === 'outbound' ? this.#outbound(batch, i) : this.#inbound(batch, i);
      if (wrong) return `program, packet ${i}: ${wrong}`;
    }
    const uncounted = twin.checkTotals();
    if (uncounted) return `program: ${uncounted}`;
    for (const [name, times] of Object.entries(twin.met)) {
      this.met[`program ${name}`] = (this.met[`program ${name}`] ?? 0) + times - before[name];
    }
    return null;
  }

  #outbound({ data, view, starts, lengths }, i) {
    const twin = this.#twin;
    const virtio = this.#hasVirtio ? starts[i] : -1;
    const start = virtio === -1 ? starts[i] : virtio + abi.VIRTIO_SIZE;
    const end = starts[i] + lengths[i];
    if (end - start < 20) return null;
    const packet = unforwarded(data.subarray(start, end));
    const type = virtio === -1 ? NONE : data[virtio + abi.VIRTIO_GSO_TYPE] & 0x7f;
    const gsoSize = type === TCPV4 || type === UDP_L4 ? view.getUint16(virtio + abi.VIRTIO_GSO_SIZE, true) : 0;
    // Of each packet for itself: others may be left out.
    this.#random.seed(this.#seed + packet.length);
    const source = new DataView(packet.buffer).getUint32(12);
    // Now and then to a neighbour.
    if (this.#random.chance(5)) {
      put32(packet, 16, (source & -8) | this.#random.below(8));
      putHeaderRight(packet, 0, packet.length);
    }
    const own = twin.linkOf(source) ?? LINKS[0];
    const ifindex = this.#random.chance(98) ? own : this.#random.pick([...LINKS, STRANGER, UPLINK]);
    return this.#check('outbound', framed(packet, ifindex), ifindex, gsoSize);
  }

  #inbound({ data, starts, lengths, segments, peers, services }, i) {
    const [start, end, segment] = [starts[i], starts[i] + lengths[i], segments[i]];
    if (segment === 0) return this.#check('inbound', framed(data.subarray(start, end), UPLINK), UPLINK, 0);
    for (let at = start; at < end; at += segment) {
      const payload = data.subarray(at, Math.min(at + segment, end));
      const datagram = udpAround(payload, { source: peers[i], destination: this.#local, tos: services[i] & 255 });
      const wrong = this.#check('inbound', framed(datagram, UPLINK), UPLINK, 0);
      if (wrong) return wrong;
    }
    return null;
  }

  #check(direction, frame, ifindex, gsoSize) {
    const random = this.#random;
    random.seed(this.#seed - frame.length);
    const record = random.chance(90)
      ? {}
      : {
          heard: random.below(2),
          outbound: random.below(2),
          inbound: random.below(2),
          limit: random.pick([0, 68, 500, 1400, 65535]),
        };
    if (random.chance(1)) frame[random.below(6)] ^= 1 << random.below(8);
    if (random.chance(0.5)) put16(frame, 12, random.pick([0x86dd, 0x8100, 0x0806]));
    if (!canRun(frame)) return null;
    this.frames++;
    return this.#twin.check(direction, frame, { ifindex, gsoSize, record });
  }
}

/** Puts the thread where programs can be run. Returns the reason why it cannot, or undefined. */
export function whyNoPrograms() {
  return why({ stay: true });
}

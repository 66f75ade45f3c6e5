/**
 * What the cores are given: mutated vectors, made packets, flows, super-packets, datagrams and noise, under changing configurations.
 * Most are nearly right, so that they get deep.
 */
import { abi } from 'inlay/core';
import { put32 } from './bytes.mjs';
import { addOddDescriptor } from './descriptors.mjs';
import { putError, putOwn, putQuote } from './errors.mjs';
import { Flow, putPacket } from './flow.mjs';
import { GRE_FIELDS, mutateField, mutatePacket, VIRTIO_FIELDS } from './mutate.mjs';
import { putGre, putGreRight, putOuter } from './outer.mjs';
import { GRE, insertOptions, leaveOpen, putRight, putZero, TCP, UDP } from './packets.mjs';
import { container, drawSetup, oddAddress, redrawSetup } from './setup.mjs';
import { INNER, WHOLE } from './vectors.mjs';

/** Bytes kept free before an inner packet, for what is put before it. */
const ROOM = 256;
/** A batch that has got so many bytes gets no more packets. */
const ENOUGH = 100_000;
/** Of an IPv4 packet. */
const LONGEST = 65535;
/** Batches that have a configuration in common, mostly. */
const BATCHES_PER_SETUP = 8;
/** ms; until a path MTU is forgotten, and what is less. */
const JUMPS = [1000, 31_000, 602_000, 602_000, 700_000];
/** No clock of a host, but a number that a core may be told. */
const ODD_TIMES = [
  Number.NaN,
  -1,
  -1e9,
  0.5,
  4e12 - 1,
  4e12,
  1e300,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
];

export class Generator {
  #random;
  #batch;
  #sent;
  #setup = null;
  #flows = Array.from({ length: 4 }, () => new Flow());
  #flow = new Flow();
  /** The VM that the packet at hand is from, or goes to. */
  #peer = 0;
  #now = 0;
  /** GRE's. */
  #sequence = 1;
  #batches = 0;

  /** `sent`: what the core sends of what is generated. */
  constructor(random, batch, sent) {
    this.#random = random;
    this.#batch = batch;
    this.#sent = sent;
  }

  /** Fills the batch. Returns the set-up if it is a new one. */
  next() {
    const random = this.#random;
    const batch = this.#batch;
    const isNew = this.#drawSetup();
    batch.clear();
    batch.direction = random.pick(DIRECTIONS);
    batch.surroundings = random.u32();
    batch.identical = random.chance(6);
    this.#now += random.chance(4) ? random.pick(JUMPS) : random.below(50);
    batch.now = random.chance(0.2) ? random.pick(ODD_TIMES) : this.#now;
    if (random.chance(6)) batch.expire = this.#now - random.below(1000);
    const most = random.chance(80) ? abi.BATCH_SIZE : random.between(1, 4);
    const kind = random.pick(KINDS[batch.direction]);
    this.#drawFlows();
    while (batch.size < most && batch.used < ENOUGH) {
      if (random.chance(0.5)) addOddDescriptor(batch, random, random.pick(this.#setup.peers));
      else this[kind]();
      if (batch.size > 0 && kind === 'longest') break;
    }
    batch.count = random.chance(96)
      ? batch.size
      : (batch.size + random.pick([-1, 1, 200, -2147483648, 2147483647])) | 0;
    if (random.chance(4)) batch.first = random.pick([1, 5, -1, 200, -2147483648, 2147483647]);
    return isNew ? this.#setup : null;
  }

  /** Draws a set-up if it is time. The VMs often stay. */
  #drawSetup() {
    const random = this.#random;
    const isFirst = this.#setup === null;
    if (this.#batches++ % BATCHES_PER_SETUP !== 0 && !random.chance(4)) return false;
    this.#setup = isFirst || random.chance(50) ? drawSetup(random) : redrawSetup(random, this.#setup);
    return true;
  }

  // The kinds of batches: what is added to one.

  /** Anything, each packet for itself. */
  mixed() {
    const random = this.#random;
    if (random.chance(12)) return this.#addAsIs(random.pick(this.#vectors));
    if (random.chance(3)) return this.#addSpliced();
    if (random.chance(3)) return this.noise();
    const at = this.#batch.used + ROOM;
    return this.#finish(at, random.chance(50) ? this.#putVector(at) : this.#putMade(at));
  }

  /** Bytes without sense. */
  noise() {
    const at = this.#batch.used + ROOM;
    const end = at + this.#random.below(this.#random.chance(90) ? 100 : 2000);
    this.#random.fill(this.#batch.data, at, end);
    return this.#add(at, end, 0);
  }

  /** The next packet of one of a few flows. */
  flows() {
    const random = this.#random;
    const flow = random.pick(this.#flows);
    this.#peer = flow.peer;
    const at = this.#batch.used + ROOM;
    const end = this.#putNext(at, flow, this.#sizeOf(flow));
    return this.#finish(at, end, 12);
  }

  /** A super-packet with its virtio header. */
  supers() {
    if (!this.#isFramed()) return this.flows();
    const random = this.#random;
    const flow = this.#drawFlow(random.chance(50) ? this.#flow : this.#flows[0]);
    if (flow.protocol !== UDP) flow.protocol = TCP;
    flow.flags = random.below(256);
    const isHeavy = random.chance(8);
    const size = isHeavy ? random.pick([1, 7, 20]) : random.pick([1, 2, 8, 100, 333, 1000, 1400]);
    const segments = isHeavy ? random.between(60, 130) : random.between(1, 5);
    const payload = Math.min(size * segments - random.below(size), LONGEST - flow.headers);
    return this.#addSuper(flow, payload, size);
  }

  #addSuper(flow, payload, size) {
    const random = this.#random;
    const { data, view } = this.#batch;
    const at = this.#batch.used + ROOM;
    const end = putPacket(data, at, flow, payload, random);
    if (random.chance(85)) leaveOpen(data, at, end);
    const virtio = at - abi.VIRTIO_SIZE;
    data[virtio + abi.VIRTIO_FLAGS] = random.chance(95) ? 1 : random.below(4);
    data[virtio + abi.VIRTIO_GSO_TYPE] = (flow.protocol === TCP ? 1 : 5) + (random.chance(5) ? 0x80 : 0);
    view.setUint16(virtio + abi.VIRTIO_HEADER_LENGTH, flow.headers, true);
    view.setUint16(virtio + abi.VIRTIO_GSO_SIZE, size, true);
    view.setUint16(virtio + abi.VIRTIO_CHECKSUM_START, 20 + flow.ipOptions, true);
    view.setUint16(virtio + abi.VIRTIO_CHECKSUM_OFFSET, flow.protocol === TCP ? 16 : 6, true);
    if (random.chance(8)) mutateField(data, virtio, at, VIRTIO_FIELDS, random, end - at, true);
    if (random.chance(8)) this.#mutate(at, end);
    return this.#add(virtio, end + (random.chance(5) ? 3 : 0), 0);
  }

  /** Datagrams of GRE-in-UDP, one after the other as UDP_GRO delivers them. */
  datagrams() {
    const random = this.#random;
    const { config, local } = this.#setup;
    const { data, used } = this.#batch;
    const flow = random.pick(this.#flows);
    this.#peer = flow.peer;
    const many = random.chance(2);
    const count = many ? random.between(100, 1100) : random.between(1, random.pick([2, 10, 40]));
    const size = many ? 1 : flow.size;
    let start = used + ROOM;
    const first = start;
    let segment = 0;
    for (let n = 0; n < count && start - first < LONGEST - 2000; n++) {
      const isLast = n === count - 1;
      const at = start + (segment === 0 ? 16 : segment - flow.headers - size);
      const end = this.#putNext(at, flow, isLast && size > 1 && random.chance(40) ? random.between(1, size) : size);
      const isMutated = random.chance(6);
      if (isMutated) this.#mutate(at, end);
      if (segment === 0) {
        // The first one's GRE header decides how long all are; it is made right before the packet, and moved.
        const gre = putGre(data, at, end, random, config, this.#nextNumber());
        data.copyWithin(start, gre, end);
        segment = end - gre;
        start += segment;
      } else {
        data.copyWithin(start, first, first + at - start);
        if (config.sequence && (data[start] & 0x10) !== 0) put32(data, at - 4, this.#nextNumber());
        putGreRight(data, start, end);
        if (random.chance(2)) mutateField(data, start, at, GRE_FIELDS, random, end - start);
        start = end;
      }
    }
    const peer = random.chance(96) ? flow.peer : random.pick([0, local, oddAddress(random, this.#setup)]);
    const told = random.chance(96) ? segment : random.pick([1, 2, segment + 1, 0x7fffffff, 0x80000000, 0xffffffff]);
    // Bits beyond the low 8 say nothing.
    const tos = this.#outerService(first + segment) + (random.chance(10) ? 0xabcd00 : 0);
    this.#add(first, start, told, peer, tos);
  }

  /** As long as IPv4 allows, with outer headers or without; or a byte less or more. */
  longest() {
    const random = this.#random;
    const flow = this.#drawFlow(this.#flow);
    const total = Math.min(LONGEST - random.pick([0, 24, 28, 32, 36, 60]) + random.between(-1, 1), LONGEST);
    const payload = total - flow.headers;
    if (this.#isFramed() && flow.protocol === TCP) return this.#addSuper(flow, payload, random.pick([65440, 1400]));
    const at = this.#batch.used + ROOM;
    return this.#finish(at, putPacket(this.#batch.data, at, flow, payload, random), 5);
  }

  /** Packets of many containers to where none is. */
  strays() {
    const random = this.#random;
    const { local } = this.#setup;
    const flow = this.#drawFlow(this.#flow);
    flow.source = container(random, this.#setup, local, 40);
    flow.destination = oddAddress(random, this.#setup);
    const at = this.#batch.used + ROOM;
    return this.#finish(at, putPacket(this.#batch.data, at, flow, random.pick([0, 1, 40, 520, 600]), random), 5);
  }

  /** An ICMP message from the underlay. */
  errors() {
    const random = this.#random;
    const { data, used } = this.#batch;
    const at = used + ROOM;
    let quote = at;
    let end = 0;
    if (this.#sent.size > 0 && random.chance(85)) {
      end = putQuote(data, at, random, this.#sent.pick(random));
    } else {
      const whole = this.#putMade(at);
      quote = putOwn(data, at, whole, random, this.#setup, this.#peer);
      end = putQuote(data, quote, random, data.subarray(quote, Math.min(whole, quote + 700)));
    }
    return this.#add(putError(data, quote, end, random, this.#setup), end, 0);
  }

  // Packets.

  #drawFlow(flow) {
    const random = this.#random;
    const { local, peers } = this.#setup;
    flow.peer = this.#peer = random.pick(peers);
    const [source, destination] = this.#batch.direction === 'inbound' ? [flow.peer, local] : [local, flow.peer];
    return flow.draw(random, container(random, this.#setup, source), container(random, this.#setup, destination));
  }

  #drawFlows() {
    for (const flow of this.#flows) this.#drawFlow(flow);
  }

  #sizeOf({ size }) {
    return this.#random.chance(94) ? size : this.#random.pick([0, 1, size - 1, size + 1]);
  }

  /** GRE's next sequence number, now and then another. */
  #nextNumber() {
    const random = this.#random;
    if (random.chance(5)) {
      const odd = random.chance(90) ? this.#sequence + random.pick([-1, -2, -100, 1, 1000]) : random.u32();
      this.#sequence = random.chance(30) ? odd >>> 0 : this.#sequence;
      return odd;
    }
    if (random.chance(1)) this.#sequence = random.pick([0, 0, 0xfffffffe]);
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence - 1;
  }

  /** The outer type of service around a packet: most often that of the packet, or none. */
  #outerService(at) {
    const random = this.#random;
    return random.chance(70) ? 0 : random.chance(60) ? this.#batch.data[at + 1] : random.below(256);
  }

  /** The flow's next packet, now and then one that has another number, or is pushed. */
  #putNext(at, flow, size) {
    const random = this.#random;
    const { flags } = flow;
    if (random.chance(4)) flow.sequence = (flow.sequence + random.pick([1, -1, size])) >>> 0;
    if (random.chance(4)) flow.id = (flow.id + random.pick([1, -1, 2])) & 0xffff;
    if (random.chance(4)) flow.flags = 0x18;
    const end = putPacket(this.#batch.data, at, flow, size, random);
    flow.flags = flags;
    return end;
  }

  #putMade(at) {
    const flow = this.#drawFlow(this.#flow);
    return putPacket(this.#batch.data, at, flow, this.#sizeOf(flow), this.#random);
  }

  /** A vector's inner packet, mostly with addresses that fit. */
  #putVector(at) {
    const random = this.#random;
    const { data } = this.#batch;
    const packet = random.pick(INNER);
    data.set(packet, at);
    const end = at + packet.length;
    const flow = this.#drawFlow(this.#flow);
    if (random.chance(90)) {
      put32(data, at + 12, flow.source);
      put32(data, at + 16, flow.destination);
      putRight(data, at, end);
    }
    return end;
  }

  /** The beginning of one vector, and the end of another. */
  #addSpliced() {
    const random = this.#random;
    const [head, tail] = [random.pick(this.#vectors), random.pick(this.#vectors)];
    const at = this.#batch.used + ROOM;
    const middle = at + random.below(head.length + 1);
    this.#batch.data.set(head, at);
    const from = random.below(tail.length + 1);
    this.#batch.data.set(tail.subarray(from), middle);
    const end = middle + tail.length - from;
    if (random.chance(70)) putRight(this.#batch.data, at, end);
    this.#frame(at, end);
  }

  #addAsIs(packet) {
    const at = this.#batch.used + ROOM;
    this.#batch.data.set(packet, at);
    if (this.#random.chance(50)) this.#mutate(at, at + packet.length);
    this.#frame(at, at + packet.length);
  }

  /** A field or an address changed, and mostly all put right. */
  #mutate(at, end) {
    const random = this.#random;
    const { data } = this.#batch;
    if (end - at >= 20 && random.chance(2)) {
      data[at + 9] = GRE;
    } else if (end - at >= 20 && random.chance(25)) {
      put32(data, at + (random.chance(50) ? 12 : 16), oddAddress(random, this.#setup));
    } else {
      mutatePacket(data, at, end, random);
    }
    if (random.chance(80)) putRight(data, at, end);
  }

  /** An inner packet, mutated in `percent` of 100 cases, with what goes before it. */
  #finish(at, packetEnd, percent = 35) {
    const random = this.#random;
    const { data } = this.#batch;
    let end = packetEnd;
    if (random.chance(percent)) {
      if (random.chance(8)) {
        end = insertOptions(data, at, end, random);
        putRight(data, at, end);
      }
      if (random.chance(6)) putZero(data, at, end, random);
      if (random.chance(15)) leaveOpen(data, at, end);
      if (random.chance(80)) this.#mutate(at, end);
      if (random.chance(5)) data[at + random.below(end - at)] ^= 1 << random.below(8);
      if (random.chance(5)) end += random.below(8);
    }
    if (this.#batch.direction === 'outbound') return this.#frame(at, end);
    const { config, local } = this.#setup;
    const tos = this.#outerService(at);
    const gre = putGre(data, at, end, random, config, this.#nextNumber());
    const source = random.chance(97) ? this.#peer : oddAddress(random, this.#setup);
    return this.#add(putOuter(data, gre, end, random, { source, destination: local, tos }), end, 0);
  }

  /** Puts a virtio header before the packet if there has to be one. */
  #frame(at, end) {
    if (!this.#isFramed()) return this.#add(at, end, 0);
    const random = this.#random;
    const start = at - abi.VIRTIO_SIZE;
    const { data, view } = this.#batch;
    data.fill(0, start, at);
    if (random.chance(20)) {
      // NEEDS_CSUM, with the checksum of TCP or of UDP.
      data[start + abi.VIRTIO_FLAGS] = 1;
      view.setUint16(start + abi.VIRTIO_CHECKSUM_START, 20, true);
      view.setUint16(start + abi.VIRTIO_CHECKSUM_OFFSET, random.pick([16, 6]), true);
    }
    if (random.chance(4)) mutateField(data, start, at, VIRTIO_FIELDS, random, end - at, true);
    return this.#add(start, end, 0);
  }

  get #vectors() {
    return WHOLE[this.#batch.direction] ?? WHOLE.inbound;
  }

  #isFramed() {
    return this.#batch.direction === 'outbound' && (this.#setup.devices.offloads & abi.OFFLOAD_VIRTIO) !== 0;
  }

  /** Adds the packet, now and then cut off at any byte. */
  #add(start, end, segment, peer = 0, tos = 0) {
    const random = this.#random;
    const whole = end - start;
    let length = whole;
    if (random.chance(3)) {
      const few = random.below(Math.min(whole, 120) + 1);
      length = random.chance(50) ? few : whole - few;
    }
    this.#batch.add(start, length, whole - length, segment, peer, tos);
  }
}

const DIRECTIONS = [...Array(9).fill('outbound'), ...Array(9).fill('inbound'), ...Array(3).fill('icmp')];

/** By direction; one that stands here more often comes more often. */
const KINDS = {
  outbound: [
    ...Array(37).fill('mixed'),
    ...Array(25).fill('flows'),
    ...Array(28).fill('supers'),
    ...Array(5).fill('strays'),
    'noise',
    'longest',
    'longest',
    'longest',
  ],
  inbound: [
    ...Array(40).fill('mixed'),
    ...Array(30).fill('flows'),
    ...Array(25).fill('datagrams'),
    'noise',
    'longest',
    'longest',
  ],
  icmp: [...Array(30).fill('errors'), 'mixed', 'noise'],
};

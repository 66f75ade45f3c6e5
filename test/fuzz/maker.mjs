/** Makes packets at the end of a batch, right or a little wrong, and adds them with what goes before them. */
import { abi } from 'inlay/core';
import { put32 } from './bytes.mjs';
import { Flow, putPacket } from './flow.mjs';
import { mutateField, mutatePacket, VIRTIO_FIELDS } from './mutate.mjs';
import { putGre, putOuter } from './outer.mjs';
import { GRE, insertOptions, leaveOpen, putRight, putZero } from './packets.mjs';
import { anyPeer, container, oddAddress } from './setup.mjs';
import { INNER, WHOLE } from './vectors.mjs';

/** Bytes kept free before an inner packet, for what is put before it. */
const ROOM = 256;

export class Maker {
  setup = null;
  /** Those that go on through a batch, and one that does not. */
  flows = Array.from({ length: 4 }, () => new Flow());
  flow = new Flow();
  /** The VM that the packet at hand is from, or goes to. */
  peer = 0;
  /** GRE's next number. */
  #sequence = 1;

  /** `sent`: what the core sends of what is made. */
  constructor(random, batch, sent) {
    this.random = random;
    this.batch = batch;
    this.sent = sent;
  }

  /** Where the next packet goes. */
  get at() {
    return this.batch.used + ROOM;
  }

  /** Whether packets have virtio headers. */
  get isFramed() {
    return this.batch.direction === 'outbound' && (this.setup.devices.offloads & abi.OFFLOAD_VIRTIO) !== 0;
  }

  /** Whole packets of the batch's direction; of what a raw socket for ICMP might get, there are none of its own. */
  get vectors() {
    return WHOLE[this.batch.direction] ?? WHOLE.inbound;
  }

  // Flows.

  drawFlows() {
    for (const flow of this.flows) this.drawFlow(flow);
  }

  drawFlow(flow) {
    const { random, setup } = this;
    flow.peer = this.peer = anyPeer(random, setup);
    const isInbound = this.batch.direction === 'inbound';
    const [source, destination] = isInbound ? [flow.peer, setup.local] : [setup.local, flow.peer];
    return flow.draw(random, container(random, setup, source), container(random, setup, destination));
  }

  sizeOf({ size }) {
    return this.random.chance(94) ? size : this.random.pick([0, 1, size - 1, size + 1]);
  }

  /** GRE's next sequence number, now and then another. */
  nextNumber() {
    const { random } = this;
    if (random.chance(4)) {
      const odd = random.chance(90) ? this.#sequence + random.pick([-1, -2, -100, 1, 1000]) : random.u32();
      if (random.chance(20)) this.#sequence = odd >>> 0;
      return odd;
    }
    if (random.chance(2)) this.#sequence = random.pick([0, 0, 0xfffffffe]);
    const number = this.#sequence;
    this.#sequence = (number + 1) >>> 0;
    return number;
  }

  /** The outer type of service around a packet with `tos`: most often that, or none. */
  outerService(tos) {
    const { random } = this;
    return random.chance(70) ? 0 : random.chance(60) ? tos : random.below(256);
  }

  /** What the host knows of merging: most often nothing, or that there was none; or sizes of segments that make sense, or not. */
  drawMerged() {
    const { random } = this;
    if (this.batch.direction !== 'inbound') return 0;
    if (random.chance(60)) return random.chance(50) ? 0 : abi.NOT_MERGED;
    return random.chance(90) ? random.pick([1, 2, 7, 8, 40, 60, 99, 100, 333, 1000, 1400]) : random.u32();
  }

  // Packets are put at a place; the answer is where they end.

  /** The flow's next packet, now and then one that has another number, or is pushed. */
  putNext(at, flow, size) {
    const { random } = this;
    const { flags } = flow;
    if (random.chance(4)) flow.sequence = (flow.sequence + random.pick([1, -1, size])) >>> 0;
    if (random.chance(4)) flow.id = (flow.id + random.pick([1, -1, 2])) & 0xffff;
    if (random.chance(4)) flow.flags = 0x18;
    const end = putPacket(this.batch.data, at, flow, size, random);
    flow.flags = flags;
    return end;
  }

  putMade(at) {
    const flow = this.drawFlow(this.flow);
    return putPacket(this.batch.data, at, flow, this.sizeOf(flow), this.random);
  }

  /** A vector's inner packet, mostly with addresses that fit. */
  putVector(at) {
    const { random } = this;
    const { data } = this.batch;
    const packet = random.pick(INNER);
    data.set(packet, at);
    const end = at + packet.length;
    const flow = this.drawFlow(this.flow);
    if (random.chance(90)) {
      put32(data, at + 12, flow.source);
      put32(data, at + 16, flow.destination);
      putRight(data, at, end);
    }
    return end;
  }

  /** A field or an address changed, and mostly all put right. */
  mutate(at, end) {
    const { random } = this;
    const { data } = this.batch;
    if (end - at >= 20 && random.chance(2)) {
      data[at + 9] = GRE;
    } else if (end - at >= 20 && random.chance(25)) {
      put32(data, at + (random.chance(50) ? 12 : 16), oddAddress(random, this.setup));
    } else {
      mutatePacket(data, at, end, random);
    }
    if (random.chance(80)) putRight(data, at, end);
  }

  // Adding them.

  /** An inner packet, mutated in `percent` of 100 cases, with what goes before it. */
  finish(at, packetEnd, percent = 35) {
    const { random } = this;
    const { data } = this.batch;
    let end = packetEnd;
    if (random.chance(percent)) {
      if (random.chance(8)) {
        end = insertOptions(data, at, end, random);
        putRight(data, at, end);
      }
      if (random.chance(6)) putZero(data, at, end, random);
      if (random.chance(15)) leaveOpen(data, at, end);
      if (random.chance(80)) this.mutate(at, end);
      if (random.chance(5)) data[at + random.below(end - at)] ^= 1 << random.below(8);
      if (random.chance(5)) end += random.below(8);
    }
    if (this.batch.direction === 'outbound') return this.frame(at, end);
    const { config, local } = this.setup;
    const tos = this.outerService(data[at + 1]);
    const gre = putGre(data, at, end, random, config, this.nextNumber());
    const source = random.chance(97) ? this.peer : oddAddress(random, this.setup);
    return this.add(putOuter(data, gre, end, random, { source, destination: local, tos }), end);
  }

  /** A packet with a virtio header before it, if there has to be one. */
  frame(at, end) {
    if (!this.isFramed) return this.add(at, end);
    const { random } = this;
    const start = at - abi.VIRTIO_SIZE;
    const { data, view } = this.batch;
    data.fill(0, start, at);
    if (random.chance(20)) {
      // NEEDS_CSUM, with the checksum of TCP or of UDP.
      data[start + abi.VIRTIO_FLAGS] = 1;
      view.setUint16(start + abi.VIRTIO_CHECKSUM_START, 20, true);
      view.setUint16(start + abi.VIRTIO_CHECKSUM_OFFSET, random.pick([16, 6]), true);
    }
    if (random.chance(4)) mutateField(data, start, at, VIRTIO_FIELDS, random, end - at, true);
    return this.add(start, end);
  }

  /** What is there as it is, now and then cut off at any byte. */
  add(start, end, segment = 0, peer = 0, tos = 0, merged = this.drawMerged()) {
    const { random } = this;
    const whole = end - start;
    let length = whole;
    if (random.chance(3)) {
      const few = random.below(Math.min(whole, 120) + 1);
      length = random.chance(50) ? few : whole - few;
    }
    this.batch.add(start, length, whole - length, segment, peer, tos, merged);
  }
}

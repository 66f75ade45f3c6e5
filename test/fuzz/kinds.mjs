/** The kinds of batches, and what is added to one: of each direction, those that stand here more often come more often. */
import { abi } from 'inlay/core';
import { put32 } from './bytes.mjs';
import { putError, putOwn, putQuote } from './errors.mjs';
import { putPacket } from './flow.mjs';
import { GRE_FIELDS, mutateField, VIRTIO_FIELDS } from './mutate.mjs';
import { putGre, putGreRight, putOuter } from './outer.mjs';
import { leaveOpen, putRight, TCP, UDP } from './packets.mjs';
import { container, oddAddress } from './setup.mjs';

/** Of an IPv4 packet. */
const LONGEST = 65535;
/** Of what an ICMP message quotes, and more. */
const QUOTED = 700;

const times = (n, kind) => Array(n).fill(kind);

export const KINDS = {
  outbound: [
    ...times(37, mixed),
    ...times(25, flows),
    ...times(28, supers),
    ...times(5, strays),
    ...times(3, longest),
    noise,
  ],
  inbound: [
    ...times(40, mixed),
    ...times(30, flows),
    ...times(25, datagrams),
    ...times(12, merged),
    ...times(2, longest),
    noise,
  ],
  icmp: [...times(30, errors), mixed, noise],
};

/** Anything, each packet for itself. */
function mixed(maker) {
  const { random, at } = maker;
  if (random.chance(12)) return asIs(maker);
  if (random.chance(3)) return spliced(maker);
  if (random.chance(3)) return noise(maker);
  return maker.finish(at, random.chance(50) ? maker.putVector(at) : maker.putMade(at));
}

/** A vector, mutated or not. */
function asIs(maker) {
  const { random, batch, at } = maker;
  const packet = random.pick(maker.vectors);
  const end = at + packet.length;
  batch.data.set(packet, at);
  if (random.chance(50)) maker.mutate(at, end);
  maker.frame(at, end);
}

/** The beginning of one vector, and the end of another. */
function spliced(maker) {
  const { random, batch, at } = maker;
  const [head, tail] = [random.pick(maker.vectors), random.pick(maker.vectors)];
  const middle = at + random.below(head.length + 1);
  batch.data.set(head, at);
  const from = random.below(tail.length + 1);
  batch.data.set(tail.subarray(from), middle);
  const end = middle + tail.length - from;
  if (random.chance(70)) putRight(batch.data, at, end);
  maker.frame(at, end);
}

/** Bytes without sense. */
function noise(maker) {
  const { random, batch, at } = maker;
  const end = at + random.below(random.chance(90) ? 100 : 2000);
  random.fill(batch.data, at, end);
  maker.add(at, end);
}

/** The next packet of one of a few flows. */
function flows(maker) {
  const { random, at } = maker;
  const flow = random.pick(maker.flows);
  maker.peer = flow.peer;
  maker.finish(at, maker.putNext(at, flow, maker.sizeOf(flow)), 12);
}

/** A super-packet with its virtio header. */
function supers(maker) {
  if (!maker.isFramed) return flows(maker);
  const { random } = maker;
  const flow = maker.drawFlow(random.chance(50) ? maker.flow : maker.flows[0]);
  if (flow.protocol !== UDP) flow.protocol = TCP;
  flow.flags = random.below(256);
  const isHeavy = random.chance(8);
  const least = flow.protocol === TCP ? abi.LEAST_TCP_SEGMENT : abi.LEAST_UDP_SEGMENT;
  const size = isHeavy ? random.pick([least, 165, 500]) : random.pick([1, 8, least - 1, least, 200, 333, 1000, 1400]);
  const segments = isHeavy ? random.between(60, 520) : random.between(1, 5);
  const payload = Math.min(size * segments - random.below(size), LONGEST - flow.headers);
  return addSuper(maker, flow, payload, size);
}

function addSuper(maker, flow, payload, size) {
  const { random, at } = maker;
  const { data, view } = maker.batch;
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
  if (random.chance(8)) maker.mutate(at, end);
  maker.add(virtio, end + (random.chance(5) ? 3 : 0));
}

/** Packets of a flow that the kernel has merged, and what the host knows of that. */
function merged(maker) {
  const { random, setup, at } = maker;
  const { data } = maker.batch;
  const flow = random.pick(maker.flows);
  maker.peer = flow.peer;
  const size = random.pick([1, 8, 100, 512, 700, 1000, 1400]);
  const payload = Math.min(
    size * random.between(1, random.pick([3, 64])) - random.below(size),
    LONGEST - 100 - flow.headers,
  );
  const end = putPacket(data, at, flow, Math.max(payload, 0), random);
  // A list keeps the checksum of its first packet: a wrong one.
  if (random.chance(75)) leaveOpen(data, at, end);
  else if (random.chance(60)) data[at + flow.headers] ^= 1;
  if (random.chance(10)) maker.mutate(at, end);
  const gre = putGre(data, at, end, random, setup.config, maker.nextNumber());
  const outer = { source: flow.peer, destination: setup.local, tos: maker.outerService(data[at + 1]) };
  maker.add(putOuter(data, gre, end, random, outer), end, 0, 0, 0, random.chance(60) ? size : maker.drawMerged());
}

/** Datagrams of GRE-in-UDP, one after the other as UDP_GRO delivers them. */
function datagrams(maker) {
  const { random, setup } = maker;
  const { data } = maker.batch;
  const flow = random.pick(maker.flows);
  maker.peer = flow.peer;
  const many = random.chance(2);
  const count = many ? random.between(100, 1100) : random.between(1, random.pick([2, 10, 40]));
  const size = many ? 1 : flow.size;
  const first = maker.at;
  let start = first;
  let segment = 0;
  for (let n = 0; n < count && start - first < LONGEST - 2000; n++) {
    const isLast = n === count - 1;
    const at = start + (segment === 0 ? 16 : segment - flow.headers - size);
    const end = maker.putNext(at, flow, isLast && size > 1 && random.chance(40) ? random.between(1, size) : size);
    if (random.chance(6)) maker.mutate(at, end);
    if (segment === 0) {
      // The first one's GRE header decides how long all are; it is made right before the packet, and moved.
      const gre = putGre(data, at, end, random, setup.config, maker.nextNumber());
      data.copyWithin(start, gre, end);
      segment = end - gre;
      start += segment;
    } else {
      data.copyWithin(start, first, first + at - start);
      if (setup.config.greSequence && (data[start] & 0x10) !== 0) put32(data, at - 4, maker.nextNumber());
      putGreRight(data, start, end);
      if (random.chance(2)) mutateField(data, start, at, GRE_FIELDS, random, end - start);
      start = end;
    }
  }
  const peer = random.chance(96) ? flow.peer : random.pick([0, setup.local, oddAddress(random, setup)]);
  const told = random.chance(96) ? segment : random.pick([1, 2, segment + 1, 0x7fffffff, 0x80000000, 0xffffffff]);
  // Bits beyond the low 8 say nothing.
  const tos = maker.outerService(flow.tos) + (random.chance(10) ? 0xabcd00 : 0);
  maker.add(first, start, told, peer, tos);
}

/** One packet as long as IPv4 allows, with outer headers or without; or a byte less or more. */
function longest(maker) {
  if (maker.batch.size > 0) return;
  const { random, at } = maker;
  const flow = maker.drawFlow(maker.flow);
  const total = Math.min(LONGEST - random.pick([0, 24, 28, 32, 36, 60]) + random.between(-1, 1), LONGEST);
  const payload = total - flow.headers;
  if (maker.isFramed && flow.protocol === TCP) return addSuper(maker, flow, payload, random.pick([65440, 1400]));
  return maker.finish(at, putPacket(maker.batch.data, at, flow, payload, random), 5);
}

/** Packets of many containers to where none is. */
function strays(maker) {
  const { random, setup, at } = maker;
  const flow = maker.drawFlow(maker.flow);
  flow.source = container(random, setup, setup.local, 40);
  flow.destination = oddAddress(random, setup);
  maker.finish(at, putPacket(maker.batch.data, at, flow, random.pick([0, 1, 40, 520, 600]), random), 5);
}

/** An ICMP message about what the core has sent of late, or could have. */
function errors(maker) {
  const { random, setup, sent, at } = maker;
  const { data } = maker.batch;
  if (sent.size > 0 && random.chance(85)) {
    const end = putQuote(data, at, random, sent.pick(random));
    return maker.add(putError(data, at, end, random, setup), end);
  }
  const whole = maker.putMade(at);
  const quote = putOwn(data, at, whole, random, setup, maker.peer);
  const end = putQuote(data, quote, random, data.subarray(quote, Math.min(whole, quote + QUOTED)));
  return maker.add(putError(data, quote, end, random, setup), end);
}

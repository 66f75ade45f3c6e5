/** How long a core takes for packets that it forwards: the least of many short rounds, so that what else the machine does shows least. */
import { abi, ipv4, mapping } from 'inlay/core';

/** @typedef {import('inlay/core').PacketCore} PacketCore */

/** ms of calls before the first round, so that engines have compiled the core for speed. */
const WARM_UP = 1000;
const ROUNDS = 50;
/** ms that a round takes at least. */
const ROUND = 20;
/** Between two looks at the clock. */
const CALLS = 16;
const [OUTBOUND, INBOUND] = /** @type {const} */ (['outbound', 'inbound']);

const [HERE, THERE] = [ipv4('192.168.16.32'), ipv4('192.168.16.33')];
const [CONTAINER, OTHER] = [ipv4('10.16.32.91'), ipv4('10.16.33.7')];
const [TCP, UDP, GRE] = [6, 17, 47];

/** Bytes of what a packet has in all, of the headers of IPv4 and TCP, and of outer IPv4 and GRE. */
const [SMALL, HEADERS, OUTER] = [64, 40, 24];
/** A super-packet: so many segments of so many bytes of payload, so many super-packets a call. */
const [SEGMENTS, SEGMENT, SUPERS] = [45, 1424, 8];

/**
 * One line a case: its name, and ns per packet.
 * @param {() => Promise<PacketCore>} makeCore
 */
export async function bench(makeCore) {
  const cases = [encapsulate64(await makeCore()), decapsulate64(await makeCore()), cut64k(await makeCore())];
  return cases.map((it) => `${it.name} ${measure(it).toFixed(1)}\n`).join('');
}

/** @param {PacketCore} core */
function encapsulate64(core) {
  configure(core, 0);
  for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, ipv4Packet(CONTAINER, OTHER, UDP, SMALL));
  return { name: 'encapsulate-64', core, direction: OUTBOUND, packets: abi.BATCH_SIZE };
}

/** @param {PacketCore} core */
function decapsulate64(core) {
  configure(core, 0);
  const outer = ipv4Packet(THERE, HERE, GRE, OUTER + SMALL);
  outer.set([0, 0, 8, 0], OUTER - 4);
  outer.set(ipv4Packet(OTHER, CONTAINER, UDP, SMALL), OUTER);
  for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, outer);
  return { name: 'decapsulate-64', core, direction: INBOUND, packets: abi.BATCH_SIZE };
}

/** @param {PacketCore} core */
function cut64k(core) {
  configure(core, abi.OFFLOAD_VIRTIO);
  const length = HEADERS + SEGMENTS * SEGMENT;
  const frame = new Uint8Array(abi.VIRTIO_SIZE + length);
  const virtio = new DataView(frame.buffer);
  virtio.setUint8(abi.VIRTIO_FLAGS, 1); // VIRTIO_NET_HDR_F_NEEDS_CSUM
  virtio.setUint8(abi.VIRTIO_GSO_TYPE, 1); // VIRTIO_NET_HDR_GSO_TCPV4
  virtio.setUint16(abi.VIRTIO_HEADER_LENGTH, HEADERS, true);
  virtio.setUint16(abi.VIRTIO_GSO_SIZE, SEGMENT, true);
  virtio.setUint16(abi.VIRTIO_CHECKSUM_START, 20, true);
  virtio.setUint16(abi.VIRTIO_CHECKSUM_OFFSET, 16, true);
  frame.set(ipv4Packet(CONTAINER, OTHER, TCP, length), abi.VIRTIO_SIZE);
  frame[abi.VIRTIO_SIZE + 20 + 12] = 0x50; // data offset: 5 words
  for (let i = 0; i < SUPERS; i++) {
    // The packet where packets lie, its virtio header before it.
    const address = core.slot(i) - abi.VIRTIO_SIZE;
    core.bytes.set(frame, address);
    core.describe(i, frame.length, address);
  }
  return { name: 'cut-64k', core, direction: OUTBOUND, packets: SUPERS };
}

/**
 * @param {PacketCore} core
 * @param {number} offloads
 */
function configure(core, offloads) {
  core.attach({ offloads });
  core.configure({ local: HERE, mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')] });
}

/**
 * Warms up, then the least ns per packet of all rounds. Throws if the core does not forward all that it is given.
 * @param {{ core: PacketCore, direction: 'outbound' | 'inbound', packets: number }} benchCase
 */
function measure({ core, direction, packets }) {
  const call = direction === OUTBOUND ? core.encapsulate.bind(core) : core.decapsulate.bind(core);
  /** @param {number} ms that it takes at least; returns how many ms a call takes */
  const round = (ms) => {
    const start = nextTick();
    let calls = 0;
    let time = 0;
    // Looking at the clock is slow in some hosts.
    for (; time < ms; time = performance.now() - start) {
      for (let i = 0; i < CALLS; i++)
        if (call(0, packets, 1) !== packets) throw new Error('a call had no room for all packets');
      calls += CALLS;
    }
    return time / calls;
  };
  round(WARM_UP);
  const least = Math.min(...Array.from({ length: ROUNDS }, () => round(ROUND)));
  if (core.dropCount(direction) > 0) throw new Error('packets were dropped');
  return (least * 1e6) / packets;
}

/** The time when the clock has just gone on: browsers make it so coarse (1 ms) that a round could look shorter than it was. */
function nextTick() {
  const before = performance.now();
  let now = before;
  while (now === before) now = performance.now();
  return now;
}

/**
 * An IPv4 packet without options and with zeros behind its header.
 * @param {number} source
 * @param {number} destination
 * @param {number} protocol
 * @param {number} length bytes in all
 */
function ipv4Packet(source, destination, protocol, length) {
  const packet = new Uint8Array(length);
  const view = new DataView(packet.buffer);
  view.setUint16(0, 0x4500);
  view.setUint16(2, length);
  view.setUint16(8, (64 << 8) | protocol);
  view.setUint32(12, source);
  view.setUint32(16, destination);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += view.getUint16(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(10, ~sum);
  return packet;
}

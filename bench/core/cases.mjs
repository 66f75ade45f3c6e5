/**
 * What is measured. If `direction` is 'outbound', a core that only encapsulates can do it. `prepare` makes a core ready and returns how to run it:
 * - `run` makes one call of the core that handles `packets` packets (as they are on the wire), in `direction`, into `messages` messages;
 * - `refresh`, if there is one, first makes good what `run` destroys or moves; its time is measured too, and subtracted;
 * - `check`, if there is one, throws unless the core is as it should be after all runs.
 * The time of a run is divided by each number in `per`, for a row of its own.
 */
import { abi } from 'inlay/core';
import { HERE, MAPPINGS, TCP_HEADERS, THERE, tcpSuperPacket, udpPacket, withGreChecksum } from './packets.mjs';
import { tunnelCase } from './tunnels.mjs';

const BATCH = abi.BATCH_SIZE;
/** Short calls are measured so many at a time, or the loop around them would count for more than they do. */
const CALLS = 1000;
const SIZES = [64, 576, 1476];
const GRE = 4; // bytes of a GRE header without options

/** What leaves the most of an MTU of 1500, and how many segments make a super-packet of at most 65,535 bytes. */
const FORMATS = [
  { encapsulation: 'gre', segment: 1424, segments: 45 },
  { encapsulation: 'gre-udp', segment: 1416, segments: 46 },
];
/** Super-packets that a call cuts. */
const SUPER_PACKETS = 8;

function setUp(core, local, encapsulation = 'gre', offloads = 0) {
  core.configure({ local, encapsulation, mappings: MAPPINGS });
  core.attach({ offloads });
}

/** The messages of the last call, copied. */
function messagesOf(core) {
  return Array.from({ length: core.messages.count() }, (_, i) => ({
    bytes: core.messages.bytes(i),
    segment: core.messages.segment(i),
  }));
}

function vmOf() {
  const addresses = Uint32Array.from({ length: CALLS }, (_, i) => 0x0a000000 + i * 0x41b3);
  return {
    name: 'vmOf, a call',
    per: { '': CALLS },
    prepare(core) {
      setUp(core, HERE);
      const run = () => {
        let all = 0;
        for (let i = 0; i < CALLS; i++) all |= core.vmOf(addresses[i]);
        return all;
      };
      if (run() === 0) throw new Error('no address was mapped');
      return { run };
    },
  };
}

const emptyCall = {
  name: 'encapsulate 0 packets, a call',
  per: { '': CALLS },
  prepare(core) {
    setUp(core, HERE);
    const run = () => {
      let handled = 0;
      for (let i = 0; i < CALLS; i++) handled += core.encapsulate(0, 0, 1);
      return handled;
    };
    return { run };
  },
};

function encapsulate(size) {
  return {
    name: `encapsulate ${size} B`,
    direction: 'outbound',
    per: { '': BATCH },
    prepare(core) {
      setUp(core, HERE);
      for (let i = 0; i < BATCH; i++) core.put(i, udpPacket(size));
      const run = () => core.encapsulate(0, BATCH, 1);
      return { direction: 'outbound', packets: BATCH, messages: BATCH, run };
    },
  };
}

function decapsulate(size, change = (packet) => packet, suffix = '') {
  return {
    name: `decapsulate ${size} B${suffix}`,
    per: { '': BATCH },
    prepare(core) {
      encapsulate(size).prepare(core).run();
      const packets = messagesOf(core).map(({ bytes }) => change(Buffer.from(bytes)));
      setUp(core, THERE);
      for (const [i, packet] of packets.entries()) core.put(i, packet);
      const run = () => core.decapsulate(0, BATCH, 1);
      return { direction: 'inbound', packets: BATCH, messages: BATCH, run };
    },
  };
}

function encapsulateRun(size) {
  return {
    name: `encapsulate ${size} B, gre-udp runs`,
    direction: 'outbound',
    per: { '': BATCH },
    prepare(core) {
      setUp(core, HERE, 'gre-udp', abi.OFFLOAD_UDP_SEGMENT);
      for (let i = 0; i < BATCH; i++) core.put(i, udpPacket(size));
      const messages = BATCH / abi.PACKETS_PER_MESSAGE;
      return { direction: 'outbound', packets: BATCH, messages, run: () => core.encapsulate(0, BATCH, 1) };
    },
  };
}

function decapsulateRun(size) {
  return {
    name: `decapsulate ${size} B, gre-udp runs`,
    per: { '': BATCH },
    prepare(core) {
      encapsulateRun(size).prepare(core).run();
      const runs = messagesOf(core);
      setUp(core, THERE, 'gre-udp');
      putDatagrams(core, runs);
      const run = () => core.decapsulate(0, runs.length, 1);
      return { direction: 'inbound', packets: BATCH, messages: BATCH, run };
    },
  };
}

/** Puts datagrams where UDP_GRO would, as they come from the VM `HERE`. */
function putDatagrams(core, runs) {
  for (const [i, { bytes, segment }] of runs.entries()) {
    core.bytes.set(bytes, core.slot(i));
    core.describeDatagrams(i, bytes.length, segment, HERE);
  }
}

function cut({ encapsulation, segment, segments }, superPackets = SUPER_PACKETS) {
  return {
    name: `cut 64 KiB of TCP, ${encapsulation}`,
    direction: 'outbound',
    per: { ', a super-packet': superPackets, ', a segment': superPackets * segments },
    prepare(core) {
      setUp(core, HERE, encapsulation, abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_SEGMENT);
      for (let i = 0; i < superPackets; i++) {
        // As read from a TUN device: the virtio header lies before the slot's packet.
        const packet = tcpSuperPacket(i, segment * segments, segment);
        const at = core.slot(i) - abi.VIRTIO_SIZE;
        core.bytes.set(packet, at);
        core.describe(i, packet.length, at);
      }
      const run = () => core.encapsulate(0, superPackets, 1);
      return { direction: 'outbound', packets: superPackets * segments, run };
    },
  };
}

function merge(format) {
  const { encapsulation, segments } = format;
  // What a call can take: each GRE packet has a descriptor of its own.
  const superPackets = encapsulation === 'gre' ? Math.floor(BATCH / segments) : SUPER_PACKETS;
  return {
    name: `merge 64 KiB of TCP, ${encapsulation}`,
    per: { ', a super-packet': superPackets, ', a segment': superPackets * segments },
    prepare(core) {
      cut(format, superPackets).prepare(core).run();
      const arrived = messagesOf(core);
      setUp(core, THERE, encapsulation, abi.OFFLOAD_VIRTIO);
      if (encapsulation === 'gre') for (const [i, { bytes }] of arrived.entries()) core.put(i, bytes);
      else putDatagrams(core, arrived);
      // The headers of each super-packet's first segment become those of the super-packet.
      const firsts = firstHeaders(core, arrived, format).map((at) => [at, core.bytes.slice(at, at + TCP_HEADERS)]);
      const refresh = () => {
        for (let i = 0; i < firsts.length; i++) core.bytes.set(firsts[i][1], firsts[i][0]);
      };
      const run = () => core.decapsulate(0, arrived.length, 1);
      return { direction: 'inbound', packets: superPackets * segments, messages: superPackets, run, refresh };
    },
  };
}

/** Where the inner headers of each super-packet's first segment lie. */
function firstHeaders(core, arrived, { encapsulation, segments }) {
  const outer = encapsulation === 'gre' ? 20 + GRE : GRE;
  const found = [];
  let n = 0;
  for (const [i, { bytes, segment }] of arrived.entries()) {
    for (let at = 0; at < bytes.length; at += segment, n++) {
      if (n % segments === 0) found.push(core.slot(i) + at + outer);
    }
  }
  return found;
}

export const CASES = [
  emptyCall,
  vmOf(),
  ...SIZES.map((size) => encapsulate(size)),
  ...SIZES.map((size) => decapsulate(size)),
  decapsulate(1476, withGreChecksum, ', GRE checksum'),
  encapsulateRun(64),
  decapsulateRun(64),
  ...FORMATS.map((format) => cut(format)),
  ...FORMATS.map((format) => merge(format)),
  ...[1, 256, 65536].map((tunnels) => tunnelCase(tunnels)),
];

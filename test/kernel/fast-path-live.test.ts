/** Super-packets, and what else only the kernel itself can bring, through both programs: as the core would have sent them, and as they were when they arrive. */
import { afterEach, describe, expect, test } from 'vitest';
import { type CoreConfig, overhead } from '../../src/core/index.ts';
import { CoreOracle } from '../fast-path/core-oracle.mjs';
import { bytesDifference, forwarded, udpAround } from '../fast-path/kernel-oracle.mjs';
import {
  A,
  B,
  containerOf,
  type Frame,
  fromContainer,
  fromUnderlay,
  Live,
  ROUTER,
  toContainer,
  toUnderlay,
} from '../fast-path/live.ts';
import { why } from '../fast-path/twin.mjs';
import { missingCommands, skip } from '../net/require.ts';
import * as wire from '../packet.ts';

const [NONE, TCPV4, UDP_L4, ECN] = [0, 1, 5, 0x80];
const ETHERNET = 14;
const LINK = 101;
type Options = Omit<CoreConfig, 'local' | 'mappings'>;
const CORE = {
  local: A,
  mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
};

const parts = (more: wire.Parts): wire.Parts => ({
  source: containerOf(A, LINK),
  destination: containerOf(B, LINK),
  ...more,
});
const TIMESTAMP = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const payload = (length: number) => ({ payload: wire.payloadOf(length) });

/** The frame of a packet whose checksum is open, and of which each `size` bytes are a segment. */
function frameOf(
  packet: Uint8Array,
  size: number,
  gso = TCPV4,
  headers = ETHERNET + wire.headersLength(packet),
): Frame {
  const open = wire.partial(packet);
  const start = ETHERNET + ((packet[0] as number) & 15) * 4;
  const frame = { flags: 1, gso, headers, size, start, offset: packet[9] === 6 ? 16 : 6 };
  return { ...frame, bytes: fromContainer(A, LINK, open) };
}

/** A packet as it is, of which the kernel has but `headers` bytes in one piece. */
const plainFrame = (packet: Uint8Array, headers = 0): Frame => ({
  ...{ flags: 0, gso: NONE, headers, size: 0, start: 0, offset: 0 },
  bytes: fromContainer(A, LINK, packet),
});

/** The outer identification says nothing where nobody may fragment (RFC 6864 §4.1): as if it were 0. */
function withoutId(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  new DataView(copy.buffer).setUint32(4, 0x4000);
  new DataView(copy.buffer).setUint16(10, 0);
  new DataView(copy.buffer).setUint16(10, ~wire.sum(copy.subarray(0, 20)) & 0xffff);
  return copy;
}

/** The frame's bytes, its checksum completed if it was open. */
function completed({ bytes, flags, start, offset }: Frame): Uint8Array {
  const copy = bytes.slice();
  if ((flags & 1) === 0) return copy;
  new DataView(copy.buffer).setUint16(start + offset, ~wire.sum(copy.subarray(start)) & 0xffff);
  return copy;
}

interface Case {
  name: string;
  packet: wire.Parts;
  size: number;
  gso?: number;
  /** No device takes so long a frame whole. */
  isLong?: boolean;
  /** More than one packet goes, as the core would have sent them; else nothing. */
  isTaken: boolean;
}

/** With 40 bytes of headers, or 52. */
const casesFor = (limit: number, outer: number): Case[] => [
  { name: 'two segments', packet: payload(2000), size: 1400, isTaken: true },
  { name: 'with time stamps', packet: { tcpOptions: TIMESTAMP, ...payload(5000) }, size: limit - 52, isTaken: true },
  {
    name: 'with as many options as there can be',
    packet: { tcpOptions: Array(40).fill(1), ...payload(5001) },
    size: 1300,
    isTaken: true,
  },
  { name: 'the last of one byte', packet: payload(2801), size: 1400, isTaken: true },
  { name: 'segments as long as the limit', packet: payload(9000), size: limit - 40, isTaken: true },
  { name: 'segments a byte longer', packet: payload(9000), size: limit - 39, isTaken: false },
  {
    name: 'as long as there is room for outer headers',
    packet: payload(65535 - outer - 40),
    size: 1400,
    isLong: true,
    isTaken: true,
  },
  { name: 'a byte longer than that', packet: payload(65536 - outer - 40), size: 1400, isTaken: false },
  { name: 'the smallest segments', packet: payload(5000), size: 128, isTaken: true },
  { name: 'smaller ones', packet: payload(5000), size: 127, isTaken: false },
  {
    name: 'ended and pushed',
    packet: { flags: wire.FIN | wire.PSH | wire.ACK, ...payload(3000) },
    size: 1000,
    isTaken: true,
  },
  {
    name: 'a reduced window',
    packet: { flags: wire.CWR | wire.ECE | wire.ACK, tos: 2, ...payload(3000) },
    size: 1000,
    gso: TCPV4 | ECN,
    isTaken: true,
  },
  { name: 'congestion experienced', packet: { tos: 3, ...payload(3000) }, size: 1000, isTaken: true },
  { name: 'without DF', packet: { fragment: 0, id: 0xfffe, ...payload(5000) }, size: 1000, isTaken: true },
  { name: 'UDP', packet: { protocol: 17, ...payload(3000) }, size: 1000, gso: UDP_L4, isTaken: false },
  { name: 'IP options', packet: { ipOptions: [1, 1, 1, 1], ...payload(3000) }, size: 1000, isTaken: false },
  { name: 'TTL 1', packet: { ttl: 1, ...payload(3000) }, size: 1000, isTaken: false },
  { name: 'TTL 3', packet: { ttl: 3, ...payload(3000) }, size: 1000, isTaken: true },
  {
    name: "a neighbour's source",
    packet: { source: containerOf(A, LINK + 1), ...payload(3000) },
    size: 1000,
    isTaken: false,
  },
];

const CONFIGS: { name: string; options: Options }[] = [
  { name: 'gre', options: {} },
  { name: 'gre with a key', options: { key: 7 } },
  { name: 'gre-udp', options: { encapsulation: 'gre-udp' } },
];

describe.skipIf(skip('fast path: live frames', why() ?? missingCommands('ethtool')))('live frames', () => {
  let live: Live | undefined;
  afterEach(() => {
    live?.close();
    live = undefined;
  });

  /** Both VMs, which know of each other. */
  function open(options: Options, limit: number, isWhole: boolean): Live {
    live = new Live(options, limit, isWhole);
    live.accompany();
    // The first goes its ordinary way outbound, the second inbound.
    for (let n = 0; n < 3; n++) live.port(A, LINK).send(plainFrame(wire.packetOf(parts({ protocol: 17 }))));
    expect(live.port(B, LINK).take(1).length).toBe(1);
    expect(live.underlay.take(2).length).toBe(2);
    return live;
  }

  const limitOf = (options: Options) => 1500 - overhead(options.encapsulation ?? 'gre', options);

  const wholes = [true, false].flatMap((isWhole) => CONFIGS.map((config) => ({ ...config, isWhole })));
  test.each(wholes)('$name: super-packets, whole $isWhole', ({ options, isWhole }) => {
    const limit = limitOf(options);
    const world = open(options, limit, isWhole);
    const config = { ...CORE, ...options, encapsulation: options.encapsulation ?? 'gre', mtu: limit };
    const [whole, cut] = [new CoreOracle(config, true), new CoreOracle(config, false)];
    const wrong = casesFor(limit, 1500 - limit).flatMap((each) => {
      const staysWhole = isWhole && !each.isLong;
      // Of GRE-in-UDP the core sends no super-packets itself.
      const oracle = staysWhole && options.encapsulation !== 'gre-udp' ? whole : cut;
      const difference = run(world, oracle, each, staysWhole, options);
      return difference === null ? [] : [`${each.name}: ${difference}`];
    });
    expect(wrong).toEqual([]);
  });

  function run(world: Live, oracle: CoreOracle, each: Case, isWhole: boolean, options: Options): string | null {
    const packet = wire.packetOf(parts(each.packet));
    const frame = frameOf(packet, each.size, each.gso);
    const before = [world.state(A).traffic(B).outbound, world.state(B).traffic(A).inbound];
    world.port(A, LINK).send(frame);
    const segments = Math.ceil((frame.bytes.length - ETHERNET - wire.headersLength(packet)) / each.size);
    const count = isWhole ? 1 : segments;
    // Behind what is not to come, there is something that does.
    if (!each.isTaken) world.port(A, LINK).send(plainFrame(wire.packetOf(parts({ protocol: 17 }))));
    const arrived = world.port(B, LINK).take(each.isTaken ? count : 1);
    const sent = world.underlay.take(each.isTaken ? count : 1);
    const after = [world.state(A).traffic(B).outbound, world.state(B).traffic(A).inbound];
    const counted = after.map(({ packets, bytes }, i) => [
      packets - (before[i]?.packets ?? 0),
      bytes - (before[i]?.bytes ?? 0),
    ]);
    if (!each.isTaken) {
      const isOne = sent.length === 1 && arrived.length === 1 && counted.every(([packets]) => packets === 1);
      return isOne ? null : `${sent.length - 1} frames sent, ${arrived.length - 1} arrived, counted ${counted}`;
    }
    const routed = forwarded(wire.partial(packet));
    const expected = oracle.outbound(routed, limitOf(options), each.size);
    const messages = oracle.messages();
    const headers = wire.headersLength(packet);
    const total = [segments, packet.length + (segments - 1) * headers];
    if (String(counted) !== String([total, total]))
      return `counted ${JSON.stringify(counted)}, expected ${total} twice`;
    const gre = options.encapsulation === 'gre-udp' ? ETHERNET + 28 : ETHERNET;
    if (isWhole) {
      const [frame] = sent;
      if (sent.length !== 1 || !frame) return `${sent.length} frames sent`;
      if (frame.size !== each.size || frame.flags !== 1) return `size ${frame.size}, flags ${frame.flags}`;
      if (gre === ETHERNET) {
        if (!expected.isWhole || !expected.bytes) return `the core sends it otherwise: ${expected.verdict}`;
        const difference = bytesDifference(frame.bytes.subarray(ETHERNET), forwarded(expected.bytes));
        if (difference) return difference;
      } else if (messages.length !== segments) return `the core sends ${messages.length} messages`;
    } else {
      if (sent.length !== messages.length) return `${sent.length} frames sent, ${messages.length} by the core`;
      for (const [i, frame] of sent.entries()) {
        const bytes = completed(frame);
        const got = gre === ETHERNET ? withoutId(bytes.subarray(ETHERNET)) : bytes.subarray(gre);
        const difference = bytesDifference(got, messages[i]);
        if (difference) return `segment ${i}: ${difference}`;
      }
    }
    return arrivedDifference(arrived, routed, each.size, isWhole);
  }

  /** What is wrong with what the container gets: the super-packet, or the segments that it was cut into. */
  function arrivedDifference(arrived: Frame[], routed: Uint8Array, size: number, isWhole: boolean): string | null {
    const headers = wire.headersLength(routed);
    if (isWhole) {
      const [frame] = arrived;
      if (arrived.length !== 1 || !frame) return `${arrived.length} frames arrived`;
      if (frame.size !== size || frame.flags !== 1) return `arrived with size ${frame.size}, flags ${frame.flags}`;
      if (frame.start !== ETHERNET + 20) return `the checksum begins at ${frame.start}`;
      return bytesDifference(frame.bytes, toContainer(B, LINK, forwarded(routed)));
    }
    const data = arrived.flatMap(({ bytes }) => [...bytes.subarray(ETHERNET + headers)]);
    const all = bytesDifference(Uint8Array.from(data), routed.subarray(headers));
    if (all) return `arrived: ${all}`;
    const unsound = arrived.find((frame) => !wire.verified(completed(frame).slice(ETHERNET)));
    return unsound ? 'a segment arrived with a wrong checksum' : null;
  }

  test.each(CONFIGS)('$name: packets in pieces, and frames with a VLAN tag', ({ options }) => {
    const limit = 8000;
    const world = open(options, limit, true);
    const packet = wire.packetOf(parts({ protocol: 17, ...payload(limit - 28) }));
    for (const headers of [1, 14, 20, 34, 40, 200]) {
      world.port(A, LINK).send(plainFrame(packet, headers));
      const [frame, ...more] = world.port(B, LINK).take(1);
      expect({ headers, more: more.length }).toEqual({ headers, more: 0 });
      const expected = toContainer(B, LINK, forwarded(forwarded(packet)));
      expect(bytesDifference(frame?.bytes ?? new Uint8Array(), expected)).toBeNull();
    }
    world.underlay.take(6);
    const bytes = fromContainer(A, LINK, packet);
    const tagged = Uint8Array.from([...bytes.subarray(0, 12), 0x81, 0, 0, 5, ...bytes.subarray(12)]);
    const { packets } = world.state(A).counts().outbound;
    world.port(A, LINK).send({ ...plainFrame(packet), bytes: tagged });
    world.port(A, LINK).send(plainFrame(packet));
    expect(world.port(B, LINK).take(1).length).toBe(1);
    expect(world.underlay.take(1).length).toBe(1);
    expect(world.state(A).counts().outbound.packets).toBe(packets + 1);
  });

  test('GRE-in-UDP whose outer checksum is open goes its ordinary way', () => {
    const world = open({ encapsulation: 'gre-udp' }, 1468, true);
    const packet = wire.packetOf({ source: containerOf(B, LINK), destination: containerOf(A, LINK), protocol: 17 });
    const gre = Uint8Array.from([0, 0, 8, 0, ...packet]);
    const bytes = fromUnderlay(udpAround(gre, { source: B, destination: A }));
    const plain = { flags: 0, gso: NONE, headers: 0, size: 0, start: 0, offset: 0, bytes };
    const open16 = wire.sum(bytes.subarray(26, 34), 17 + 8 + gre.length);
    const summed = bytes.slice();
    new DataView(summed.buffer).setUint16(40, open16);
    world.accompany();
    world.underlay.send(plain); // The first goes its ordinary way.
    const before = world.state(A).counts().inbound;
    world.underlay.send({ ...plain, flags: 1, start: 34, offset: 6, bytes: summed });
    world.underlay.send(plain);
    const [frame, ...more] = world.port(A, LINK).take(1);
    expect(more).toEqual([]);
    expect(bytesDifference(frame?.bytes ?? new Uint8Array(), toContainer(A, LINK, forwarded(packet)))).toBeNull();
    expect(world.state(A).counts().inbound.packets).toBe(before.packets + 1);
  });

  test.each([undefined, 'vm', B, ROUTER] as const)('to the next hop: %s', (nextHop) => {
    const world = open({}, 1476, true);
    world.accompany(nextHop);
    const packet = wire.packetOf(parts({ protocol: 17 }));
    world.port(A, LINK).send(plainFrame(packet));
    const [frame] = world.underlay.take(1);
    const config = { ...CORE, encapsulation: 'gre' as const, mtu: 1476 };
    const { bytes = new Uint8Array() } = new CoreOracle(config).outbound(forwarded(packet), 1476);
    const expected = toUnderlay(bytes, nextHop === ROUTER);
    expect(bytesDifference(frame?.bytes ?? new Uint8Array(), expected)).toBeNull();
  });

  test('straight across: super-packets too', () => {
    const world = open({}, 1476, true);
    const to = containerOf(A, LINK + 1);
    for (const [size, length] of [
      [1400, 60_000],
      [64, 1000],
      [9000, 40_000],
    ] as const) {
      const packet = wire.packetOf(parts({ destination: to, ...payload(length) }));
      const before = world.state(A).counts().local;
      world.port(A, LINK).send(frameOf(packet, size));
      const [frame, ...more] = world.port(A, LINK + 1).take(1);
      expect(more).toEqual([]);
      const expected = toContainer(A, LINK + 1, forwarded(wire.partial(packet)));
      expect(bytesDifference(frame?.bytes ?? new Uint8Array(), expected)).toBeNull();
      expect(frame).toMatchObject({ size, flags: 1 });
      const segments = Math.ceil(length / size);
      const { packets, bytes } = world.state(A).counts().local;
      expect([packets - before.packets, bytes - before.bytes]).toEqual([segments, packet.length + 40 * (segments - 1)]);
    }
    expect(world.underlay.take()).toEqual([]);
  });
});

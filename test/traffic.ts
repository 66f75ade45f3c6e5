/** Packets between container 10.16.32.91 and two on VM 192.168.16.33, as fast-check generates them: to be cut, to be merged, and nearly so. */
import fc from 'fast-check';
import { abi } from '../src/core/index.ts';
import * as wire from './packet.ts';

const { FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, DONT_FRAGMENT, MORE_FRAGMENTS } = wire;

export const timestamps: number[] = [1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];

/** What makes of two packets that follow each other two that are merged, or not. */
interface Change {
  /** What the second is made of instead. */
  before?: (parts: wire.Parts) => wire.Parts;
  /** What is done to it then. */
  after?: (packet: Uint8Array) => Uint8Array;
}

export interface NamedChange extends Change {
  name: string;
  protocol: 'TCP' | 'UDP';
  merges: boolean;
  /** What both are made of, and what is done to both then. */
  both?: wire.Parts;
  afterBoth?: (packet: Uint8Array) => Uint8Array;
}

/** The packet's payload, its first two bytes such that the checksum comes out as zero. */
function zeroSummed(parts: wire.Parts): Uint8Array {
  const payload = parts.payload?.slice() as Uint8Array;
  if (payload.length < 2) return payload;
  payload.set([0, 0]);
  const packet = wire.packetOf({ ...parts, payload });
  const field = wire.headersLength(packet) - (parts.protocol === 17 ? 2 : 4);
  payload.set(packet.subarray(field, field + 2));
  return payload;
}

/** The identification with which a packet of 100 bytes of payload, without DF, has an IPv4 header checksum of zero. */
function zeroHeaderId(protocol: 'TCP' | 'UDP'): number {
  const parts = { protocol: protocol === 'TCP' ? (6 as const) : (17 as const), id: 0, fragment: 0 };
  const [high = 0, low = 0] = wire.packetOf(parts).subarray(10, 12);
  return high * 256 + low;
}

const next = (parts: wire.Parts) => parts.sequence as number;
export const CHANGES: NamedChange[] = [
  ...(['TCP', 'UDP'] as const).flatMap((protocol): NamedChange[] =>
    [
      { name: 'nothing else', merges: true },
      { name: 'one byte less', merges: true, before: () => ({ payload: wire.payloadOf(99) }) },
      { name: 'one byte', merges: true, before: () => ({ payload: wire.payloadOf(1) }) },
      { name: 'DF and any identification', merges: true, before: () => ({ id: 1000 }) },
      { name: 'DF and the same identification', merges: true, before: () => ({ id: 7 }) },
      { name: 'no DF', merges: true, both: { fragment: 0 } },
      { name: 'no DF, identification wraps', merges: true, both: { fragment: 0, id: 65535 } },
      { name: 'the same TOS and TTL', merges: true, both: { tos: 0xb9, ttl: 1 } },
      { name: 'bytes behind the packet', merges: true, after: (p: Uint8Array) => Uint8Array.from([...p, 1, 2, 3]) },
      { name: 'one byte more', merges: false, before: () => ({ payload: wire.payloadOf(101) }) },
      { name: 'no payload', merges: false, before: () => ({ payload: new Uint8Array(0) }) },
      { name: 'no DF, identification one too far', merges: false, both: { fragment: 0 }, before: () => ({ id: 9 }) },
      { name: 'no DF, the same identification', merges: false, both: { fragment: 0 }, before: () => ({ id: 7 }) },
      { name: 'DF gone', merges: false, before: () => ({ fragment: 0 }) },
      { name: 'DF new', merges: false, both: { fragment: 0 }, before: () => ({ fragment: DONT_FRAGMENT }) },
      { name: 'the reserved flag', merges: false, both: { fragment: 0x8000 } },
      { name: 'the reserved flag and DF', merges: false, both: { fragment: 0xc000 } },
      { name: 'more fragments', merges: false, before: () => ({ fragment: MORE_FRAGMENTS }) },
      { name: 'more fragments of both', merges: false, both: { fragment: MORE_FRAGMENTS } },
      { name: 'a fragment offset', merges: false, both: { fragment: 0 }, before: () => ({ fragment: 1 }) },
      { name: 'another TOS', merges: false, before: () => ({ tos: 1 }) },
      { name: 'another TTL', merges: false, before: () => ({ ttl: 63 }) },
      { name: 'IP options', merges: false, before: () => ({ ipOptions: [1, 1, 1, 1] }) },
      { name: 'IP options of both', merges: false, both: { ipOptions: [1, 1, 1, 1] } },
      { name: 'another source', merges: false, before: () => ({ source: 0x0a10205c }) },
      { name: 'another destination', merges: false, before: () => ({ destination: 0x0a102108 }) },
      { name: 'another source port', merges: false, before: () => ({ sourcePort: 40001 }) },
      { name: 'another destination port', merges: false, before: () => ({ destinationPort: 80 }) },
      {
        name: 'an IPv4 header checksum of 0xffff, which cutting would make 0',
        merges: false,
        both: { fragment: 0, id: zeroHeaderId(protocol) - 1 },
        after: (p: Uint8Array) => wire.edited(p, 10, 0xff, 0xff),
      },
      { name: 'an IPv4 header checksum of 0', merges: true, both: { fragment: 0, id: zeroHeaderId(protocol) - 1 } },
      {
        name: 'a bad checksum',
        merges: false,
        after: (p: Uint8Array) => wire.edited(p, p.length - 1, ~(p.at(-1) as number)),
      },
    ].map((change) => ({ ...change, protocol })),
  ),
  ...[
    { name: 'PSH', merges: true, before: () => ({ flags: ACK | PSH }) },
    { name: 'ECE of both', merges: true, both: { flags: ACK | ECE } },
    { name: 'the same options', merges: true, both: { tcpOptions: timestamps } },
    { name: '40 bytes of options', merges: true, both: { tcpOptions: Array<number>(40).fill(1) } },
    {
      name: 'the same odd numbers',
      merges: true,
      both: { urgent: 5, reserved: 15, window: 0, acknowledgement: 0xffffffff },
    },
    { name: 'a gap', merges: false, before: (p: wire.Parts) => ({ sequence: next(p) + 1 }) },
    { name: 'an overlap', merges: false, before: (p: wire.Parts) => ({ sequence: next(p) + 0xffffffff }) },
    { name: 'the same again', merges: false, before: (p: wire.Parts) => ({ sequence: next(p) - 100 }) },
    { name: 'another acknowledgement', merges: false, before: () => ({ acknowledgement: 2 }) },
    { name: 'another window', merges: false, before: () => ({ window: 501 }) },
    { name: 'another urgent pointer', merges: false, before: () => ({ urgent: 1 }) },
    { name: 'another reserved bit', merges: false, before: () => ({ reserved: 1 }) },
    ...[FIN, SYN, RST, URG, ECE, CWR].map((flag) => ({
      name: `flag ${flag}`,
      merges: false,
      before: () => ({ flags: ACK | flag }),
    })),
    ...[FIN, SYN, RST, PSH, URG, CWR].map((flag) => ({
      name: `flag ${flag} of both`,
      merges: false,
      both: { flags: ACK | flag },
    })),
    { name: 'no ACK', merges: false, before: () => ({ flags: 0 }) },
    { name: 'no ACK of both', merges: false, both: { flags: 0 } },
    {
      name: 'a checksum of 0xffff, which cutting would make 0',
      merges: false,
      before: (p: wire.Parts) => ({ payload: zeroSummed(p) }),
      after: (p: Uint8Array) => wire.edited(p, 36, 0xff, 0xff),
    },
    {
      name: 'a checksum of 0',
      merges: true,
      before: (p: wire.Parts) => ({ payload: zeroSummed(p) }),
    },
    { name: 'new options', merges: false, before: () => ({ tcpOptions: timestamps }) },
    {
      name: 'other options',
      merges: false,
      both: { tcpOptions: timestamps },
      before: () => ({ tcpOptions: timestamps.with(11, 8) }),
    },
    { name: 'a data offset of 4', merges: false, after: (p: Uint8Array) => wire.fixed(wire.edited(p, 32, 0x40)) },
    {
      name: 'a data offset of 4 of both',
      merges: false,
      before: (p: wire.Parts) => ({ sequence: next(p) + 4 }),
      afterBoth: (p: Uint8Array) => wire.fixed(wire.edited(p, 32, 0x40)),
    },
    {
      name: 'a data offset up to the end',
      merges: false,
      before: () => ({ payload: wire.payloadOf(40) }),
      after: (p: Uint8Array) => wire.fixed(wire.edited(p, 32, 0xf0)),
    },
    {
      name: 'a data offset beyond the end',
      merges: false,
      before: () => ({ payload: wire.payloadOf(39) }),
      after: (p: Uint8Array) => wire.fixed(wire.edited(p, 32, 0xf0)),
    },
  ].map((change) => ({ ...change, protocol: 'TCP' as const })),
  ...[
    { name: 'no checksum', merges: false, after: (p: Uint8Array) => wire.edited(p, 26, 0, 0) },
    {
      name: 'no checksum, where it would come out as zero',
      merges: false,
      before: (p: wire.Parts) => ({ payload: zeroSummed(p) }),
      after: (p: Uint8Array) => wire.edited(p, 26, 0, 0),
    },
    { name: 'a checksum of 0xffff', merges: true, before: (p: wire.Parts) => ({ payload: zeroSummed(p) }) },
    // Read from the place where UDP is without options, the source port is the length.
    {
      name: 'IP options of both, and ports like lengths',
      merges: false,
      both: { ipOptions: [1, 1, 1, 1], sourcePort: 112 },
    },
    { name: 'a UDP length one less', merges: false, after: (p: Uint8Array) => wire.fixed(wire.edited(p, 24, 0, 107)) },
    { name: 'a UDP length one more', merges: false, after: (p: Uint8Array) => wire.fixed(wire.edited(p, 24, 0, 109)) },
    { name: 'a UDP length of 0', merges: false, after: (p: Uint8Array) => wire.fixed(wire.edited(p, 24, 0, 0)) },
  ].map((change) => ({ ...change, protocol: 'UDP' as const })),
];

/** Packets of several flows, mingled, mostly such that can be merged; now and then one that a change was made to, or that overtook the one before; `sizes` are bytes of payload. */
export const trafficOf = (sizes: readonly number[]): fc.Arbitrary<Uint8Array[]> =>
  fc
    .record({
      flows: fc.array(
        fc.record({
          protocol: fc.constantFrom<6 | 17>(6, 17),
          destination: fc.constantFrom(0x0a102107, 0x0a102108),
          sourcePort: fc.constantFrom(1, 2, 40000),
          fragment: fc.constantFrom(0, DONT_FRAGMENT),
          id: fc.constantFrom<number>(1, 65500, 65534),
          sequence: fc.constantFrom<number>(1, 0xffffff00, 0xffffffff),
          tcpOptions: fc.constantFrom([], [], timestamps),
          flags: fc.constantFrom(ACK, ACK, ACK | ECE),
          // With all headers less than the MTU: an open checksum is then no reason to cut.
          size: fc.constantFrom(...sizes),
        }),
        { minLength: 1, maxLength: 4 },
      ),
      steps: fc.array(
        fc.record({
          flow: fc.nat(3),
          change: fc.oneof(
            { weight: 8, arbitrary: fc.constant(undefined) },
            { weight: 1, arbitrary: fc.constantFrom(...CHANGES.filter(({ both }) => !both)) },
          ),
          overtakes: fc.nat(15).map((n) => n === 0),
        }),
        { minLength: 1, maxLength: 160, size: 'max' },
      ),
    })
    .map(({ flows, steps }) => {
      const states = flows.map((flow) => ({ ...flow }));
      const packets: Uint8Array[] = [];
      for (const [n, { flow, change, overtakes }] of steps.entries()) {
        const state = states[flow % states.length] as (typeof states)[number];
        const { size, ...rest } = state;
        const parts = { ...rest, payload: wire.payloadOf(size, n) };
        const fits = change?.protocol === (state.protocol === 6 ? 'TCP' : 'UDP') ? change : undefined;
        const changed: wire.Parts = { ...parts, ...fits?.before?.(parts) };
        const packet = wire.packetOf(changed);
        packets.push(fits?.after?.(packet) ?? packet);
        state.id = (state.id + 1) & 0xffff;
        state.sequence = (state.sequence + (changed.payload?.length as number)) >>> 0;
        if (overtakes) packets.push(...packets.splice(-2).reverse());
      }
      return packets;
    });

export const traffic = trafficOf([1, 2, 99, 100, 333, 1400]);

/** How many datagrams are to be in one buffer; none: they are packets, one each. */
export const groupings: fc.Arbitrary<number[]> = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 5 });

/** Divides datagrams as UDP_GRO would: of one length each, the last perhaps shorter, in groups of up to `lengths`. */
export function grouped(datagrams: readonly Uint8Array[], lengths: readonly number[]): Uint8Array[][] {
  const groups: Uint8Array[][] = [];
  let room = 0;
  for (const datagram of datagrams) {
    const [group, size] = [groups.at(-1), groups.at(-1)?.[0]?.length as number];
    if (group && group.length < room && datagram.length <= size && group.at(-1)?.length === size) group.push(datagram);
    else {
      room = lengths[groups.length % lengths.length] as number;
      groups.push([datagram]);
    }
  }
  return groups;
}

/** Super-packets of all kinds that can be cut, with the size to cut at. */
export const superPackets: fc.Arbitrary<{ parts: wire.Parts; size: number }> = fc
  .record({
    protocol: fc.constantFrom<6 | 17>(6, 17),
    length: fc.integer({ min: 1, max: 6000 }),
    segments: fc.integer({ min: 1, max: 50 }),
    seed: fc.nat(255),
    id: fc.constantFrom(0, 1, 65500, 65535),
    fragment: fc.constantFrom(0, DONT_FRAGMENT),
    tos: fc.nat(255),
    ttl: fc.integer({ min: 1, max: 255 }),
    sequence: fc.constantFrom(1, 0x7ffffffe, 0xfffffffe, 0xffffff00),
    flags: fc.nat(255),
    reserved: fc.nat(15),
    tcpOptions: fc.constantFrom([], timestamps, Array<number>(40).fill(1)),
    ipOptions: fc.constantFrom([], [1, 1, 1, 1], Array<number>(40).fill(1)),
    sourcePort: fc.nat(65535),
  })
  .map(({ length, segments, seed, ...parts }) => ({
    parts: { ...parts, payload: wire.payloadOf(length, seed) },
    size: Math.max(Math.ceil(length / segments), leastSegment(parts)),
  }));

/** Bytes of payload that segments need to have to be cut, with the longest outer headers. */
export function leastSegment({ protocol = 6, ipOptions = [], tcpOptions = [] }: wire.Parts): number {
  const headers = 20 + ipOptions.length + (protocol === 6 ? 20 + tcpOptions.length : 8);
  return Math.max(protocol === 6 ? abi.LEAST_TCP_SEGMENT : abi.LEAST_UDP_SEGMENT, headers + 44);
}

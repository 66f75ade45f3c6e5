/** Packets are merged if cutting gives them back (V2), and then only. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex, type Message, word } from './core.ts';
import { flowOf, hasFlow } from './flow.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { CHANGES, grouped, groupings, type NamedChange, timestamps, trafficOf } from './traffic.ts';
import {
  A,
  B,
  coreOf,
  datagramOf,
  expectSums,
  hexes,
  innerOf,
  MERGE_ALL,
  packetsIn,
  receive,
  receiveGroups,
  send,
  VIRTIO,
  view,
} from './vms.ts';

const { PSH, ACK, ECE, DONT_FRAGMENT } = wire;

interface Passed {
  packet: Uint8Array;
  merged: boolean;
}

/** In order within each flow; those without a flow are one. */
function byFlow(packets: readonly Passed[]): Map<string, Passed[]> {
  const flows = new Map<string, Passed[]>();
  for (const each of packets) {
    const flow = hasFlow(each.packet) ? hex(flowOf(each.packet)) : 'none';
    flows.set(flow, [...(flows.get(flow) ?? []), each]);
  }
  return flows;
}

/** The packet up to its total length, without what merging may change of it. */
function plain(packet: Uint8Array, merged: boolean): string {
  const whole = packet.subarray(0, view(packet).getUint16(2));
  const any = merged && (view(packet).getUint16(6) & DONT_FRAGMENT) !== 0;
  return hex(any ? wire.editedHeader(whole, 4, 0, 0) : whole);
}

/** A checksum that is the sum of the pseudo header counts as open, even if it was meant to be wrong, and is made on the way. */
function completed(packet: Uint8Array): Uint8Array {
  const whole = packet.slice(0, view(packet).getUint16(2));
  return hex(wire.partial(whole)) === hex(whole) ? wire.fixed(whole) : whole;
}

/** One in 65,536 checksums is that sum by chance. TCP that is longer than the least path MTU is then taken for merged, and cut. */
function isTakenForMerged(packet: Uint8Array): boolean {
  const whole = packet.slice(0, view(packet).getUint16(2));
  return whole[9] === 6 && whole.length > abi.LEAST_PATH_MTU && hex(wire.partial(whole)) === hex(whole);
}

/** Of segments so large that a container may send them as one super-packet. */
const larger = trafficOf([128, 129, 200, 333, 1400]);

/** What a container that gets the message sends to give it back: small segments that were merged (some changes make such) one by one. */
function framesOf({ content, bytes }: Message): Uint8Array[] {
  const size = view(bytes).getUint16(abi.VIRTIO_GSO_SIZE, true);
  if (content.packets === 1 || size >= abi.LEAST_TCP_SEGMENT) return [bytes];
  return wire.cut(bytes.subarray(abi.VIRTIO_SIZE), size).map((packet) => wire.frameOf(packet));
}

describe.each(cores)('$name', ({ make }) => {
  /** Two packets that follow each other, the second one changed. */
  const pair = (parts: wire.Parts, { before, after, afterBoth }: Partial<NamedChange>): [Uint8Array, Uint8Array] => {
    const first = { id: 7, sequence: 0xfffffff0, payload: wire.payloadOf(100), ...parts };
    const second = {
      ...first,
      id: first.id + 1,
      sequence: (first.sequence + 100) >>> 0,
      payload: wire.payloadOf(100, 1),
    };
    const both = [first, { ...second, ...before?.(second) }].map((each) => wire.packetOf(each));
    const [one, two] = (afterBoth ? both.map(afterBoth) : both) as [Uint8Array, Uint8Array];
    return [one, after?.(two) ?? two];
  };
  const protocolOf = { TCP: 6, UDP: 17 } as const;

  test.each(CHANGES.filter(({ merges }) => merges))('V2 merged: $protocol, $name', (change) => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const packets = pair({ protocol: protocolOf[change.protocol], ...change.both }, change);
    expect(packetsIn(receive(core, packets))).toEqual([2]);
  });

  test.each(CHANGES.filter(({ merges }) => !merges))('V2 not merged, and not touched: $protocol, $name', (change) => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const packets = pair({ protocol: protocolOf[change.protocol], ...change.both }, change);
    const made = receive(core, packets);
    expect(packetsIn(made)).toEqual([1, 1]);
    const upToLength = packets.map((packet) => packet.subarray(0, view(packet).getUint16(2)));
    expect(hexes(made.map((message) => message.bytes))).toEqual(
      hexes(upToLength.map((packet) => wire.frameOf(packet))),
    );
  });

  test('V2 without the offloads nothing is merged', () => {
    const [tcp, udp] = [pair({}, {}), pair({ protocol: 17 }, {})];
    const both = [...tcp, ...udp];
    expect(packetsIn(receive(coreOf(make, { local: B, offloads: MERGE_ALL }), both))).toEqual([2, 2]);
    expect(packetsIn(receive(coreOf(make, { local: B, offloads: VIRTIO }), both))).toEqual([2, 1, 1]);
    for (const offloads of [0, abi.OFFLOAD_UDP_MERGE, abi.OFFLOAD_UDP_SEGMENT]) {
      const made = receive(coreOf(make, { local: B, offloads }), both);
      expect(hexes(made.map((message) => message.bytes))).toEqual(hexes(both));
    }
  });

  const uncuttable = /which cutting would make 0|^no checksum/;
  test.each(CHANGES.filter(({ name }) => uncuttable.test(name)))(
    'V2 nor is it the first: $protocol, $name',
    (change) => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      const parts = { protocol: protocolOf[change.protocol], ...change.both };
      const third = wire.packetOf({ ...parts, id: (parts.id ?? 7) + 2, sequence: 0xfffffff0 + 200 - 2 ** 32 });
      const [[, right], [, changed]] = [pair(parts, { ...change, after: (packet) => packet }), pair(parts, change)];
      expect(packetsIn(receive(core, [right, third]))).toEqual([2]);
      expect(packetsIn(receive(core, [changed, third]))).toEqual([1, 1]);
    },
  );

  test.each<{ name: string; protocol: 6 | 17; flags: number; tcpOptions: number[] }>([
    { name: 'TCP', protocol: 6, flags: ACK, tcpOptions: [] },
    { name: 'TCP with options, PSH and ECE', protocol: 6, flags: ACK | PSH | ECE, tcpOptions: timestamps },
    { name: 'UDP', protocol: 17, flags: ACK, tcpOptions: [] },
  ])('V2 merging gives the super-packet that was cut: $name', ({ protocol, flags, tcpOptions }) => {
    const [a, b] = [coreOf(make, { offloads: VIRTIO }), coreOf(make, { local: B, offloads: MERGE_ALL })];
    for (const [length, size] of [
      [400, 200],
      [399, 200],
      [201, 200],
      [64 * 999, 999],
      [63 * 1000 + 1, 1000],
      [64 * 128, 128],
    ] as const) {
      const frame = wire.superFrame({ protocol, flags, tcpOptions, payload: wire.payloadOf(length) }, size);
      const received = receive(b, innerOf(send(a, [frame])));
      expect(hexes(received.map(({ bytes }) => bytes))).toEqual([hex(frame)]);
      expect(packetsIn(received)).toEqual([Math.ceil(length / size)]);
    }
  });

  test('V2 the same through GRE-in-UDP, segments in one message, message in one buffer', () => {
    const vm = { encapsulation: 'gre-udp', key: 5 } as const;
    const a = coreOf(make, { ...vm, offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT, ports: 8 });
    const b = coreOf(make, { ...vm, local: B, offloads: MERGE_ALL });
    const frame = wire.superFrame({ payload: wire.payloadOf(60001), flags: ACK | PSH }, 1401);
    const sent = send(a, [frame]);
    expect(packetsIn(sent)).toEqual([43]);
    const received = receiveGroups(
      b,
      sent.map(({ datagrams }) => datagrams),
    );
    expect(hexes(received.map(({ bytes }) => bytes))).toEqual([hex(frame)]);
    expect(b.verdict(0)).toBe(abi.FORWARD);
  });

  test('V2 cutting what was merged gives the input back', () => {
    let [tcp, udp, datagrams] = [0, 0, 0];
    const [a, b] = [
      coreOf(make, { offloads: VIRTIO }),
      coreOf(make, { local: B, offloads: MERGE_ALL, encapsulation: 'gre-udp' }),
    ];
    const [cutBefore, mergedBefore]: [Message[], Message[]] = [[], []];
    fc.assert(
      fc.property(larger, groupings, (packets, lengths) => {
        fc.pre(!packets.some(isTakenForMerged));
        const groups = lengths.length > 0 ? grouped(packets.map(datagramOf), lengths) : undefined;
        const made = groups ? receiveGroups(b, groups) : receive(b, packets);
        // The VM on the other side gets from its containers what this one gave to its own.
        const back = made.map((message) => ({ merged: message.content.packets > 1, sent: send(a, framesOf(message)) }));
        const given = back.flatMap(({ merged, sent }) => innerOf(sent).map((packet) => ({ merged, packet })));

        // Of packets with DF, those that were merged have the identification that follows from the first one's.
        const [got, expected] = [byFlow(given), byFlow(packets.map((packet) => ({ merged: false, packet })))];
        expect([...got.keys()].sort()).toEqual([...expected.keys()].sort());
        for (const [flow, sent] of expected) {
          const arrived = got.get(flow) as Passed[];
          expect(arrived.map(({ merged, packet }) => plain(packet, merged))).toEqual(
            sent.map(({ packet }, i) => plain(completed(packet), arrived[i]?.merged === true)),
          );
        }

        for (const { content, bytes } of made) {
          if (content.packets < 2) continue;
          if (bytes[abi.VIRTIO_SIZE + 9] === 6) tcp++;
          else udp++;
        }
        if (groups) datagrams += packets.length;
        mergedBefore.push(...made);
        cutBefore.push(...back.flatMap(({ sent }) => sent));
      }),
      // What fails is long, and takes long to shrink: the seed finds it again.
      { numRuns: runs(200), endOnFailure: true },
    );
    expectSums(b, 'inbound', mergedBefore);
    expectSums(a, 'outbound', cutBefore);
    expect(a.counters('outbound')).toEqual(b.counters('inbound'));
    // The property has to have met what it is about.
    for (const met of [tcp, udp, datagrams]) expect(met).toBeGreaterThan(100);
  });

  test('a merged packet is forwarded, to the byte, without being copied', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const packets = wire.burst(10);
    for (const [i, packet] of packets.entries()) core.put(i, wire.grePacket(A, B, packet));
    core.decapsulate(0, packets.length, 0);
    expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_IOV_COUNT)).toBe(11);
    const pieces = Array.from({ length: 11 }, (_, i) => word(core, abi.IOVS + i * abi.IOV_SIZE));
    expect(pieces).toEqual([
      abi.HEADERS,
      core.slot(0) + 24,
      ...packets.slice(1).map((_, i) => core.slot(i + 1) + 24 + 40),
    ]);
    const { packets: count, bytes } = core.messages.content(0);
    expect({ packets: count, bytes }).toEqual({ packets: 10, bytes: 1400 });
    expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 10, bytes: 1400 });
    core.refuse(0);
    expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 0, bytes: 0 });
    expect(core.counters('inbound').drops[-abi.DROP_NOT_WRITTEN]).toBe(10);
  });
});

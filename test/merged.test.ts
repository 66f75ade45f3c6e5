/** Packets that the kernel merged before the core gets them, or that no wire has cut: they come out as what they were, or in sizes that surely fit. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex, type Message } from './core.ts';
import * as wire from './packet.ts';
import { timestamps } from './traffic.ts';
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
  send,
  VIRTIO,
  view,
} from './vms.ts';

const { PSH, ACK, FIN, CWR } = wire;

describe.each(cores)('$name', ({ make }) => {
  const open = (parts: wire.Parts) => wire.partial(wire.packetOf(parts));
  /** As rx-gro-list leaves it: the first packet's checksum with the length of all. */
  const listed = (parts: wire.Parts, size: number) => {
    const whole = wire.packetOf(parts);
    const at = wire.headersLength(whole) - (whole[9] === 6 ? 4 : 2);
    const [first] = wire.cut(whole, size) as [Uint8Array];
    return wire.edited(whole, at, ...first.subarray(at, at + 2));
  };
  const GSO: Record<number, number> = { 6: wire.VIRTIO_TCPV4, 17: wire.VIRTIO_UDP_L4 };
  const dropped = (core: ReturnType<typeof make>) => core.counters('inbound').drops[-abi.DROP_MERGED];

  const kinds: [name: string, parts: wire.Parts, size: number][] = [
    ['TCP', { payload: wire.payloadOf(3500), flags: ACK | PSH }, 1000],
    ['TCP, two segments', { payload: wire.payloadOf(1001) }, 1000],
    ['TCP, options', { payload: wire.payloadOf(3000), tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] }, 1388],
    ['TCP, its last words', { payload: wire.payloadOf(3000), flags: ACK | FIN | CWR }, 536],
    ['TCP, more than the tunnel carries', { payload: wire.payloadOf(60000) }, 8910],
    ['UDP', { protocol: 17, payload: wire.payloadOf(3500) }, 1000],
    ['UDP, short', { protocol: 17, payload: wire.payloadOf(73) }, 72],
    ['UDP, as long as can be', { protocol: 17, payload: wire.payloadOf(64 * 1000) }, 1000],
  ];

  test.each(kinds)('the size that the host knows goes into the virtio header: %s', (_, parts, size) => {
    const whole = wire.packetOf(parts);
    const start = ((whole[0] as number) & 15) * 4;
    const virtio = { flags: 1, type: GSO[whole[9] as number] as number, headerLength: wire.headersLength(whole) };
    const frame = wire.frameOf(open(parts), { ...virtio, size, start, offset: whole[9] === 6 ? 16 : 6 });
    for (const packet of [open(parts), listed(parts, size)]) {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL, mtu: 1476 });
      const made = receive(core, [packet], size);
      expect(hexes(made.map(({ bytes }) => bytes))).toEqual([hex(frame)]);
      expect(packetsIn(made)).toEqual([wire.cut(whole, size).length]);
      expectSums(core, 'inbound', made);
      // Sent on, it is what it was.
      const sent = innerOf(
        send(
          coreOf(make, { offloads: VIRTIO }),
          made.map(({ bytes }) => bytes),
        ),
      );
      expect(hexes(sent)).toEqual(hexes(wire.cut(whole, size)));
    }
  });

  test.each(kinds)('a device that takes no such super-packet gets what was merged: %s', (_, parts, size) => {
    const whole = wire.packetOf(parts);
    const isUdp = whole[9] === 17;
    for (const packet of [open(parts), listed(parts, size)]) {
      const core = coreOf(make, { local: B, mtu: 1476 });
      const made = receive(core, [packet], size);
      expect(hexes(made.map(({ bytes }) => bytes))).toEqual(hexes(wire.cut(whole, size)));
      expect(new Set(packetsIn(made))).toEqual(new Set([1]));
      expectSums(core, 'inbound', made);
      if (!isUdp) continue;
      const framed = receive(coreOf(make, { local: B, offloads: VIRTIO, mtu: 1476 }), [packet], size);
      expect(hexes(framed.map(({ bytes }) => bytes))).toEqual(
        hexes(wire.cut(whole, size).map((each) => wire.frameOf(each))),
      );
    }
  });

  test.each<[name: string, merged: number]>([
    ['it was not', abi.NOT_MERGED],
    ['just as long as the packet', 1400],
    ['more than the packet', 1401],
    ['a number above 2^31', 0x80000001],
  ])('a packet that was not merged stays one, whatever its length: %s', (_, merged) => {
    for (const protocol of [6, 17] as const) {
      const parts = { protocol, payload: wire.payloadOf(1400) };
      const core = coreOf(make, { local: B, offloads: MERGE_ALL, mtu: 1000 });
      const [{ bytes }] = receive(core, [open(parts)], merged) as [Message];
      expect([bytes[0], bytes[1], hex(bytes.subarray(abi.VIRTIO_SIZE))]).toEqual([1, 0, hex(open(parts))]);
      const [right] = receive(core, [wire.packetOf(parts)], merged) as [Message];
      expect(hex(right.bytes)).toBe(hex(wire.frameOf(wire.packetOf(parts))));
    }
  });

  test('of what is not TCP or UDP, and of fragments, a size says nothing', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const packet of [
      wire.editedHeader(wire.packetOf({ protocol: 17, payload: wire.payloadOf(1000) }), 9, 132),
      wire.packetOf({ fragment: wire.MORE_FRAGMENTS, payload: wire.payloadOf(1000) }),
      wire.packetOf({ protocol: 17, fragment: 100, payload: wire.payloadOf(1000) }),
    ]) {
      expect(hexes(receive(core, [packet], 100).map(({ bytes }) => bytes))).toEqual([hex(wire.frameOf(packet))]);
    }
  });

  test.each<[name: string, parts: wire.Parts, size: number]>([
    ['one byte more than fits everywhere', { payload: wire.payloadOf(513) }, 512],
    ['60,000 bytes', { payload: wire.payloadOf(60_000) }, 512],
    [
      '60,000 bytes, options',
      { payload: wire.payloadOf(60_000), tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] },
      496,
    ],
  ])('TCP of which the host knows nothing gets the size that fits every path: %s', (_, parts, size) => {
    for (const mtu of [68, 1476, 8977, 65535]) {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL, mtu });
      const [{ bytes }] = receive(core, [open(parts)]) as [Message];
      expect([bytes[1], view(bytes).getUint16(abi.VIRTIO_GSO_SIZE, true)]).toEqual([1, size]);
      const cut = receive(coreOf(make, { local: B, mtu }), [open(parts)]);
      expect(hexes(cut.map((message) => message.bytes))).toEqual(hexes(wire.cut(wire.packetOf(parts), size)));
    }
  });

  test.each<[name: string, packet: Uint8Array, drops: number]>([
    ['UDP, open', open({ protocol: 17, payload: wire.payloadOf(1449) }), 1],
    ['UDP, a list', listed({ protocol: 17, payload: wire.payloadOf(1449) }, 700), 1],
    ['TCP, a list', listed({ payload: wire.payloadOf(1437) }, 700), 1],
    ['UDP, open, but it fits', open({ protocol: 17, payload: wire.payloadOf(1448) }), 0],
    ['UDP whose checksum is right', wire.packetOf({ protocol: 17, payload: wire.payloadOf(1449) }), 0],
    [
      'UDP without a checksum',
      wire.edited(wire.packetOf({ protocol: 17, payload: wire.payloadOf(1449) }), 26, 0, 0),
      0,
    ],
    ['TCP whose checksum is right', wire.packetOf({ payload: wire.payloadOf(1437) }), 0],
    ['TCP, open', open({ payload: wire.payloadOf(1437) }), 0],
    ['a fragment', wire.packetOf({ protocol: 17, fragment: 100, payload: wire.payloadOf(1449) }), 0],
  ])('what nobody can take apart is dropped and counted: %s', (_, packet, drops) => {
    for (const offloads of [0, VIRTIO, MERGE_ALL]) {
      const core = coreOf(make, { local: B, offloads, mtu: 1476 });
      const made = receive(core, [packet]);
      expect([dropped(core), made.length === 0]).toEqual([drops, drops > 0]);
      expectSums(core, 'inbound', made);
    }
  });

  test('it closes its flow, and opens none', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const protocol of [6, 17] as const) {
      const packets = wire.burst(6, { protocol });
      expect(packetsIn(receive(core, packets, 60))).toEqual([2, 2, 2, 2, 2, 2]);
      expect(packetsIn(receive(core, packets, abi.NOT_MERGED))).toEqual([6]);
    }
  });

  test('there has to be room for all of its packets; where there never is, it is dropped', () => {
    const parts = { protocol: 17 as const, payload: wire.payloadOf(1000) };
    const core = coreOf(make, { local: B });
    const made = receive(core, [open(parts), open(parts), wire.packetOf(parts)], 1);
    expect(hexes(made.map(({ bytes }) => bytes))).toEqual(
      hexes([1, 2, 3].flatMap(() => wire.cut(wire.packetOf(parts), 1))),
    );
    expectSums(core, 'inbound', made);
    const longer = (bytes: number) => receive(core, [open({ ...parts, payload: wire.payloadOf(bytes) })], 1).length;
    expect([longer(abi.MESSAGES), longer(abi.MESSAGES + 1)]).toEqual([abi.MESSAGES, 0]);
    expect(core.counters('inbound').drops[-abi.DROP_TOO_LONG]).toBe(1);
    // As one super-packet it has room.
    const whole = coreOf(make, { local: B, offloads: MERGE_ALL });
    expect(packetsIn(receive(whole, [open({ ...parts, payload: wire.payloadOf(2000) })], 1))).toEqual([2000]);
  });

  test('a datagram of GRE-in-UDP that is alone may be such; those that come together are not', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL, mtu: 1476 });
    const put = (merged: number, ...inner: Uint8Array[]) => {
      const all = inner.map(datagramOf);
      const bytes = Buffer.concat(all);
      core.bytes.set(bytes, core.slot(0));
      core.describeDatagrams(0, bytes.length, all[0]?.length as number, A);
      new DataView(core.memory).setUint32(abi.DESCRIPTORS + abi.DESCRIPTOR_MERGED, merged, true);
      core.decapsulate(0, 1, 0);
      return [core.messages.count(), core.messages.content(0).packets];
    };
    const packet = open({ payload: wire.payloadOf(1000) });
    expect(put(100, packet)).toEqual([1, 10]);
    expect(put(0, packet)).toEqual([1, 2]);
    expect(put(abi.NOT_MERGED, packet)).toEqual([1, 1]);
    expect(put(100, packet, packet)).toEqual([2, 1]);
    expect(put(0, packet, packet)).toEqual([2, 1]);
  });
});

/** The type of service, on its way out and in: ECN (RFC 6040) and DSCP (RFC 2983). */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import { cores, hex, type Message } from './core.ts';
import * as wire from './packet.ts';
import {
  A,
  B,
  coreOf,
  hexes,
  MERGE_ALL,
  packetsIn,
  receiveGroups,
  send,
  sendPackets,
  VIRTIO,
  type Vm,
  view,
} from './vms.ts';

const FORMATS = ['gre', 'gre-udp'] as const;
type Format = (typeof FORMATS)[number];
const [NOT_ECT, ECT_1, ECT_0, CE] = [0, 1, 2, 3] as const;
const NAMES = ['Not-ECT', 'ECT(1)', 'ECT(0)', 'CE'];

/** A packet from A comes to B in one with this type of service. */
function arrive(core: PacketCore, format: Format, tos: number, inner: Uint8Array): number {
  const gre = [0, 0, 8, 0, ...inner];
  if (format === 'gre') {
    core.put(0, wire.ipv4Around({ source: A, destination: B, tos }, gre));
  } else {
    core.bytes.set(gre, core.slot(0));
    core.describeDatagrams(0, gre.length, gre.length, A, tos);
  }
  core.decapsulate(0, 1, 0);
  return core.verdict(0);
}

/** The type of service of a message's outer header: what the kernel is told, where it makes that. */
const outerTos = (core: PacketCore, format: Format, { index, bytes }: Message) =>
  format === 'gre' ? bytes[1] : (core.messages.tos(index) ?? 0);

/** RFC 6040 §4.2, figure 4: inner, outer, what becomes of it, and whether that is to be told. */
const FIGURE_4: [inner: number, outer: number, result: number | 'drop', anomaly: boolean][] = [
  [NOT_ECT, NOT_ECT, NOT_ECT, false],
  [NOT_ECT, ECT_0, NOT_ECT, true],
  [NOT_ECT, ECT_1, NOT_ECT, true],
  [NOT_ECT, CE, 'drop', false],
  [ECT_0, NOT_ECT, ECT_0, false],
  [ECT_0, ECT_0, ECT_0, false],
  [ECT_0, ECT_1, ECT_1, false],
  [ECT_0, CE, CE, false],
  [ECT_1, NOT_ECT, ECT_1, false],
  [ECT_1, ECT_0, ECT_1, true],
  [ECT_1, ECT_1, ECT_1, false],
  [ECT_1, CE, CE, false],
  [CE, NOT_ECT, CE, false],
  [CE, ECT_0, CE, false],
  [CE, ECT_1, CE, true],
  [CE, CE, CE, false],
];

describe.each(cores)('$name', ({ make }) => {
  describe.each(FORMATS)('%s', (encapsulation) => {
    test.each<[name: string, options: Partial<CoreConfig>, expected: (tos: number) => number]>([
      ['E1 normal mode copies the ECN field, DSCP is 0', {}, (tos) => tos & 3],
      ['E1 compatibility mode sends Not-ECT', { ecn: 'compatibility' }, () => 0],
      ['E3 the pipe model sends what is configured', { dscp: 46 }, (tos) => 0xb8 | (tos & 3)],
      ['E3 of what is configured, 6 bits count', { dscp: 64 + 1 }, (tos) => 4 | (tos & 3)],
      ['E3 the uniform model copies the DSCP', { dscp: 'uniform' }, (tos) => tos],
      ['E3 uniform, and compatibility mode', { dscp: 'uniform', ecn: 'compatibility' }, (tos) => tos & 0xfc],
      ['E3 pipe, and compatibility mode', { dscp: 63, ecn: 'compatibility' }, () => 0xfc],
    ])('%s, of all 256', (_, options, expected) => {
      const core = coreOf(make, { ...options, encapsulation });
      for (let tos = 0; tos < 256; tos++) {
        const packet = wire.packetOf({ tos });
        const [message] = sendPackets(core, [packet]) as [Message];
        expect([tos, outerTos(core, encapsulation, message)]).toEqual([tos, expected(tos)]);
        // The inner header stays.
        expect(hex(message.bytes.subarray(encapsulation === 'gre' ? 24 : 4))).toBe(hex(packet));
        if (encapsulation === 'gre') expect(wire.sum(message.bytes.subarray(0, 20))).toBe(0xffff);
      }
    });

    test('E1 segments and fragments have it as well', () => {
      const options: Vm = { encapsulation, dscp: 'uniform', mtu: 576, offloads: VIRTIO };
      for (const [parts, size, count] of [
        [{ payload: wire.payloadOf(1000) }, 500, 2],
        [{ payload: wire.payloadOf(1000), fragment: 0 }, 1000, 2],
      ] as const) {
        const core = coreOf(make, options);
        const made = send(core, [wire.superFrame({ ...parts, tos: 0xb9 }, size)]);
        expect(made.map((message) => outerTos(core, encapsulation, message))).toEqual(Array(count).fill(0xb9));
      }
      const core = coreOf(make, options);
      const made = send(core, [wire.frameOf(wire.packetOf({ payload: wire.payloadOf(1000), fragment: 0, tos: 0x2a }))]);
      expect(made.map((message) => outerTos(core, encapsulation, message))).toEqual([0x2a, 0x2a]);
    });

    test.each(FIGURE_4.map((row) => [NAMES[row[0]] as string, NAMES[row[1]] as string, ...row] as const))(
      'E2 inner %s, outer %s',
      (_inner, _outer, inner, outer, result, anomaly) => {
        const core = coreOf(make, { encapsulation, local: B });
        // The checksum is as the sender left it, and other bits of the type of service are not touched.
        for (const [dscp, id, ipOptions] of [
          [0, 1, []],
          [0xfc, 0xffff, []],
          [0xb8, 0x1234, [1, 1, 1, 1]],
        ] as const) {
          const before = core.counters('inbound');
          const packet = wire.packetOf({ tos: dscp | inner, id, ipOptions });
          const verdict = arrive(core, encapsulation, 0x54 | outer, packet);
          const after = core.counters('inbound');
          expect(after.anomalies - before.anomalies).toBe(anomaly ? 1 : 0);
          if (result === 'drop') {
            expect([verdict, core.messages.count(), core.tunnels.count]).toEqual([abi.DROP_ECN, 0, 0]);
            expect((after.drops[-abi.DROP_ECN] as number) - (before.drops[-abi.DROP_ECN] as number)).toBe(1);
          } else {
            const expected = wire.packetOf({ tos: dscp | result, id, ipOptions });
            expect([verdict, hex(core.messages.bytes(0))]).toEqual([abi.FORWARD, hex(expected)]);
          }
        }
      },
    );

    test('E2 the inner header checksum stays right, whatever it was', () => {
      const core = coreOf(make, { encapsulation, local: B });
      for (let id = 0; id < 0x10000; id += 5) {
        arrive(core, encapsulation, CE, wire.packetOf({ tos: ECT_0, id, payload: new Uint8Array(0) }));
        const header = core.messages.bytes(0).subarray(0, 20);
        if (header[1] === CE && wire.sum(header) === 0xffff) continue;
        expect.fail(`identification ${id}: ${hex(header)}`);
      }
    });

    test('E3 inbound the inner DSCP stays, unless the model is uniform', () => {
      for (const [options, result] of [
        [{}, 0x28],
        [{ dscp: 46 }, 0x28],
        [{ dscp: 'uniform' }, 0xb8],
      ] as const) {
        const core = coreOf(make, { ...options, encapsulation, local: B });
        for (const [inner, outer, ecn] of FIGURE_4) {
          if (ecn === 'drop') continue;
          const packet = wire.packetOf({ tos: 0x28 | inner });
          expect(arrive(core, encapsulation, 0xb8 | outer, packet)).toBe(abi.FORWARD);
          expect(hex(core.messages.bytes(0))).toBe(hex(wire.packetOf({ tos: result | ecn })));
        }
        expect(core.counters('inbound').anomalies).toBe(4);
      }
    });

    test('E3 what is the same already is not touched, not even a checksum of 0xffff', () => {
      const core = coreOf(make, { dscp: 'uniform', encapsulation, local: B });
      // An identification with which the checksum is 0, or 0xffff, which means the same.
      const [high = 0, low = 0] = wire.packetOf({ tos: 0xb9, id: 0 }).subarray(10, 12);
      const packet = wire.edited(wire.packetOf({ tos: 0xb9, id: high * 256 + low }), 10, 0xff, 0xff);
      expect(wire.sum(packet.subarray(0, 20))).toBe(0xffff);
      expect(arrive(core, encapsulation, 0xb9, packet)).toBe(abi.FORWARD);
      expect(hex(core.messages.bytes(0))).toBe(hex(packet));
    });
  });

  test('E2 every datagram of a buffer has the outer type of service of all', () => {
    const core = coreOf(make, { encapsulation: 'gre-udp', local: B });
    const datagrams = [0, 1, 2, 3].map((tos) => Uint8Array.from([0, 0, 8, 0, ...wire.packetOf({ tos })]));
    const bytes = Buffer.concat(datagrams);
    core.bytes.set(bytes, core.slot(0));
    // Of the field of 32 bits the low 8 count.
    core.describeDatagrams(0, bytes.length, bytes.length / 4, A, 0xffffff03);
    core.decapsulate(0, 1, 0);
    expect(core.counters('inbound')).toMatchObject({ received: 4, forwarded: 3, anomalies: 0 });
    expect(core.counters('inbound').drops[-abi.DROP_ECN]).toBe(1);
    expect([0, 1, 2].map((i) => core.messages.bytes(i)[1])).toEqual([3, 3, 3]);
    // A host that does not know it says 0.
    const made = receiveGroups(core, [datagrams]);
    expect(made.map((message) => message.bytes[1])).toEqual([0, 1, 2, 3]);
  });

  test('E2 packets are merged as they are afterwards', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const packets = wire.burst(6, { tos: ECT_0 });
    for (const [i, packet] of packets.entries()) {
      const tos = i < 2 ? 0 : i < 4 ? CE : i === 4 ? ECT_1 : ECT_0;
      core.put(i, wire.ipv4Around({ source: A, destination: B, tos }, [0, 0, 8, 0, ...packet]));
    }
    core.decapsulate(0, 6, 0);
    const made = core.messages.all().map((message) => core.messages.bytes(message));
    expect(made.map((bytes) => [bytes[abi.VIRTIO_SIZE + 1], view(bytes).getUint16(abi.VIRTIO_SIZE + 2)])).toEqual([
      [ECT_0, 240],
      [CE, 240],
      [ECT_1, 140],
      [ECT_0, 140],
    ]);
    expect(
      packetsIn(core.messages.all().map((index) => ({ content: core.messages.content(index) }) as Message)),
    ).toEqual([2, 2, 1, 1]);
    for (const bytes of made) expect(wire.sum(bytes.subarray(abi.VIRTIO_SIZE, abi.VIRTIO_SIZE + 20))).toBe(0xffff);
  });

  test('E1 there and back: what a router marks arrives', () => {
    const [a, b] = [coreOf(make, {}), coreOf(make, { local: B })];
    const packets = [ECT_0, ECT_1, CE].map((tos) => wire.packetOf({ tos }));
    const sent = sendPackets(a, packets).map(({ bytes }) => wire.editedHeader(bytes, 1, (bytes[1] as number) | CE));
    for (const [i, packet] of sent.entries()) b.put(i, packet);
    b.decapsulate(0, 3, 0);
    expect(hexes([0, 1, 2].map((i) => b.messages.bytes(i)))).toEqual(
      hexes([CE, CE, CE].map((tos) => wire.packetOf({ tos }))),
    );
    expect(b.counters('inbound').anomalies).toBe(0);
  });
});

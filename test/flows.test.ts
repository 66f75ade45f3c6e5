/** Which packets of a call become one super-packet: a bad checksum ends none (V3), limits, flows side by side. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex } from './core.ts';
import { bucket, flowOf } from './flow.ts';
import * as wire from './packet.ts';
import { B, CONTAINER_C, coreOf, MERGE_ALL, packetsIn, receive, send } from './vms.ts';

const { FIN, PSH, ACK, MORE_FRAGMENTS } = wire;

describe.each(cores)('$name', ({ make }) => {
  test('V3 a packet with a bad checksum passes alone, as it came, and the others are merged around it', () => {
    for (const protocol of [6, 17] as const) {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      const packets = wire.burst(9, { protocol });
      // The last byte of the payload differs, or the checksum itself.
      const at = protocol === 6 ? 36 : 26;
      const wrong = [
        wire.edited(packets[4] as Uint8Array, (packets[4]?.length as number) - 1, 0xab),
        wire.edited(packets[4] as Uint8Array, at, 0x12),
      ];
      for (const bad of wrong) {
        expect(wire.verified(bad)).toBe(false);
        const made = receive(core, packets.with(4, bad as Uint8Array));
        expect(packetsIn(made)).toEqual([4, 1, 4]);
        expect(hex(made[1]?.bytes as Uint8Array)).toBe(hex(wire.frameOf(bad)));
      }
    }
  });

  test.each(['first', 'second', 'last'])('V3 the %s of a run has a bad checksum', (which) => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const packets = wire.burst(4);
    const at = { first: 0, second: 1, last: 3 }[which] as number;
    const bad = wire.edited(packets[at] as Uint8Array, 36, 0, 0);
    const made = receive(core, packets.with(at, bad));
    expect(packetsIn(made)).toEqual({ first: [1, 3], second: [1, 1, 2], last: [3, 1] }[which]);
    expect(hex(made[at === 3 ? 1 : at]?.bytes as Uint8Array)).toBe(hex(wire.frameOf(bad)));
  });

  test('V3 every byte that the checksum covers', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const protocol of [6, 17] as const) {
      const [first, second] = wire.burst(2, { protocol }, 9) as [Uint8Array, Uint8Array];
      for (let at = 24; at < second.length; at++) {
        const bad = wire.edited(second, at, (second[at] as number) ^ 0x40);
        expect({ at, made: packetsIn(receive(core, [first, bad])) }).toEqual({ at, made: [1, 1] });
      }
    }
  });

  test('PSH ends a super-packet, and it has it; so does a shorter packet', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const [first, second] = [wire.burst(3, { flags: ACK | PSH }), wire.burst(3, { id: 4, sequence: 301 })];
    const made = receive(core, [...first, ...second]);
    expect(packetsIn(made)).toEqual([3, 3]);
    expect(made.map((message) => message.bytes[abi.VIRTIO_SIZE + 33])).toEqual([ACK | PSH, ACK]);

    const shorter = wire.packetOf({ id: 4, sequence: 301, payload: wire.payloadOf(99) });
    const next = wire.packetOf({ id: 5, sequence: 400, payload: wire.payloadOf(99) });
    expect(packetsIn(receive(core, [...wire.burst(3), shorter, next]))).toEqual([4, 1]);
    // PSH opens nothing, so what follows is on its own; and what follows that can be opened.
    const pushed = wire.burst(1, { flags: ACK | PSH });
    expect(packetsIn(receive(core, [...pushed, ...wire.burst(3, { id: 2, sequence: 101 })]))).toEqual([1, 3]);
  });

  test('a super-packet has at most 64 packets, and 65,535 bytes', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    expect(packetsIn(receive(core, wire.burst(65)))).toEqual([64, 1]);
    expect(packetsIn(receive(core, wire.burst(65, { protocol: 17 })))).toEqual([64, 1]);
    // 40 + 5 * 13,099 = 65,535.
    const exact = [0, 1, 2, 3, 4].map((n) =>
      wire.packetOf({ id: n, sequence: 13099 * n, payload: wire.payloadOf(13099, n) }),
    );
    const made = receive(core, exact);
    expect([packetsIn(made), made[0]?.bytes.length]).toEqual([[5], abi.VIRTIO_SIZE + 65535]);
    const over = [0, 1, 2, 3, 4].map((n) =>
      wire.packetOf({ id: n, sequence: 13100 * n, payload: wire.payloadOf(13100, n) }),
    );
    expect(packetsIn(receive(core, over))).toEqual([4, 1]);
    const oneMore = over.with(4, wire.packetOf({ id: 4, sequence: 52400, payload: wire.payloadOf(13096) }));
    expect(packetsIn(receive(core, oneMore))).toEqual([4, 1]);
    // Here the shorter last one still fits.
    const fits = over.with(4, wire.packetOf({ id: 4, sequence: 52400, payload: wire.payloadOf(13095) }));
    expect(packetsIn(receive(core, fits))).toEqual([5]);
  });

  test('flows are merged side by side; in one bucket they close each other', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const flow = (sourcePort: number) => wire.burst(3, { sourcePort });
    const interleaved = (x: Uint8Array[], y: Uint8Array[]) => x.flatMap((packet, i) => [packet, y[i] as Uint8Array]);
    const bucketOf = (sourcePort: number) => bucket(flow(sourcePort)[0] as Uint8Array);
    const ports = Array.from({ length: 1000 }, (_, i) => 40001 + i);
    const same = ports.find((port) => bucketOf(port) === bucketOf(40000)) as number;
    const other = ports.find((port) => bucketOf(port) !== bucketOf(40000)) as number;
    expect(packetsIn(receive(core, interleaved(flow(40000), flow(other))))).toEqual([3, 3]);
    expect(packetsIn(receive(core, interleaved(flow(40000), flow(same))))).toEqual([1, 1, 1, 1, 1, 1]);
    // A packet that cannot be merged closes the bucket as well; one without a flow does not.
    const pureAck = wire.packetOf({ sourcePort: same, payload: new Uint8Array(0) });
    const [one, two, three] = flow(40000) as [Uint8Array, Uint8Array, Uint8Array];
    expect(packetsIn(receive(core, [one, pureAck, two, three]))).toEqual([1, 1, 2]);
    const fragment = wire.packetOf({ sourcePort: same, fragment: MORE_FRAGMENTS });
    expect(packetsIn(receive(core, [one, fragment, two, three]))).toEqual([3, 1]);
    const icmp = wire.editedHeader(wire.packetOf({ sourcePort: same }), 9, 1);
    expect(packetsIn(receive(core, [one, icmp, two, three]))).toEqual([3, 1]);
    // Packets that are dropped close nothing.
    expect(packetsIn(receive(core, [one, two.subarray(0, 30), two, three]))).toEqual([3]);
    // As many flows as there are buckets.
    const each = new Map(ports.map((port) => [bucketOf(port), port]));
    expect(each.size).toBe(abi.MERGE_BUCKETS);
    const all = [...each.values()].map((port) => wire.burst(2, { sourcePort: port }));
    expect(packetsIn(receive(core, [...all.map((p) => p[0]), ...all.map((p) => p[1])] as Uint8Array[]))).toEqual(
      Array(abi.MERGE_BUCKETS).fill(2),
    );
  });

  test('nothing is kept from one call to the next', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const [one, two] = wire.burst(2) as [Uint8Array, Uint8Array];
    expect([packetsIn(receive(core, [one])), packetsIn(receive(core, [two]))]).toEqual([[1], [1]]);
    // Nor from the other direction: here is a flow of each bucket.
    const flows = new Map(
      Array.from({ length: 1000 }, (_, n) => wire.burst(2, { sourcePort: n })).map((p) => [
        bucket(p[0] as Uint8Array),
        p,
      ]),
    );
    for (const flow of flows.values()) {
      send(core, [
        wire.superFrame({ source: 0x0a102107, destination: CONTAINER_C, payload: wire.payloadOf(300) }, 150),
      ]);
      expect(core.verdict(0)).toBe(abi.FORWARD);
      expect(packetsIn(receive(core, flow))).toEqual([2]);
    }
    // Also if the first call ended early, or dropped all.
    expect([packetsIn(receive(core, [one, one.subarray(0, 9)])), packetsIn(receive(core, [two]))]).toEqual([[1], [1]]);
  });

  test('a packet that is not added closes its flow, and opens it anew if it can', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    const [a, b, c, d] = wire.burst(4) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
    const flagged = (packet: Uint8Array, flags: number) => wire.fixed(wire.edited(packet, 33, flags));
    expect(packetsIn(receive(core, [a, c, d]))).toEqual([1, 2]);
    expect(packetsIn(receive(core, [a, b, flagged(c, ACK | FIN), d]))).toEqual([2, 1, 1]);
    expect(packetsIn(receive(core, [a, flagged(b, ACK | PSH), c, d]))).toEqual([2, 2]);
    expect(packetsIn(receive(core, [a, flagged(d, ACK | PSH), b]))).toEqual([1, 1, 1]);
  });

  test.each<[differ: string, flows: (n: number) => [wire.Parts, wire.Parts]]>([
    ['source', (n) => [{}, { source: 0x0a102002 + n }]],
    ['destination', (n) => [{}, { destination: 0x0a102108 + n }]],
    ['source port', (n) => [{}, { sourcePort: 40001 + n }]],
    ['destination port', (n) => [{}, { destinationPort: 444 + n * 97 }]],
  ])('two flows in one bucket, another %s', (_, flows) => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    let same = 0;
    for (let n = 0; n < 240; n++) {
      const [[one, two], [, other]] = flows(n).map((parts) => wire.burst(2, parts)) as [Uint8Array[], Uint8Array[]];
      if (!one || !two || !other || hex(flowOf(one)) === hex(flowOf(other))) continue;
      const isSame = bucket(one) === bucket(other);
      if (isSame) same++;
      // But for its flow, it would follow.
      expect(packetsIn(receive(core, [one, other, two]))).toEqual(isSame ? [1, 1, 1] : [2, 1]);
    }
    expect(same).toBeGreaterThan(0);
  });

  test('what has no flow passes alone', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const packet of [
      wire.editedHeader(wire.packetOf({}), 9, 1),
      wire.editedHeader(wire.packetOf({}), 2, 0, 23).subarray(0, 23),
    ]) {
      const made = receive(core, [packet, packet]).map(({ bytes }) => hex(bytes));
      expect(made).toEqual(Array(2).fill(hex(wire.frameOf(packet))));
    }
  });
});

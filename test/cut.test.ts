/** Super-packets of the containers are cut as Linux cuts them (V1), and the checksums that they leave open are completed. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex, type Message } from './core.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { superPackets } from './traffic.ts';
import { B, coreOf, expectSums, hexes, innerOf, send, sendPackets, VIRTIO, type Vm, view } from './vms.ts';

const { FIN, PSH, ACK, ECE, CWR } = wire;

describe.each(cores)('$name', ({ make }) => {
  test.each<{ name: string; vm: Vm; outer: number }>([
    { name: 'gre', vm: {}, outer: 24 },
    { name: 'gre with a key', vm: { key: 0xdeadbeef }, outer: 28 },
    { name: 'gre-udp', vm: { encapsulation: 'gre-udp', ports: 8 }, outer: 4 },
    { name: 'gre-udp with a key', vm: { encapsulation: 'gre-udp', key: 7 }, outer: 8 },
    {
      name: 'gre-udp, segments in one message',
      vm: { encapsulation: 'gre-udp', ports: 3, offloads: abi.OFFLOAD_UDP_SEGMENT },
      outer: 4,
    },
  ])('V1 every segment is what the kernel makes (test/packet.ts, which test/net measures), $name', ({ vm, outer }) => {
    const core = coreOf(make, { ...vm, offloads: VIRTIO | (vm.offloads ?? 0) });
    const all: Message[] = [];
    let segments = 0;
    fc.assert(
      fc.property(superPackets, ({ parts, size }) => {
        const packet = wire.packetOf(parts);
        const frame = wire.superFrame(parts, size);
        const made = send(core, [frame]);
        const expected = wire.cut(packet, size);
        expect(hexes(innerOf(made, outer))).toEqual(hexes(expected));
        expect(made.every(({ peer }) => peer === B)).toBe(true);
        // The packet in its slot keeps its bytes.
        const start = core.slot(0) - abi.VIRTIO_SIZE;
        expect(hex(core.bytes.subarray(start, start + frame.length))).toBe(hex(frame));
        all.push(...made);
        segments += expected.length;
      }),
      { numRuns: runs(60) },
    );
    expect(core.counters('outbound').forwarded).toBe(segments);
    expectSums(core, 'outbound', all);
  });

  test('V1 identification, sequence number, flags, lengths and checksums of the segments', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const flags = ACK | PSH | FIN | ECE | CWR;
    const parts = { payload: wire.payloadOf(2501), id: 65534, sequence: 0xfffffc18, flags };
    const segments = innerOf(send(core, [wire.superFrame(parts, 1000)]));
    const field = (read: (v: DataView) => number) => segments.map((segment) => read(view(segment)));
    expect(field((v) => v.getUint16(2))).toEqual([1040, 1040, 541]);
    expect(field((v) => v.getUint16(4))).toEqual([65534, 65535, 0]);
    expect(field((v) => v.getUint32(24))).toEqual([0xfffffc18, 0, 1000]);
    expect(field((v) => v.getUint8(33))).toEqual([ACK | ECE | CWR, ACK | ECE, ACK | PSH | FIN | ECE]);
    expect(segments.map((segment) => wire.sum(segment.subarray(0, 20)))).toEqual([0xffff, 0xffff, 0xffff]);
    expect(segments.every(wire.verified)).toBe(true);
    expect(hex(Buffer.concat(segments.map((segment) => segment.subarray(40))))).toBe(hex(parts.payload));
    expect(core.counters('outbound')).toMatchObject({ received: 3, forwarded: 3, bytes: 2621 });
    expect(core.tunnels.count).toBe(1);
  });

  test('V1 UDP: lengths, and no checksum of zero', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    // A payload of which every segment's sum is that of the first: it is chosen so that the checksum comes out as zero.
    const parts = { protocol: 17 as const, payload: new Uint8Array(1000) };
    const [plain] = wire.cut(wire.packetOf(parts), 500) as [Uint8Array];
    for (const at of [0, 500]) parts.payload.set(plain.subarray(26, 28), at);
    const segments = innerOf(send(core, [wire.superFrame(parts, 500)]));
    expect(segments.map((s) => [view(s).getUint16(4), view(s).getUint16(24), view(s).getUint16(26)])).toEqual([
      [1, 508, 0xffff],
      [2, 508, 0xffff],
    ]);
  });

  test('V1 TCP: a checksum of zero stays, but where there is only one segment', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const checksums = [500, 1000].map((size) => {
      const parts = { payload: new Uint8Array(1000) };
      const [first] = wire.cut(wire.packetOf(parts), size) as [Uint8Array];
      parts.payload.set(first.subarray(36, 38));
      return view(innerOf(send(core, [wire.superFrame(parts, size)]))[0] as Uint8Array).getUint16(36);
    });
    expect(checksums).toEqual([0, 0xffff]);
  });

  test('V1 what the checksum field held does not matter', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    for (const protocol of [6, 17] as const) {
      const frame = wire.superFrame({ protocol, payload: wire.payloadOf(999) }, 200);
      const at = abi.VIRTIO_SIZE + 20 + (protocol === 6 ? 16 : 6);
      const [right, wrong] = [send(core, [frame]), send(core, [wire.edited(frame, at, 0x12, 0x34)])];
      expect(hexes(innerOf(wrong))).toEqual(hexes(innerOf(right)));
    }
  });

  test.each([6, 17] as const)('not cut, protocol %i: the checksum is made where the header asks for it', (protocol) => {
    const core = coreOf(make, { offloads: VIRTIO });
    const offset = protocol === 6 ? 16 : 6;
    for (const ipOptions of [[], [1, 1, 1, 1]]) {
      for (const length of [0, 1, 99, 1000, 60000]) {
        const packet = wire.packetOf({ protocol, ipOptions, payload: wire.payloadOf(length, length) });
        const frame = wire.frameOf(wire.partial(packet), { flags: 1, start: 20 + ipOptions.length, offset });
        expect(hexes(innerOf(send(core, [frame])))).toEqual([hex(packet)]);
        // Without NEEDS_CSUM nothing is touched; bit 2 (DATA_VALID) asks for nothing.
        const bad = wire.partial(packet);
        expect(hexes(innerOf(send(core, [wire.frameOf(bad, { flags: 2 })])))).toEqual([hex(bad)]);
      }
    }
    // Bytes behind the total length do not count.
    const packet = wire.packetOf({ protocol });
    const frame = wire.frameOf(wire.partial(packet), { flags: 1, start: 20, offset });
    expect(hexes(innerOf(send(core, [Uint8Array.from([...frame, 1, 2, 3])])))).toEqual([hex(packet)]);
  });

  test.each([6, 17] as const)('not cut, protocol %i: a checksum of zero becomes 0xffff', (protocol) => {
    const core = coreOf(make, { offloads: VIRTIO });
    const [offset, headers] = protocol === 6 ? [16, 40] : [6, 28];
    const parts = { protocol, payload: new Uint8Array(10) };
    parts.payload.set(wire.packetOf(parts).subarray(20 + offset, 22 + offset));
    const frame = wire.frameOf(wire.partial(wire.packetOf(parts)), { flags: 1, start: 20, offset });
    const [packet] = innerOf(send(core, [frame])) as [Uint8Array];
    expect(view(packet).getUint16(20 + offset)).toBe(0xffff);
    expect([wire.verified(packet), packet.length]).toEqual([true, headers + 10]);
  });

  test('not cut: a checksum anywhere, as that of a packet in the packet', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    for (const [payload, expected] of [
      [[1, 2, 0, 0, 3, 4], '0102fbf90304'],
      [[0xff, 0xff, 0, 0, 0, 0], 'ffffffff0000'],
    ] as const) {
      const frame = wire.frameOf(wire.packetOf({ payload: Uint8Array.from(payload) }), {
        flags: 1,
        start: 40,
        offset: 2,
      });
      expect(innerOf(send(core, [frame])).map((packet) => hex(packet.subarray(40)))).toEqual([expected]);
    }
  });

  test('without the offload no virtio header is expected', () => {
    const core = coreOf(make, {});
    const plain = wire.packetOf({});
    expect(hexes(innerOf(sendPackets(core, [plain])))).toEqual([hex(plain)]);
    send(core, [wire.frameOf(plain)]);
    expect(core.verdict(0)).toBe(abi.DROP_NOT_IPV4);
  });
});

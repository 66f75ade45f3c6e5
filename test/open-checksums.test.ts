/** Packets whose checksum nobody has completed, as they come where no wire was in between. */
import { describe, expect, test } from 'vitest';
import { cores, hex, type Message } from './core.ts';
import * as wire from './packet.ts';
import { timestamps } from './traffic.ts';
import { B, coreOf, hexes, innerOf, MERGE_ALL, packetsIn, receive, send, VIRTIO, view } from './vms.ts';

const { PSH, ACK, DONT_FRAGMENT, MORE_FRAGMENTS } = wire;

describe.each(cores)('$name', ({ make }) => {
  const open = (parts: wire.Parts) => wire.partial(wire.packetOf(parts));
  const NEEDS_CSUM = 1;

  test.each<[name: string, parts: wire.Parts, virtio: wire.Virtio]>([
    ['TCP', {}, { start: 20, offset: 16 }],
    ['TCP, no payload', { payload: new Uint8Array(0) }, { start: 20, offset: 16 }],
    ['TCP, options', { tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] }, { start: 24, offset: 16 }],
    ['TCP, as long as fits everywhere', { payload: wire.payloadOf(512) }, { start: 20, offset: 16 }],
    ['TCP, the reserved flag', { fragment: 0x8000 }, { start: 20, offset: 16 }],
    ['UDP', { protocol: 17 }, { start: 20, offset: 6 }],
    ['UDP, no payload', { protocol: 17, payload: new Uint8Array(0) }, { start: 20, offset: 6 }],
    ['UDP, just the MTU', { protocol: 17, payload: wire.payloadOf(1448) }, { start: 20, offset: 6 }],
  ])('the virtio header says so: %s', (_, parts, virtio) => {
    const core = coreOf(make, { local: B, offloads: VIRTIO, mtu: 1476 });
    const made = receive(core, [open(parts)]);
    expect(hexes(made.map(({ bytes }) => bytes))).toEqual([
      hex(wire.frameOf(open(parts), { flags: NEEDS_CSUM, ...virtio })),
    ]);
    expect(packetsIn(made)).toEqual([1]);
    // A device that takes no virtio header takes no open checksum either.
    const plainCore = coreOf(make, { local: B });
    expect(hexes(receive(plainCore, [open(parts)]).map(({ bytes }) => bytes))).toEqual([hex(wire.packetOf(parts))]);
  });

  /** The pseudo header's sum, where `at` says, for the total length that it is given; what is behind that stays. */
  const forged = (packet: Uint8Array, at: number, total = packet.length) => {
    const told = wire.editedHeader(packet, 2, total >> 8, total & 255);
    const sum = wire.pseudoSum(told.subarray(0, total));
    return wire.edited(told, at, sum >> 8, sum & 255);
  };
  const [tcp, udp] = [wire.packetOf({}), wire.packetOf({ protocol: 17 })];

  test.each<[name: string, packet: Uint8Array]>([
    ['another sum', wire.edited(open({}), 37, (open({})[37] as number) ^ 1)],
    [
      'its complement',
      wire.edited(
        open({}),
        36,
        ...open({})
          .subarray(36, 38)
          .map((byte) => ~byte),
      ),
    ],
    ['a first fragment', open({ fragment: MORE_FRAGMENTS })],
    ['a last fragment', open({ fragment: 1 })],
    ['a last fragment of UDP', open({ protocol: 17, fragment: DONT_FRAGMENT | 1 })],
    ['another protocol', forged(wire.editedHeader(udp, 9, 136), 26)],
    ['another protocol, as if it were TCP', forged(wire.editedHeader(tcp, 9, 33), 36)],
    ['a TCP header of 4 words', forged(wire.edited(tcp, 32, 0x40), 36)],
    ['a TCP header beyond the end', forged(tcp, 36, 39)],
    ['TCP options beyond the end', forged(wire.edited(tcp, 32, 0x60), 36, 43)],
    ['a UDP header beyond the end', forged(udp, 26, 27)],
    ['the field of UDP in TCP', forged(tcp, 26)],
    ['UDP without a checksum', wire.edited(udp, 26, 0, 0)],
  ])('not open: %s', (_, packet) => {
    const inner = packet.subarray(0, view(packet).getUint16(2));
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    expect(hexes(receive(core, [packet]).map(({ bytes }) => bytes))).toEqual([hex(wire.frameOf(inner))]);
    const plainCore = coreOf(make, { local: B });
    expect(hexes(receive(plainCore, [packet]).map(({ bytes }) => bytes))).toEqual([hex(inner)]);
  });

  test.each<[name: string, packet: Uint8Array, offset: number]>([
    ['TCP', forged(tcp, 36, 40), 16],
    ['TCP options', forged(wire.edited(tcp, 32, 0x60), 36, 44), 16],
    ['UDP', forged(udp, 26, 28), 6],
  ])('open: headers that just end within the total length: %s', (_, packet, offset) => {
    const inner = packet.subarray(0, view(packet).getUint16(2));
    const [{ bytes }] = receive(coreOf(make, { local: B, offloads: MERGE_ALL }), [packet]) as [Message];
    expect(hex(bytes)).toBe(hex(wire.frameOf(inner, { flags: NEEDS_CSUM, start: 20, offset })));
    const [completed] = receive(coreOf(make, { local: B }), [packet]) as [Message];
    expect(hex(completed.bytes)).toBe(hex(wire.fixed(inner.slice())));
  });

  test.each([6, 17] as const)('completed, a checksum of zero is 0xffff: protocol %i', (protocol) => {
    const field = protocol === 6 ? 36 : 26;
    const parts = { protocol, payload: new Uint8Array(100) };
    parts.payload.set(wire.packetOf(parts).subarray(field, field + 2));
    expect(view(wire.packetOf(parts)).getUint16(field)).toBe(protocol === 6 ? 0 : 0xffff);
    const [{ bytes }] = receive(coreOf(make, { local: B }), [open(parts)]) as [Message];
    expect(view(bytes).getUint16(field)).toBe(0xffff);
  });

  test('a right checksum that happens to be that sum comes out the same', () => {
    for (const protocol of [6, 17] as const) {
      const parts = { protocol, payload: new Uint8Array(500) };
      const field = protocol === 6 ? 36 : 26;
      const [right, pseudo] = [wire.packetOf(parts), open(parts)].map((packet) => view(packet).getUint16(field));
      // The sum of all but this word is ~right; with it, it is to be ~pseudo.
      view(parts.payload).setUint16(0, wire.sum(Uint8Array.of(), (right as number) + (~(pseudo as number) & 0xffff)));
      const packet = wire.packetOf(parts);
      expect(hex(open(parts))).toBe(hex(packet));
      const [a, b] = [coreOf(make, { offloads: VIRTIO }), coreOf(make, { local: B, offloads: MERGE_ALL })];
      expect(
        hexes(
          innerOf(
            send(
              a,
              receive(b, [packet]).map(({ bytes }) => bytes),
            ),
          ),
        ),
      ).toEqual([hex(packet)]);
      expect(hexes(receive(coreOf(make, { local: B }), [packet]).map(({ bytes }) => bytes))).toEqual([hex(packet)]);
      // Nor is it merged, though it might.
      const before = wire.packetOf({ ...parts, sequence: 0xffffffff - 498, payload: wire.payloadOf(500) });
      const after = wire.packetOf({ ...parts, sequence: 501, payload: wire.payloadOf(500) });
      expect(packetsIn(receive(b, [before, packet]))).toEqual([1, 1]);
      expect(packetsIn(receive(b, [packet, after]))).toEqual([1, 1]);
      expect(packetsIn(receive(b, [before, packet, after]))).toEqual([1, 1, 1]);
    }
  });

  test('it is not merged, and closes its flow', () => {
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const protocol of [6, 17] as const) {
      const packets = wire.burst(6, { protocol });
      const made = receive(core, packets.with(2, wire.partial(packets[2] as Uint8Array)));
      expect(packetsIn(made)).toEqual([2, 1, 3]);
      expect(made[1]?.bytes[0]).toBe(NEEDS_CSUM);
    }
  });

  test('all that was open is on the wire as it was meant, when it is sent on', () => {
    const a = coreOf(make, { offloads: VIRTIO });
    const b = coreOf(make, { local: B, offloads: MERGE_ALL });
    for (const protocol of [6, 17] as const) {
      for (const length of [0, 1, 100, 512, 513, 9000]) {
        const parts = { protocol, payload: wire.payloadOf(length), flags: ACK | PSH };
        const sent = innerOf(
          send(
            a,
            receive(b, [open(parts)]).map(({ bytes }) => bytes),
          ),
        );
        const whole = protocol === 17 || length <= 512;
        expect(hexes(sent)).toEqual(hexes(whole ? [wire.packetOf(parts)] : wire.cut(wire.packetOf(parts), 512)));
      }
    }
  });
});

/** TCP's maximum segment size is lowered to what fits the tunnel, where that is asked for. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import { cores, hex, type Message } from './core.ts';
import * as wire from './packet.ts';
import { B, coreOf, hexes, receive, send, sendPackets, VIRTIO } from './vms.ts';

const { ACK, ECE, CWR, SYN, FIN, RST, DONT_FRAGMENT, MORE_FRAGMENTS } = wire;

const mss = (size: number) => [2, 4, size >> 8, size & 255];
const none = new Uint8Array(0);

/** A SYN with these options; `parts` change the rest. */
const syn = (tcpOptions: readonly number[], parts: wire.Parts = {}) =>
  wire.packetOf({ flags: SYN, payload: none, tcpOptions, ...parts });

describe.each(cores)('$name', ({ make }) => {
  /** What of a packet becomes on each of its ways: with and without virtio headers, out and in. */
  const WAYS: [name: string, pass: (options: Partial<CoreConfig>, packet: Uint8Array) => Uint8Array][] = [
    ['outbound', (o, packet) => outbound(sendPackets(coreOf(make, { clampMss: true, ...o }), [packet]))],
    [
      'outbound, with virtio header',
      (o, packet) => outbound(send(coreOf(make, { clampMss: true, offloads: VIRTIO, ...o }), [wire.frameOf(packet)])),
    ],
    ['inbound', (o, packet) => only(receive(coreOf(make, { clampMss: true, local: B, ...o }), [packet]))],
    [
      'inbound, with virtio header',
      (o, packet) =>
        only(receive(coreOf(make, { clampMss: true, local: B, offloads: VIRTIO, ...o }), [packet])).subarray(10),
    ],
  ];
  const only = ([message]: Message[]) => (message as Message).bytes;
  const outbound = (made: Message[]) => only(made).subarray(24);

  describe.each(WAYS)('%s', (_, pass) => {
    test.each<[name: string, before: Uint8Array, after: Uint8Array]>([
      ['1460', syn(mss(1460)), syn(mss(1436))],
      ['65535', syn(mss(65535)), syn(mss(1436))],
      ['one too many', syn(mss(1437)), syn(mss(1436))],
      ['SYN and ACK', syn(mss(1460), { flags: SYN | ACK }), syn(mss(1436), { flags: SYN | ACK })],
      ['SYN and more', syn(mss(1460), { flags: SYN | ECE | CWR }), syn(mss(1436), { flags: SYN | ECE | CWR })],
      [
        'with payload',
        syn(mss(1460), { payload: wire.payloadOf(33) }),
        syn(mss(1436), { payload: wire.payloadOf(33) }),
      ],
      ['IP options', syn(mss(1460), { ipOptions: [1, 1, 1, 0] }), syn(mss(1436), { ipOptions: [1, 1, 1, 0] })],
      ['no DF', syn(mss(1460), { fragment: 0 }), syn(mss(1436), { fragment: 0 })],
      [
        'behind others',
        syn([4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, ...mss(1460), 1, 3, 3, 7]),
        syn([4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, ...mss(1436), 1, 3, 3, 7]),
      ],
      ['at an odd place', syn([1, ...mss(0x1234), 0]), syn([1, ...mss(1436), 0])],
      ['at an odd place, 65535', syn([1, ...mss(65535), 0]), syn([1, ...mss(1436), 0])],
      ['the last 4 of 40 bytes', syn([...Array(36).fill(1), ...mss(1460)]), syn([...Array(36).fill(1), ...mss(1436)])],
      ['twice', syn([...mss(1460), ...mss(9000)]), syn([...mss(1436), ...mss(1436)])],
    ])('M7 lowered: %s', (_, before, after) => {
      expect(hex(pass({ mtu: 1476 }, before))).toBe(hex(after));
      // Where it is not asked for, nothing is.
      expect(hex(pass({ mtu: 1476, clampMss: false }, before))).toBe(hex(before));
    });

    test.each<[name: string, packet: Uint8Array]>([
      ['just as many', syn(mss(1436))],
      ['fewer', syn(mss(536))],
      ['0', syn(mss(0))],
      ['no SYN', syn(mss(1460), { flags: ACK })],
      ['FIN and RST', syn(mss(1460), { flags: FIN | RST })],
      ['no options', syn([])],
      [
        'UDP',
        wire.packetOf({
          protocol: 17,
          payload: Uint8Array.from([0, 0, 0, 0, 0x60, SYN, 0, 0, 0, 0, 0, 0, ...mss(1460)]),
        }),
      ],
      ['a first fragment', syn(mss(1460), { fragment: MORE_FRAGMENTS })],
      ['a last fragment', syn(mss(1460), { fragment: 1 })],
      ['a last fragment with DF', syn(mss(1460), { fragment: DONT_FRAGMENT | 1 })],
      ['behind the end of the list', syn([0, 1, 1, 1, ...mss(1460)])],
      ['in the payload', syn([], { payload: Uint8Array.from(mss(1460)) })],
      ['another kind of that length', syn([253, 4, 0xff, 0xff])],
      ['another length of that kind', syn([2, 3, 0xff, 2, 5, 0xff, 0xff, 0xff])],
      ['behind a length of 0', syn([9, 0, 1, 1, ...mss(1460)])],
      ['behind a length of 1', syn([9, 1, 1, 1, ...mss(1460)])],
      ['behind a length beyond the end', syn([9, 9, 1, 1, ...mss(1460)])],
      ['within an option', syn([9, 8, 0, 0, ...mss(1460)])],
      ['half beyond the end of the header', syn([1, 2, 4, 0xff], { payload: Uint8Array.of(0xff) })],
      ['a kind as last byte', syn([1, 1, 1, 2], { payload: Uint8Array.from([4, 0xff, 0xff]) })],
      ['a TCP header beyond the end', wire.fixed(wire.edited(syn(mss(1460)), 32, 0x70))],
      ['a TCP header of 4 words', wire.fixed(wire.edited(syn(mss(1460)), 32, 0x40))],
      ['half a TCP header', wire.editedHeader(syn(mss(1460)), 2, 0, 39).subarray(0, 39)],
    ])('M7 not touched: %s', (_, packet) => {
      expect(hex(pass({ mtu: 1476 }, packet))).toBe(hex(packet));
    });

    test('M7 the number follows the MTU', () => {
      for (const mtu of [68, 576, 1472, 9000, 65000]) {
        expect(hex(pass({ mtu }, syn(mss(65535))))).toBe(hex(syn(mss(mtu - 40))));
      }
    });

    test('M7 a checksum that was wrong stays wrong', () => {
      const bad = wire.edited(syn(mss(1460)), 36, 0x12, 0x34);
      const packet = pass({ mtu: 1476 }, bad);
      expect([hex(packet.subarray(40)), wire.verified(packet)]).toEqual([hex(Uint8Array.from(mss(1436))), false]);
      const right = wire.sum(syn(mss(1436)).subarray(36, 38), 0x1234);
      // As far off as before.
      expect(wire.sum(packet.subarray(36, 38), wire.sum(syn(mss(1460)).subarray(36, 38)))).toBe(right);
    });

    test('M7 the checksum is right for every number and place', () => {
      for (let size = 1437; size < 65536; size += 3001) {
        for (const at of [0, 1, 2, 3]) {
          const options = [...Array<number>(at).fill(1), ...mss(size)];
          const packet = pass({ mtu: 1476 }, syn(options));
          if (wire.verified(packet) && hex(packet.subarray(40 + at, 44 + at)) === '0204059c') continue;
          expect.fail(`${size} at ${at}: ${hex(packet)}`);
        }
      }
    });
  });

  test('M7 where the checksum is open, it stays so', () => {
    for (const options of [mss(1460), [1, ...mss(1460)]]) {
      const clamped = syn(options.map((byte, i) => (i === options.length - 1 ? 1436 & 255 : byte)));
      const open = wire.partial(syn(options));
      // Outbound the header says so, and it is completed.
      const core = coreOf(make, { clampMss: true, mtu: 1476, offloads: VIRTIO });
      const frame = wire.frameOf(open, { flags: 1, start: 20, offset: 16 });
      expect(hex(outbound(send(core, [frame])))).toBe(hex(clamped));
      // Inbound the device is told, or it is completed.
      const b = coreOf(make, { clampMss: true, mtu: 1476, local: B, offloads: VIRTIO });
      expect(hex(only(receive(b, [open])))).toBe(
        hex(wire.frameOf(wire.partial(clamped), { flags: 1, start: 20, offset: 16 })),
      );
      const plain = coreOf(make, { clampMss: true, mtu: 1476, local: B });
      expect(hex(only(receive(plain, [open])))).toBe(hex(clamped));
    }
  });

  test('M7 super-packets, whole or cut, and fragments, too', () => {
    const parts = { flags: SYN | ACK, payload: wire.payloadOf(1000) };
    const before = { ...parts, tcpOptions: mss(9000) };
    const lowered = (mtu: number) => ({ ...parts, tcpOptions: mss(mtu - 40) });
    const cut = send(coreOf(make, { clampMss: true, mtu: 600, offloads: VIRTIO }), [wire.superFrame(before, 500)]);
    expect(hexes(cut.map(({ bytes }) => bytes.subarray(24)))).toEqual(
      hexes(wire.cut(wire.packetOf(lowered(600)), 500)),
    );
    const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
    const [whole] = send(coreOf(make, { clampMss: true, mtu: 600, offloads }), [wire.superFrame(before, 500)]);
    expect(hex((whole as Message).bytes.subarray(34))).toBe(hex(wire.superFrame(lowered(600), 500).subarray(10)));
    const packet = wire.packetOf({ ...before, fragment: 0 });
    const fragments = sendPackets(coreOf(make, { clampMss: true, mtu: 576 }), [packet]);
    expect(hexes(fragments.map(({ bytes }) => bytes.subarray(24)))).toEqual(
      hexes(wire.fragmented(wire.packetOf({ ...lowered(576), fragment: 0 }), 576)),
    );
  });

  test('M7 what is dropped is not touched', () => {
    const core = coreOf(make, { clampMss: true, mtu: 576 });
    for (const packet of [
      syn(mss(1460), { destination: 0x0b000001 }),
      syn(mss(1460), { payload: wire.payloadOf(600) }),
    ]) {
      expect(sendPackets(core, [packet])).toEqual([]);
      expect(hex(slotOf(core, packet.length))).toBe(hex(packet));
    }
  });
});

const slotOf = (core: PacketCore, length: number) => core.bytes.subarray(core.slot(0), core.slot(0) + length);

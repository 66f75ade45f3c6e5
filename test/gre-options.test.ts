/** What may be in the outer headers: checksum, key and sequence number in all combinations (RFC 2784, RFC 2890), TTL, identification. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import { cores, hex, type Message, messages } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, CONTAINER_C, coreOf, expectSums, hexes, send, sendPackets, VIRTIO, view } from './vms.ts';

type Options = Pick<CoreConfig, 'key' | 'greChecksum' | 'greSequence'>;

const KEY = 0xfedcba98;
const EIGHT = [0, 1, 2, 3, 4, 5, 6, 7].map((bits): [name: string, options: Options] => {
  const has = { greChecksum: (bits & 1) !== 0, key: (bits & 2) !== 0, greSequence: (bits & 4) !== 0 };
  const name = Object.entries(has)
    .filter(([, there]) => there)
    .map(([field]) => field)
    .join(', ');
  return [name || 'nothing', { ...has, key: has.key ? KEY : undefined }];
});
const FORMATS = ['gre', 'gre-udp'] as const;

/** The GRE header with all that is configured, packet `n` of its tunnel. */
const headerOf = ({ key, greChecksum, greSequence }: Options, inner: Uint8Array, n = 0) =>
  wire.greHeader({ key, checksum: greChecksum ?? false, sequence: greSequence ? n : undefined }, inner);

/** Where the tunnel to `vm` is in memory. */
function tunnelOf(core: PacketCore, vm: number): number {
  const keys = new Uint32Array(core.memory, abi.TUNNEL_KEYS, abi.TUNNEL_CAPACITY);
  return abi.TUNNELS + keys.indexOf(vm) * abi.TUNNEL_SIZE;
}

/** A packet from A comes to B: the inner packet behind this GRE header. */
function arrive(core: PacketCore, format: (typeof FORMATS)[number], gre: ArrayLike<number>, now = 0): number {
  if (format === 'gre') {
    core.put(0, wire.ipv4Around({ source: A, destination: B }, gre));
  } else {
    core.bytes.set(gre as number[], core.slot(0));
    core.describeDatagrams(0, gre.length, gre.length, A);
  }
  core.decapsulate(0, 1, now);
  return core.verdict(0);
}

describe.each(cores)('$name', ({ make }) => {
  describe.each(FORMATS)('%s', (encapsulation) => {
    const around = (destination: number, bytes: number[]) =>
      encapsulation === 'gre' ? wire.ipv4Around({ source: A, destination }, bytes) : Uint8Array.from(bytes);

    test.each(EIGHT)('G1 a header has what is configured, and nothing else: %s', (_, options) => {
      const core = coreOf(make, { encapsulation, ...options });
      const packets = [0, 1, 99, 100, 1436].map((n) => wire.packetOf({ payload: wire.payloadOf(n, n) }));
      const made = sendPackets(core, packets);
      expect(hexes(made.map(({ bytes }) => bytes))).toEqual(
        packets.map((packet, n) => hex(around(B, [...headerOf(options, packet, n), ...packet]))),
      );
      expectSums(core, 'outbound', made);
    });

    test.each(EIGHT)('G1 so has the header of every segment of a super-packet: %s', (_, options) => {
      const core = coreOf(make, { encapsulation, ...options, offloads: VIRTIO });
      for (const [protocol, length] of [
        [6, 2500],
        [17, 2499],
      ] as const) {
        const parts = { protocol, payload: wire.payloadOf(length) };
        const first = Number(core.counters('outbound').forwarded);
        const made = send(core, [wire.superFrame(parts, 1000)]);
        expect(hexes(made.map(({ bytes }) => bytes))).toEqual(
          wire
            .cut(wire.packetOf(parts), 1000)
            .map((packet, n) => hex(around(B, [...headerOf(options, packet, first + n), ...packet]))),
        );
      }
    });

    test.each(EIGHT)('G6 what one VM sends, the other takes: %s', (_, options) => {
      const b = coreOf(make, { encapsulation, ...options, local: B });
      for (let n = 0; n < 3; n++) {
        const packet = wire.packetOf({ payload: wire.payloadOf(n * 7, n) });
        expect(arrive(b, encapsulation, [...headerOf(options, packet, n), ...packet])).toBe(abi.FORWARD);
        expect(hex(b.messages.bytes(0))).toBe(hex(packet));
      }
    });

    test.each(EIGHT)('G6 cut off at every byte it is dropped: %s', (_, options) => {
      const b = coreOf(make, { encapsulation, ...options, local: B });
      const packet = wire.packetOf({ payload: wire.payloadOf(9) });
      const header = headerOf({ ...options, greChecksum: false }, packet);
      const whole = [...header, ...packet];
      for (let length = 0; length < whole.length; length++) {
        expect([length, arrive(b, encapsulation, whole.slice(0, length))]).toEqual([length, abi.DROP_TRUNCATED]);
      }
      expect([arrive(b, encapsulation, whole), b.tunnels.count]).toEqual([abi.FORWARD, 1]);
      // With a checksum, what is cut off is noticed before, once the header is there.
      const summed = [...headerOf({ ...options, greChecksum: true }, packet, 9), ...packet];
      for (let length = 0; length < summed.length; length++) {
        const expected = length < header.length + 4 ? abi.DROP_TRUNCATED : abi.DROP_GRE_CHECKSUM;
        expect([length, arrive(b, encapsulation, summed.slice(0, length))]).toEqual([length, expected]);
      }
      expect(arrive(b, encapsulation, summed)).toBe(abi.FORWARD);
    });

    test.each([false, true])(
      'G4 a checksum is verified where it is there, whether we send one (%s) or not',
      (greChecksum) => {
        const b = coreOf(make, { encapsulation, greChecksum, local: B });
        const packet = wire.packetOf({ payload: wire.payloadOf(31) });
        const summed = Uint8Array.from([...headerOf({ greChecksum: true }, packet), ...packet]);
        expect(arrive(b, encapsulation, [...headerOf({}, packet), ...packet])).toBe(abi.FORWARD);
        expect(arrive(b, encapsulation, summed)).toBe(abi.FORWARD);
        for (let at = 4; at < summed.length; at++) {
          const bad = wire.edited(summed, at, (summed[at] as number) ^ 0x10);
          expect([at, arrive(b, encapsulation, bad)]).toEqual([at, abi.DROP_GRE_CHECKSUM]);
        }
        // Reserved1 is ignored, but summed.
        const reserved = wire.edited(summed, 4, 0, 0, 0x12, 0x34);
        view(reserved).setUint16(4, ~wire.sum(reserved) & 0xffff);
        expect(arrive(b, encapsulation, reserved)).toBe(abi.FORWARD);
      },
    );

    test.each(EIGHT)('G7 a key that is missing, different or unexpected: %s', (_, options) => {
      const b = coreOf(make, { encapsulation, ...options, local: B });
      const packet = wire.packetOf({});
      const verdict = (key: number | undefined) =>
        arrive(b, encapsulation, [...headerOf({ ...options, key }, packet), ...packet]);
      for (const key of [undefined, KEY, 0, KEY ^ 1, KEY ^ 0x80000000]) {
        expect([key, verdict(key)]).toEqual([key, key === options.key ? abi.FORWARD : abi.DROP_GRE_KEY]);
      }
    });

    test('G8 the first sequence number is 0, for each tunnel, and they wrap', () => {
      const core = coreOf(make, { encapsulation, greSequence: true });
      const [toB, toC] = [wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })];
      const numbers = (packets: Uint8Array[]) =>
        sendPackets(core, packets).map(({ bytes }) => view(bytes).getUint32(encapsulation === 'gre' ? 24 : 4));
      expect(numbers([toB, toB, toC, toB, toC])).toEqual([0, 1, 0, 2, 1]);
      new DataView(core.memory).setUint32(tunnelOf(core, B) + abi.TUNNEL_SEQUENCE_OUT, 0xfffffffe, true);
      expect(numbers([toB, toB, toB, toC])).toEqual([0xfffffffe, 0xffffffff, 0, 2]);
      // What is dropped takes none, nor does what is not handled yet.
      core.put(0, wire.edited(toB, 10, 0));
      core.encapsulate(0, 1, 0);
      expect(numbers([toB])).toEqual([1]);
      // A tunnel that is closed begins anew.
      core.expire(1);
      expect(numbers([toB, toC])).toEqual([0, 0]);
    });

    const S = abi.DROP_GRE_SEQUENCE;
    test.each<[name: string, numbers: number[], verdicts: number[]]>([
      ['in order', [0, 1, 2, 3], [0, 0, 0, 0]],
      ['gaps are losses', [0, 5, 6, 100], [0, 0, 0, 0]],
      ['the same again', [0, 1, 1, 2], [0, 0, S, 0]],
      ['one that was overtaken', [0, 2, 1, 3], [0, 0, S, 0]],
      ['it begins anywhere', [77, 76, 78], [0, S, 0]],
      ['0 begins anew', [500, 0, 1, 500, 2], [0, 0, 0, 0, S]],
      ['0 again', [0, 0, 0], [0, 0, 0]],
      ['numbers wrap', [0xfffffffe, 0xffffffff, 0, 1], [0, 0, 0, 0]],
      ['numbers wrap with a gap', [0xfffffff0, 5, 4], [0, 0, S]],
      ['behind the last number, anything is right', [0xffffffff, 0x80000000, 0x7fffffff], [0, 0, S]],
      ['half of all numbers are ahead', [1, 0x80000001, 0x80000001], [0, 0, S]],
      ['the other half are behind', [1, 0x80000002, 0x80000001, 2], [0, S, 0, S]],
      ['half of all numbers, from above', [0x80000000, 0x80000000, 0x80000001, 2, 1], [0, S, 0, S, 0]],
    ])('G8 out of order is dropped: %s', (_, numbers, verdicts) => {
      for (const options of [{}, { key: KEY }, { greChecksum: true, key: KEY }]) {
        const b = coreOf(make, { encapsulation, ...options, greSequence: true, local: B });
        const packet = wire.packetOf({});
        const got = numbers.map((n) =>
          arrive(b, encapsulation, [...headerOf({ ...options, greSequence: true }, packet, n), ...packet]),
        );
        expect(got).toEqual(verdicts);
        const { received, forwarded, drops } = b.counters('inbound');
        const dropped = verdicts.filter((verdict) => verdict === S).length;
        expect([received, forwarded, drops[-S]]).toEqual([numbers.length, numbers.length - dropped, dropped]);
      }
    });

    test('G8 a number that is missing is out of order; each tunnel has its own; where they are off, they are ignored', () => {
      const packet = wire.packetOf({});
      const numbered = (n: number) => [...headerOf({ greSequence: true }, packet, n), ...packet];
      const b = coreOf(make, { encapsulation, greSequence: true, local: B });
      expect(arrive(b, encapsulation, [...headerOf({}, packet), ...packet], 5)).toBe(S);
      // The tunnel is there: it was its VM that sent it.
      expect([b.tunnels.count, b.tunnels.opened()]).toEqual([1, [A]]);
      expect([9, 8].map((n) => arrive(b, encapsulation, numbered(n)))).toEqual([0, S]);
      expect(view(b.bytes).getUint32(tunnelOf(b, A) + abi.TUNNEL_SEQUENCE_IN, true)).toBe(10);
      const off = coreOf(make, { encapsulation, local: B });
      expect([9, 8, 8].map((n) => arrive(off, encapsulation, numbered(n)))).toEqual([0, 0, 0]);
    });

    test('G8 what is dropped before leaves the numbers alone', () => {
      const packet = wire.packetOf({});
      const b = coreOf(make, { encapsulation, greSequence: true, local: B });
      const spoofed = wire.packetOf({ source: CONTAINER_C });
      expect(arrive(b, encapsulation, [...headerOf({ greSequence: true }, spoofed, 100), ...spoofed])).toBe(
        abi.DROP_SPOOFED_SOURCE,
      );
      expect(arrive(b, encapsulation, [...headerOf({ greSequence: true }, packet, 3), ...packet])).toBe(abi.FORWARD);
    });

    test('R1 GRE in GRE is not carried, neither way', () => {
      const nested = wire.packetAround({ protocol: 47 }, [0, 0, 8, 0, ...wire.packetOf({})]);
      const a = coreOf(make, { encapsulation, offloads: VIRTIO });
      // Before what its virtio header says.
      expect([send(a, [wire.frameOf(nested, { type: 9 })]), a.verdict(0)]).toEqual([[], abi.DROP_NESTED_GRE]);
      expect([a.messages.replies(), a.tunnels.count]).toEqual([[], 0]);
      const b = coreOf(make, { encapsulation, local: B });
      expect([arrive(b, encapsulation, [0, 0, 8, 0, ...nested]), b.tunnels.count]).toEqual([abi.DROP_NESTED_GRE, 0]);
    });
  });

  test('G1 with a checksum or sequence numbers no super-packet stays whole', () => {
    const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
    const frame = wire.superFrame({ payload: wire.payloadOf(2500) }, 1000);
    for (const [options, expected] of [
      [{}, [true]],
      [{ key: 1 }, [true]],
      [{ greChecksum: true }, [false, false, false]],
      [{ greSequence: true }, [false, false, false]],
    ] as const) {
      expect(send(coreOf(make, { ...options, offloads }), [frame]).map(({ whole }) => whole)).toEqual(expected);
    }
  });

  test.each<[ttl: number | 'inherit' | undefined, inner: number, expected: number]>([
    [undefined, 9, 64],
    [7, 9, 7],
    [257, 9, 1],
    ['inherit', 9, 9],
    ['inherit', 255, 255],
    ['inherit', 1, 1],
  ])('O1 the outer TTL, configured as %s, of an inner one of %i', (ttl, inner, expected) => {
    const options = ttl === undefined ? {} : { ttl };
    const packet = wire.packetOf({ ttl: inner });
    const [gre] = sendPackets(coreOf(make, options), [packet]) as [Message];
    expect(hex(gre.bytes)).toBe(
      hex(wire.ipv4Around({ source: A, destination: B, ttl: expected }, [0, 0, 8, 0, ...packet])),
    );
    const udp = coreOf(make, { ...options, encapsulation: 'gre-udp' });
    const [datagram] = sendPackets(udp, [packet]) as [Message];
    expect(udp.messages.ttl(datagram.index)).toBe(ttl === 'inherit' ? expected : undefined);
    expect(view(udp.bytes).getInt32(abi.CONTROLS + datagram.index * abi.CONTROL_SIZE + 64, true)).toBe(expected);
    // Segments, too; of one that stays whole the kernel takes one.
    const parts = { ttl: inner, payload: wire.payloadOf(300) };
    const cut = send(coreOf(make, { ...options, offloads: VIRTIO }), [wire.superFrame(parts, 150)]);
    expect(cut.map(({ bytes }) => bytes[8])).toEqual([expected, expected]);
    const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
    const [whole] = send(coreOf(make, { ...options, offloads }), [wire.superFrame(parts, 150)]) as [Message];
    expect(whole.bytes[abi.VIRTIO_SIZE + 8]).toBe(Math.min(expected + 1, 255));
  });

  test('O1 GRE-in-UDP: datagrams of one message have one TTL and one TOS', () => {
    const offloads = abi.OFFLOAD_UDP_SEGMENT;
    const packets = [
      [1, 0],
      [1, 0],
      [2, 0],
      [2, 2],
      [2, 2],
      [2, 0x54],
      [2, 0xa8],
    ].map(([ttl, tos]) => wire.packetOf({ ttl: ttl as number, tos: tos as number }));
    const group = (options: Partial<CoreConfig>) => {
      const core = coreOf(make, { ...options, encapsulation: 'gre-udp', offloads });
      return sendPackets(core, packets).map(({ index, content }) => [
        content.packets,
        view(core.bytes).getUint32(abi.MESSAGE_TABLE + index * abi.MESSAGE_SIZE + abi.MESSAGE_CONTROL_LENGTH, true),
        core.messages.segment(index),
        core.messages.ttl(index),
        core.messages.tos(index),
      ]);
    };
    expect(group({ ecn: 'compatibility' })).toEqual([[7, 24, 144, undefined, undefined]]);
    expect(group({})).toEqual([
      [3, 24, 144, undefined, undefined],
      [2, 48, 144, undefined, 2],
      [2, 24, 144, undefined, undefined],
    ]);
    expect(group({ dscp: 'uniform' })).toEqual([
      [3, 24, 144, undefined, undefined],
      [2, 48, 144, undefined, 2],
      [1, 48, 144, undefined, 0x54],
      [1, 48, 144, undefined, 0xa8],
    ]);
    expect(group({ ttl: 'inherit', ecn: 'compatibility' })).toEqual([
      [2, 72, 144, 1, 0],
      [5, 72, 144, 2, 0],
    ]);
  });

  test('O1 what one message of GRE-in-UDP is told, the next one that is alone is not', () => {
    const core = coreOf(make, { encapsulation: 'gre-udp', offloads: abi.OFFLOAD_UDP_SEGMENT });
    const control = () => hex(core.bytes.subarray(abi.CONTROLS, abi.CONTROLS + abi.CONTROL_SIZE));
    sendPackets(core, [wire.packetOf({ tos: 1 }), wire.packetOf({ tos: 1 })]);
    expect([core.messages.tos(0), core.messages.segment(0)]).toEqual([1, 144]);
    sendPackets(core, [wire.packetOf({})]);
    expect([core.messages.tos(0), core.messages.segment(0)]).toEqual([undefined, 144]);
    expect([control().slice(32, 36), control().slice(80, 88)]).toEqual(['0000', '00000000']);
  });

  describe('O2', () => {
    const idAndFlags = ({ bytes, whole }: Message) => {
      const at = whole ? abi.VIRTIO_SIZE : 0;
      return [view(bytes).getUint16(at + 4), view(bytes).getUint16(at + 6)];
    };

    test('M4 DF is set in outer headers whatever the inner ones say, unless packets may be fragmented', () => {
      for (const [options, flags] of [
        [{}, wire.DONT_FRAGMENT],
        [{ pathMtuDiscovery: false }, 0],
      ] as const) {
        const core = coreOf(make, { ...options, mtu: 576, offloads: VIRTIO });
        const made = send(core, [
          wire.frameOf(wire.packetOf({})),
          wire.frameOf(wire.packetOf({ fragment: 0 })),
          wire.frameOf(wire.packetOf({ fragment: 0, payload: wire.payloadOf(1000) })),
          wire.superFrame({ payload: wire.payloadOf(1000) }, 500),
        ]);
        expect(made.map((message) => idAndFlags(message)[1])).toEqual(Array(6).fill(flags));
      }
      // That the underlay may fragment does not raise the MTU.
      const core = coreOf(make, { pathMtuDiscovery: false, mtu: 576 });
      sendPackets(core, [wire.packetOf({ payload: wire.payloadOf(1000) })]);
      expect(core.verdict(0)).toBe(abi.DROP_TOO_BIG);
    });

    test('O2 with DF the identification is 0 and needs no counter', () => {
      const core = coreOf(make, {});
      const made = sendPackets(core, [wire.packetOf({}), wire.packetOf({ fragment: 0 })]);
      expect(made.map(idAndFlags)).toEqual([
        [0, wire.DONT_FRAGMENT],
        [0, wire.DONT_FRAGMENT],
      ]);
      expect(view(core.bytes).getUint16(tunnelOf(core, B) + abi.TUNNEL_IDENTIFICATION, true)).toBe(0);
    });

    test('O2 without, each packet of a tunnel has its own, never 0', () => {
      const core = coreOf(make, { pathMtuDiscovery: false, offloads: VIRTIO });
      const toB = wire.frameOf(wire.packetOf({}));
      const toC = wire.frameOf(wire.packetOf({ destination: CONTAINER_C, fragment: 0 }));
      const made = send(core, [toB, toB, toC, wire.superFrame({ payload: wire.payloadOf(500) }, 200), toC]);
      expect(made.map(({ peer, ...message }) => [peer, ...idAndFlags({ peer, ...message })])).toEqual([
        [B, 1, 0],
        [B, 2, 0],
        [C, 1, 0],
        [B, 3, 0],
        [B, 4, 0],
        [B, 5, 0],
        [C, 2, 0],
      ]);
      expect(made.map(({ bytes }) => wire.sum(bytes.subarray(0, 20)))).toEqual(Array(7).fill(0xffff));
      view(core.bytes).setUint16(tunnelOf(core, B) + abi.TUNNEL_IDENTIFICATION, 65534, true);
      expect(send(core, [toB, toB, toB, toC]).map((message) => idAndFlags(message)[0])).toEqual([65535, 1, 2, 3]);
    });

    test('O2 a super-packet that stays whole takes as many as the kernel makes of it', () => {
      const core = coreOf(make, { pathMtuDiscovery: false, offloads: VIRTIO | abi.OFFLOAD_GRE_SEGMENT });
      const small = wire.frameOf(wire.packetOf({}));
      const big = wire.superFrame({ payload: wire.payloadOf(2500) }, 1000);
      expect(send(core, [small, big, big, small]).map((message) => idAndFlags(message)[0])).toEqual([1, 2, 5, 8]);
      view(core.bytes).setUint16(tunnelOf(core, B) + abi.TUNNEL_IDENTIFICATION, 65533, true);
      expect(send(core, [big, small, big]).map((message) => idAndFlags(message)[0])).toEqual([65534, 1, 2]);
      // With DF it takes none.
      core.configure({
        local: A,
        mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
      });
      expect(send(core, [big]).map(idAndFlags)).toEqual([[0, wire.DONT_FRAGMENT]]);
    });

    test('O2 of GRE-in-UDP the kernel makes it', () => {
      const core = coreOf(make, { pathMtuDiscovery: false, encapsulation: 'gre-udp' });
      const plain = coreOf(make, { encapsulation: 'gre-udp' });
      const packets = [wire.packetOf({}), wire.packetOf({})];
      const bytes = (of: PacketCore) => hexes(sendPackets(of, packets).map((message) => message.bytes));
      expect(bytes(core)).toEqual(bytes(plain));
      expect(messages(core).length).toBe(2);
    });
  });
});

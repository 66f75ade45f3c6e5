/** Inner packets that do not fit their tunnel are fragmented before they are encapsulated, where they may be. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi, overhead, type PacketCore } from '../src/core/index.ts';
import { cores, hex, type Message, messages, putFrame } from './core.ts';
import { portOf } from './flow.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { leastSegment, timestamps } from './traffic.ts';
import { A, B, coreOf, expectSums, hexes, packetsIn, send, sendPackets, VIRTIO, type Vm, view } from './vms.ts';

const { ACK, DONT_FRAGMENT, FIN, MORE_FRAGMENTS, PSH } = wire;

/** Everything that adds to a packet. */
const ALL = { key: 7, greChecksum: true, greSequence: true } as const;

/** The inner packets in messages whose outer headers are `outer` bytes long. */
const inner = (made: readonly Message[], outer: number) => made.map(({ bytes }) => bytes.subarray(outer));

/** Bytes that the core puts before an inner packet: of GRE-in-UDP, the kernel makes the rest. */
const outerOf = ({ encapsulation = 'gre', ...options }: Vm) =>
  overhead(encapsulation, options) - (encapsulation === 'gre-udp' ? 28 : 0);

/** What a copied option and one that is not look like. */
const COPIED = [0x82, 4, 1, 2];
const ONCE = [0x07, 4, 5, 6];

describe.each(cores)('$name', ({ make }) => {
  describe.each<{ name: string; vm: Vm }>([
    { name: 'gre', vm: {} },
    { name: 'gre, everything', vm: ALL },
    { name: 'gre-udp', vm: { encapsulation: 'gre-udp', ports: 8, offloads: abi.OFFLOAD_UDP_SEGMENT } },
    { name: 'gre-udp, everything', vm: { encapsulation: 'gre-udp', ...ALL } },
  ])('$name', ({ vm }) => {
    const outer = outerOf(vm);

    test.each<[name: string, parts: wire.Parts]>([
      ['one byte too long', { payload: wire.payloadOf(1437) }],
      ['two fragments', { payload: wire.payloadOf(2000) }],
      ['the last has one byte', { protocol: 17, payload: wire.payloadOf(1456 - 8 + 1) }],
      ['whole units only', { protocol: 17, payload: wire.payloadOf(3 * 1456 - 8) }],
      ['many', { protocol: 17, payload: wire.payloadOf(60000) }],
      ['TCP', { payload: wire.payloadOf(5000), tcpOptions: timestamps }],
      ['IP options', { payload: wire.payloadOf(5000), ipOptions: [...COPIED, ...ONCE, ...COPIED] }],
      ['60 bytes of IPv4 header', { payload: wire.payloadOf(5000), ipOptions: Array<number>(40).fill(1) }],
      ['the reserved flag', { payload: wire.payloadOf(2000), fragment: 0x8000 }],
      ['TOS, TTL and identification', { payload: wire.payloadOf(2000), tos: 0xb9, ttl: 3, id: 65535 }],
    ])('M3 inner packets without DF are fragmented: %s', (_, parts) => {
      const packet = wire.packetOf({ fragment: 0, ...parts });
      const core = coreOf(make, { ...vm, mtu: 1476 });
      const made = sendPackets(core, [packet]);
      const fragments = inner(made, outer);
      expect(hexes(fragments)).toEqual(hexes(wire.fragmented(packet, 1476)));
      expect(hex(wire.reassembled(fragments) as Uint8Array)).toBe(hex(withoutFlags(packet)));
      expect(Math.max(...fragments.map(({ length }) => length))).toBeLessThanOrEqual(1476);
      expect(packetsIn(made)).toEqual(fragments.map(() => 1));
      expect([made.every(({ peer }) => peer === B), core.verdict(0)]).toEqual([true, abi.FORWARD]);
      // Counted as on the wire.
      expectSums(core, 'outbound', made);
      const { forwarded, bytes } = core.counters('outbound');
      expect([forwarded, bytes]).toEqual([fragments.length, fragments.reduce((sum, f) => sum + f.length, 0)]);
      expect(tunnelCounters(core)).toEqual([forwarded, bytes]);
    });

    test('M3 a packet that just fits is not', () => {
      for (const mtu of [68, 576, 1476]) {
        const core = coreOf(make, { ...vm, mtu });
        const packets = [mtu - 1, mtu].map((length) =>
          wire.packetOf({ protocol: 17, fragment: 0, payload: wire.payloadOf(length - 28) }),
        );
        // Nor is it made different.
        expect(hexes(inner(sendPackets(core, packets), outer))).toEqual(hexes(packets));
        expect(sendPackets(core, [wire.packetOf({ fragment: 0, payload: wire.payloadOf(mtu - 39) })]).length).toBe(2);
      }
    });

    test.each<{ name: string; parts: wire.Parts; size: number }>([
      { name: 'TCP', parts: { payload: wire.payloadOf(3000), flags: ACK | PSH | FIN }, size: 1436 },
      { name: 'TCP, one segment', parts: { payload: wire.payloadOf(1000) }, size: 1000 },
      { name: 'TCP, the last one fits', parts: { payload: wire.payloadOf(2001), tcpOptions: timestamps }, size: 1000 },
      { name: 'TCP, identifications wrap', parts: { payload: wire.payloadOf(3000), id: 65535 }, size: 1400 },
      { name: 'UDP', parts: { protocol: 17, payload: wire.payloadOf(2999) }, size: 1000 },
      {
        name: 'headers that do not fit in one fragment',
        parts: { payload: wire.payloadOf(350), ipOptions: [...COPIED, ...Array(36).fill(1)], tcpOptions: timestamps },
        size: 140,
      },
      {
        name: 'headers that end with a fragment',
        parts: { protocol: 17, payload: wire.payloadOf(500), ipOptions: Array<number>(40).fill(1) },
        size: 200,
      },
    ])('M3 segments of a super-packet without DF are fragmented: $name', ({ parts, size }) => {
      for (const mtu of [68, 100, 576]) {
        const core = coreOf(make, { ...vm, mtu, offloads: VIRTIO | (vm.offloads ?? 0) });
        const frame = wire.superFrame({ fragment: 0, ...parts }, size);
        const expected = wire
          .cut(wire.packetOf({ fragment: 0, ...parts }), size)
          .flatMap((segment) => wire.fragmented(segment, mtu));
        const fits = size + wire.headersLength(frame.subarray(10)) <= mtu;
        const made = send(core, [frame]);
        expect(made.every(({ content }) => content.packets === 1) || fits).toBe(true);
        if (fits) continue;
        expect(hexes(inner(made, outer))).toEqual(hexes(expected));
        expectSums(core, 'outbound', made);
        expect(tunnelCounters(core)).toEqual([expected.length, expected.reduce((sum, f) => sum + f.length, 0)]);
        const start = core.slot(0) - abi.VIRTIO_SIZE;
        expect(hex(core.bytes.subarray(start, start + frame.length))).toBe(hex(frame));
      }
    });

    test('M3 whatever the packet and the MTU, what arrives is put together to what was sent', () => {
      const segmented = new Map<string, PacketCore>();
      const parts = fc.record({
        protocol: fc.constantFrom<6 | 17>(6, 17),
        // Not so long that header blocks run out.
        length: fc.integer({ min: 0, max: 3000 }),
        id: fc.nat(65535),
        tos: fc.constantFrom(0, 2, 0xb8),
        reserved: fc.boolean(),
        ipOptions: fc.constantFrom([], ONCE, COPIED, [...ONCE, ...COPIED, 1, 1, 1, 0], Array<number>(40).fill(1)),
        tcpOptions: fc.constantFrom([], timestamps),
      });
      fc.assert(
        fc.property(parts, fc.integer({ min: 68, max: 1500 }), fc.nat(5000), (each, mtu, size) => {
          const { length, reserved, ...rest } = each;
          const all = { ...rest, fragment: reserved ? 0x8000 : 0, payload: wire.payloadOf(length, mtu) };
          const core = segmented.get('core') ?? coreOf(make, { ...vm, offloads: VIRTIO });
          segmented.set('core', core);
          core.configure({
            ...{ local: A, encapsulation: 'gre', ...vm, mtu },
            mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
          });
          const packet = wire.packetOf(all);
          const segment = Math.max(size, leastSegment(all));
          const isCut = length > 0 && size % 3 !== 0;
          const made = send(core, [isCut ? wire.superFrame(all, segment) : wire.frameOf(packet)]);
          const sent = isCut ? wire.cut(packet, segment) : [packet];
          const doesFit = (sent[0]?.length ?? 0) <= mtu;
          const expected = doesFit ? sent : sent.flatMap((one) => wire.fragmented(one, mtu));
          if (expected.length > (vm.encapsulation === 'gre-udp' ? abi.MESSAGES_PER_PORT : abi.MESSAGES)) {
            expect([core.verdict(0), made]).toEqual([abi.DROP_TOO_LONG, []]);
            return;
          }
          expect(hexes(inner(made, outer))).toEqual(hexes(expected));
          // Each identification is that of one segment.
          const ids = inner(made, outer).map((fragment) => view(fragment).getUint16(4));
          const whole = [...new Set(ids)].map((id) =>
            wire.reassembled(inner(made, outer).filter((_, i) => ids[i] === id)),
          );
          expect(hexes(whole as Uint8Array[])).toEqual(hexes(sent.map(withoutFlags)));
        }),
        { numRuns: runs(100) },
      );
    });

    test('M3 a checksum that the container left open is made before', () => {
      for (const protocol of [6, 17] as const) {
        const packet = wire.packetOf({ protocol, fragment: 0, payload: wire.payloadOf(3001) });
        const offset = protocol === 6 ? 16 : 6;
        const frame = wire.frameOf(wire.partial(packet), { flags: 1, start: 20, offset });
        const core = coreOf(make, { ...vm, mtu: 576, offloads: VIRTIO });
        const whole = wire.reassembled(inner(send(core, [frame]), outer)) as Uint8Array;
        expect([hex(whole), wire.verified(whole)]).toEqual([hex(packet), true]);
      }
    });

    test('M5 fragments that come pass, first or not, and are fragmented further', () => {
      for (const fragment of [MORE_FRAGMENTS, MORE_FRAGMENTS | 100, 200, 0x8000 | 0x1f00]) {
        const packet = wire.packetOf({ protocol: 17, fragment, payload: wire.payloadOf(1001) });
        expect(hexes(inner(sendPackets(coreOf(make, { ...vm, mtu: 1476 }), [packet]), outer))).toEqual([hex(packet)]);
        const made = inner(sendPackets(coreOf(make, { ...vm, mtu: 576 }), [packet]), outer);
        expect(hexes(made)).toEqual(hexes(wire.fragmented(packet, 576)));
        const fields = made.map((each) => view(each).getUint16(6));
        expect(fields).toEqual([fragment | MORE_FRAGMENTS, fragment + 69]);
      }
      // The offset has 13 bits.
      const last = wire.packetOf({ protocol: 17, fragment: 0x1fff, payload: wire.payloadOf(1001) });
      const made = inner(sendPackets(coreOf(make, { ...vm, mtu: 576 }), [last]), outer);
      expect(made.map((each) => view(each).getUint16(6))).toEqual([MORE_FRAGMENTS | 0x1fff, 68]);
    });
  });

  test.each<[name: string, options: number[], later: number[]]>([
    ['copied', COPIED, COPIED],
    ['not copied', ONCE, [1, 1, 1, 1]],
    ['each in turn', [...ONCE, ...COPIED, ...ONCE], [1, 1, 1, 1, ...COPIED, 1, 1, 1, 1]],
    ['no operation, and the end', [1, ...ONCE, 0, 7, 4, 9], [1, 1, 1, 1, 1, 0, 7, 4, 9]],
    ['a copied one byte long stays what it is: it has a length', [0x81, 2, 0x07, 3, 9, 0], [0x81, 2, 1, 1, 1, 0]],
    ['a length of 1 ends the list', [...COPIED, 7, 1, 7, 4], [...COPIED, 7, 1, 7, 4]],
    ['a length of 0 ends the list', [7, 0, 7, 4], [7, 0, 7, 4]],
    ['a length beyond the end', [7, 5, 7, 4], [7, 5, 7, 4]],
    ['a length up to the end', [7, 3, 5, 7, 5, 1, 2, 3], [1, 1, 1, 1, 1, 1, 1, 1]],
    ['a last byte without a length', [1, 1, 1, 7], [1, 1, 1, 7]],
  ])('M5 options are copied by their flag: %s', (_, ipOptions, later) => {
    const packet = wire.packetOf({ fragment: 0, ipOptions, payload: wire.payloadOf(3000) });
    const made = inner(sendPackets(coreOf(make, { mtu: 1476 }), [packet]), 24);
    const length = Math.ceil(ipOptions.length / 4) * 4;
    const optionsOf = (fragment: Uint8Array) => [...fragment.subarray(20, 20 + length)];
    const padded = (options: number[]) => [...options, ...Array<number>(length - options.length).fill(0)];
    expect(made.map(optionsOf)).toEqual([padded(ipOptions), padded(later), padded(later)]);
    expect(made.map((fragment) => wire.sum(fragment.subarray(0, 20 + length)))).toEqual([0xffff, 0xffff, 0xffff]);
  });

  test('M3 literally: RFC 791 in one example', () => {
    const core = coreOf(make, { mtu: 68 });
    const packet = wire.packetAround({ id: 0x1234, flags: 0 }, wire.payloadOf(100));
    const data = hex(wire.payloadOf(100));
    expect(hexes(sendPackets(core, [packet]).map(({ bytes }) => bytes))).toEqual([
      `4500005c00004000402f98e1c0a81020c0a810210000080045000044123420004011f2f30a10205b0a102107${data.slice(0, 96)}`,
      `4500005c00004000402f98e1c0a81020c0a810210000080045000044123420064011f2ed0a10205b0a102107${data.slice(96, 192)}`,
      `4500003000004000402f990dc0a81020c0a8102100000800450000181234000c401113140a10205b0a102107${data.slice(192)}`,
    ]);
  });

  test('M1 the limit is the configured MTU: 1476, 1472 and 1468 for an underlay of 1500', () => {
    const vms: [vm: Vm, bytes: number][] = [
      [{}, 24],
      [{ key: 1 }, 28],
      [{ encapsulation: 'gre-udp' }, 32],
    ];
    for (const [vm, bytes] of vms) {
      const core = coreOf(make, { ...vm, mtu: 1500 - bytes });
      const made = sendPackets(core, [wire.packetOf({ fragment: 0, payload: wire.payloadOf(4000) })]);
      const onWire = made.map((message) => message.bytes.length + (message.bytes[0] === 0x45 ? 0 : 28));
      expect([overhead(vm.encapsulation ?? 'gre', vm), onWire[0]]).toEqual([bytes, 1500 - ((1500 - bytes - 20) % 8)]);
    }
  });

  test('M2 packets with DF are dropped, and so are super-packets of which the first segment is too long', () => {
    const core = coreOf(make, { mtu: 1000, offloads: VIRTIO });
    const verdict = (frame: Uint8Array) => {
      const made = send(core, [frame]);
      return [core.verdict(0), made.length];
    };
    const of = (length: number, fragment: number) => wire.packetOf({ fragment, payload: wire.payloadOf(length - 40) });
    expect(verdict(wire.frameOf(of(1000, DONT_FRAGMENT)))).toEqual([abi.FORWARD, 1]);
    expect(verdict(wire.frameOf(of(1001, DONT_FRAGMENT)))).toEqual([abi.DROP_TOO_BIG, 0]);
    expect(verdict(wire.frameOf(of(1001, DONT_FRAGMENT | MORE_FRAGMENTS)))).toEqual([abi.DROP_TOO_BIG, 0]);
    expect(verdict(wire.frameOf(of(1001, 0)))).toEqual([abi.FORWARD, 2]);
    const payload = wire.payloadOf(3000);
    expect(verdict(wire.superFrame({ payload }, 960))).toEqual([abi.FORWARD, 4]);
    expect(verdict(wire.superFrame({ payload }, 961))).toEqual([abi.DROP_TOO_BIG, 0]);
    expect(verdict(wire.superFrame({ payload, fragment: 0 }, 961))).toEqual([abi.FORWARD, 7]);
    // One is counted, and the tunnel is there: what its limit is, one has to know.
    expect(core.counters('outbound').drops[-abi.DROP_TOO_BIG]).toBe(3);
    expect(core.tunnels.count).toBe(1);
  });

  test('M3 a super-packet that fits stays whole; one that does not is cut and fragmented', () => {
    const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
    const frame = wire.superFrame({ fragment: 0, payload: wire.payloadOf(2000) }, 1000);
    expect(send(coreOf(make, { mtu: 1040, offloads }), [frame]).map(({ whole }) => whole)).toEqual([true]);
    const made = send(coreOf(make, { mtu: 1039, offloads }), [frame]);
    expect(made.map(({ whole }) => whole)).toEqual([false, false, false, false]);
  });

  test('U4 all fragments of a packet keep its port; each is a message of its own, and nothing is added to it', () => {
    const offloads = abi.OFFLOAD_UDP_SEGMENT;
    for (let sourcePort = 0; sourcePort < 40; sourcePort++) {
      const core = coreOf(make, { encapsulation: 'gre-udp', ports: 8, offloads, mtu: 576 });
      const small = wire.packetOf({ sourcePort, payload: wire.payloadOf(10) });
      const big = wire.packetOf({ sourcePort, fragment: 0, payload: wire.payloadOf(552 * 3 - 20) });
      const made = sendPackets(core, [small, small, big, small, small, big, big]);
      expect(new Set(made.map(({ port }) => port))).toEqual(new Set([portOf(big, 8)]));
      expect(packetsIn(made)).toEqual([2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]);
      expect(made.map(({ index }) => core.messages.segment(index) < core.messages.length(index))).toEqual(
        packetsIn(made).map((packets) => packets > 1),
      );
    }
  });

  test('U4 what the last call ended with does not matter', () => {
    const vm = { encapsulation: 'gre-udp', ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT, mtu: 576 } as const;
    const core = coreOf(make, vm);
    sendPackets(core, [wire.packetOf({ fragment: 0, payload: wire.payloadOf(1000) })]);
    expect(packetsIn(sendPackets(core, [wire.packetOf({}), wire.packetOf({})]))).toEqual([2]);
  });

  test.each<[vm: Vm, most: number]>([
    [{}, abi.MESSAGES],
    [{ encapsulation: 'gre-udp', ports: 8 }, abi.MESSAGES_PER_PORT],
  ])('M3 more fragments than a call has room for: %j', (vm, most) => {
    const core = coreOf(make, { ...vm, mtu: 68 });
    const of = (data: number, fragment = 0) => wire.packetAround({ flags: fragment }, wire.payloadOf(data));
    expect([sendPackets(core, [of(48 * most)]).length, core.verdict(0)]).toEqual([most, abi.FORWARD]);
    expect([sendPackets(core, [of(48 * most + 1)]).length, core.verdict(0)]).toEqual([0, abi.DROP_TOO_LONG]);
    // It is answered with nothing: smaller packets are no remedy that one may ask for without DF.
    expect([core.messages.replies(), core.counters('outbound').drops[-abi.DROP_TOO_LONG]]).toEqual([[], 1]);
    sendPackets(core, [of(48 * most + 1, DONT_FRAGMENT)]);
    expect(core.verdict(0)).toBe(abi.DROP_TOO_BIG);
  });

  test('M3 segments and fragments together have to find header blocks', () => {
    const core = coreOf(make, { mtu: 68, offloads: VIRTIO });
    // Each segment of 280 bytes behind the IPv4 header makes 6 fragments and takes 7 blocks; one more byte of payload, 1 and 2 more, or 2 and 3.
    const of = (segments: number, rest: number) =>
      wire.superFrame({ fragment: 0, payload: wire.payloadOf(260 * segments + rest) }, 260);
    for (const [segments, rest, fragments] of [
      [127, 0, 762],
      [127, 260, 768],
    ] as const) {
      expect([send(core, [of(segments, rest)]).length, core.verdict(0)]).toEqual([fragments, abi.FORWARD]);
    }
    // 8 and 9 blocks: 113 of them are 904 fragments and 1017 blocks, and a last segment takes 3, 7 or 8 more.
    const wide = (rest: number) => wire.superFrame({ fragment: 0, payload: wire.payloadOf(364 * 113 + rest) }, 364);
    expect([send(core, [wide(28 + 48 * 5)]).length, core.verdict(0)]).toEqual([910, abi.FORWARD]);
    expect([send(core, [wide(28 + 48 * 5 + 1)]).length, core.verdict(0)]).toEqual([0, abi.DROP_TOO_LONG]);
  });

  test('M3 what does not fit the tables is left for the next call: nothing is lost, nothing done twice', () => {
    const core = coreOf(make, { mtu: 68, ...ALL });
    const packet = wire.packetAround({ flags: 0 }, wire.payloadOf(48 * 300));
    for (let i = 0; i < 4; i++) core.put(i, packet);
    const numbers = () => messages(core).map(({ bytes }) => view(bytes).getUint32(32));
    expect([core.encapsulate(0, 4, 0), core.messages.count()]).toEqual([3, 900]);
    expect(numbers()).toEqual(Array.from({ length: 900 }, (_, n) => n));
    expect([core.encapsulate(3, 4, 0), core.messages.count()]).toEqual([4, 300]);
    expect(numbers()).toEqual(Array.from({ length: 300 }, (_, n) => 900 + n));
    expect(core.counters('outbound')).toMatchObject({ received: 1200, forwarded: 1200, bytes: 1200 * 68 });
  });

  test('M3 header blocks run out before messages do', () => {
    const core = coreOf(make, { mtu: 68, offloads: VIRTIO });
    // 85 segments make 510 fragments, in 595 blocks.
    const frame = wire.superFrame({ fragment: 0, payload: wire.payloadOf(260 * 85) }, 260);
    for (const i of [0, 1]) putFrame(core, i, frame);
    expect([core.encapsulate(0, 2, 0), core.messages.count()]).toEqual([1, 510]);
    expect([core.encapsulate(1, 2, 0), core.messages.count()]).toEqual([2, 510]);
  });

  test('M3 a segment that fits is one fragment, also if its data is no multiple of 8', () => {
    // 47 bytes fit into a packet of 68 with a header of 20, though fragments before the last have 48 or 40.
    for (const [mtu, last] of [
      [68, 27],
      [69, 29],
      [71, 31],
    ] as const) {
      const core = coreOf(make, { mtu, offloads: VIRTIO });
      const frame = wire.superFrame({ fragment: 0, payload: wire.payloadOf(128 + last) }, 128);
      const made = inner(send(core, [frame]), 24);
      expect(made.map(({ length }) => length)).toEqual([68, 68, 68, 24, last + 40]);
      expect(view(made[4] as Uint8Array).getUint16(6)).toBe(0);
    }
  });
});

/** The packet once it is put together again: DF is clear, and of a fragment that came all is as it was. */
function withoutFlags(packet: Uint8Array): Uint8Array {
  return wire.editedHeader(packet, 6, (packet[6] as number) & 0x80, 0);
}

/** Packets and bytes of the one tunnel there is. */
function tunnelCounters(core: PacketCore): number[] {
  const [, , , packets, bytes] = core.tunnels.copy(0);
  return [packets as number, bytes as number];
}

/** Super-packets: cut on the way out, merged on the way in (V1 to V3), and the ports of GRE-in-UDP (U1 to U4). */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi, type CoreDevices, type Encapsulation, type PacketCore } from '../src/core/index.ts';
import { config, cores, hex, type Message, messages, networkOrder, putFrame, word } from './core.ts';
import * as wire from './packet.ts';
import { CHANGES, grouped, groupings, type NamedChange, superPackets, timestamps, traffic } from './traffic.ts';

const { FIN, SYN, PSH, ACK, ECE, CWR, DONT_FRAGMENT, MORE_FRAGMENTS } = wire;

/** Two VMs; packets go from A to B unless said otherwise. A third, C, is another destination. */
const [A, B, C] = [0xc0a81020, 0xc0a81021, 0xc0a81022];
const CONTAINER_C = 0x0a102207;

const VIRTIO = abi.OFFLOAD_VIRTIO;
const MERGE_ALL = VIRTIO | abi.OFFLOAD_UDP_MERGE;

type Make = () => PacketCore;

interface Vm extends CoreDevices {
  local?: number;
  encapsulation?: Encapsulation;
  key?: number;
}

function coreOf(make: Make, { local = A, encapsulation = 'gre', key, ...devices }: Vm): PacketCore {
  const core = make();
  core.configure({ ...config, local, encapsulation, key });
  core.attach(devices);
  return core;
}

/** Handles `count` items, however many calls that takes, and answers all messages. */
function handle(
  core: PacketCore,
  direction: 'encapsulate' | 'decapsulate',
  count: number,
  put: (index: number, item: number) => void,
): Message[] {
  const made: Message[] = [];
  for (let start = 0; start < count; start += abi.BATCH_SIZE) {
    const size = Math.min(count - start, abi.BATCH_SIZE);
    for (let i = 0; i < size; i++) put(i, start + i);
    for (let first = 0; first < size; ) {
      const next = core[direction](first, size, 0);
      if (next <= first) throw new Error(`no progress at ${first}`);
      made.push(...messages(core));
      first = next;
    }
  }
  return made;
}

/** The containers send frames: virtio header and packet. */
function send(core: PacketCore, frames: readonly Uint8Array[]): Message[] {
  return handle(core, 'encapsulate', frames.length, (i, n) => putFrame(core, i, frames[n] as Uint8Array));
}

/** The containers send packets, with no virtio header. */
function sendPackets(core: PacketCore, packets: readonly Uint8Array[]): Message[] {
  return handle(core, 'encapsulate', packets.length, (i, n) => core.put(i, packets[n] as Uint8Array));
}

/** GRE packets with these in them come from A. */
function receive(core: PacketCore, inner: readonly Uint8Array[]): Message[] {
  return handle(core, 'decapsulate', inner.length, (i, n) => core.put(i, wire.grePacket(A, B, inner[n] as Uint8Array)));
}

/** Groups of GRE-in-UDP datagrams come from a VM, each group in one buffer, as UDP_GRO delivers it. */
function receiveGroups(core: PacketCore, groups: readonly (readonly Uint8Array[])[], peer = A): Message[] {
  return handle(core, 'decapsulate', groups.length, (i, n) => {
    const bytes = Buffer.concat(groups[n] as Uint8Array[]);
    core.bytes.set(bytes, core.slot(i));
    core.describeDatagrams(i, bytes.length, groups[n]?.[0]?.length as number, networkOrder(peer));
  });
}

const datagramOf = (inner: Uint8Array) => Uint8Array.from([0, 0, 8, 0, ...inner]);

/** What is on the wire, in order, without the outer headers. */
function innerOf(sent: readonly Message[], outer = 24): Uint8Array[] {
  return sent.flatMap((message) => message.datagrams).map((datagram) => datagram.subarray(outer));
}

const hexes = (packets: readonly Uint8Array[]) => packets.map(hex);
const withoutHeader = (message: Message) => message.bytes.subarray(abi.VIRTIO_SIZE);
const packetsIn = (all: readonly Message[]) => all.map((message) => message.cargo.packets);
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

function expectSums(core: PacketCore, direction: 'outbound' | 'inbound', made: readonly Message[]): void {
  const { received, forwarded, bytes, drops } = core.counters(direction);
  expect(received).toBe(forwarded + drops.reduce((sum, n) => sum + n, 0));
  expect(made.reduce((sum, { cargo }) => sum + cargo.packets, 0)).toBe(forwarded);
  expect(made.reduce((sum, { cargo }) => sum + cargo.bytes, 0)).toBe(bytes);
}

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

const ipLength = (packet: Uint8Array) => ((packet[0] as number) & 15) * 4;
const isFragment = (packet: Uint8Array) => (view(packet).getUint16(6) & 0x3fff) !== 0;

function hasFlow(packet: Uint8Array): boolean {
  return (
    (packet[9] === 6 || packet[9] === 17) && !isFragment(packet) && view(packet).getUint16(2) >= ipLength(packet) + 4
  );
}

/** Protocol, addresses and the first four bytes behind the IPv4 header. */
function flowOf(packet: Uint8Array): Uint8Array {
  const ip = ipLength(packet);
  return Uint8Array.from([packet[9] as number, ...packet.subarray(12, 20), ...packet.subarray(ip, ip + 4)]);
}

/** The hash of docs/abi.md, in whole numbers. */
function hash(packet: Uint8Array): bigint {
  const [K, word] = [0x9e3779b1n, 2n ** 32n];
  const [ip, total] = [ipLength(packet), view(packet).getUint16(2)];
  const has = [6, 17, 33, 132, 136].includes(packet[9] as number) && !isFragment(packet) && total >= ip + 4;
  const [source, destination, ports] = [12, 16, ip].map((at) =>
    at < 20 || has ? BigInt(view(packet).getUint32(at)) : 0n,
  );
  const addresses = (source as bigint) * K + (destination as bigint);
  const h = ((addresses * K + (ports as bigint)) * K + BigInt(packet[9] as number)) % word;
  return ((h ^ (h >> 15n)) * K) % word;
}

const portOf = (packet: Uint8Array, ports: number) => Number(((hash(packet) >> 16n) * BigInt(ports)) >> 16n);
const bucket = (packet: Uint8Array) => Number(hash(packet) >> 26n);

describe.each(cores)('$name', ({ make }) => {
  describe('cutting', () => {
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
    ])(
      'V1 every segment is what the kernel makes (test/packet.ts, which test/net measures), $name',
      ({ vm, outer }) => {
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
          { numRuns: 150 },
        );
        expect(core.counters('outbound').forwarded).toBe(segments);
        expectSums(core, 'outbound', all);
      },
    );

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
      expect(core.tunnelCount).toBe(1);
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
        const frame = wire.superFrame({ protocol, payload: wire.payloadOf(999) }, 100);
        const at = abi.VIRTIO_SIZE + 20 + (protocol === 6 ? 16 : 6);
        const [right, wrong] = [send(core, [frame]), send(core, [wire.edited(frame, at, 0x12, 0x34)])];
        expect(hexes(innerOf(wrong))).toEqual(hexes(innerOf(right)));
      }
    });

    test.each([6, 17] as const)(
      'not cut, protocol %i: the checksum is made where the header asks for it',
      (protocol) => {
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
      },
    );

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

    const packet = wire.packetOf({ payload: wire.payloadOf(3000) });
    const datagram = wire.packetOf({ protocol: 17, payload: wire.payloadOf(3000) });
    const tcp: wire.Virtio = { flags: 1, type: wire.VIRTIO_TCPV4, headerLength: 40, size: 1000, start: 20, offset: 16 };
    const udp: wire.Virtio = { flags: 1, type: wire.VIRTIO_UDP_L4, headerLength: 28, size: 1000, start: 20, offset: 6 };
    const short = wire.packetOf({ payload: new Uint8Array(0) });
    const empty = wire.packetOf({ protocol: 17, payload: new Uint8Array(0) });
    const GOOD = abi.FORWARD;
    const BAD = abi.DROP_BAD_OFFLOAD;
    test.each<[name: string, verdict: number, frame: Uint8Array]>([
      ['TCP', GOOD, wire.frameOf(packet, tcp)],
      ['UDP', GOOD, wire.frameOf(datagram, udp)],
      ['the ECN bit', GOOD, wire.frameOf(packet, { ...tcp, type: 0x81 })],
      ['the ECN bit alone', GOOD, wire.frameOf(packet, { type: 0x80 })],
      ['no flags, header length, start and offset', GOOD, wire.frameOf(packet, { type: 1, size: 1000 })],
      ['an unknown flag', GOOD, wire.frameOf(packet, { ...tcp, flags: 0xff })],
      ...[2, 3, 4, 6, 7, 0x7f, 0x83, 0xff].map(
        (type) => [`GSO type ${type}`, BAD, wire.frameOf(packet, { ...tcp, type })] as [string, number, Uint8Array],
      ),
      ['TCPV4 with UDP in it', BAD, wire.frameOf(datagram, { ...tcp })],
      ['UDP_L4 with TCP in it', BAD, wire.frameOf(packet, { ...udp })],
      ['GSO size 0', BAD, wire.frameOf(packet, { ...tcp, size: 0 })],
      ['another protocol', BAD, wire.frameOf(wire.editedHeader(packet, 9, 132), tcp)],
      ['a first fragment', BAD, wire.frameOf(wire.editedHeader(packet, 6, 0x20, 0), tcp)],
      ['a last fragment', BAD, wire.frameOf(wire.editedHeader(packet, 6, 0, 1), tcp)],
      ['the reserved bit is no fragment', GOOD, wire.frameOf(wire.editedHeader(packet, 6, 0x80, 0), tcp)],
      ['data offset 4', BAD, wire.frameOf(wire.edited(packet, 32, 0x40), tcp)],
      ['data offset 5, without payload', BAD, wire.frameOf(short, tcp)],
      [
        'TCP options up to the end',
        BAD,
        wire.frameOf(wire.packetOf({ tcpOptions: [1, 1, 1, 1], payload: new Uint8Array(0) }), tcp),
      ],
      ['TCP options beyond the end', BAD, wire.frameOf(wire.edited(short, 32, 0xf0), tcp)],
      ['a TCP header beyond the end', BAD, wire.frameOf(wire.editedHeader(packet, 2, 0, 30), tcp)],
      ['TCP, one byte', GOOD, wire.frameOf(wire.packetOf({ payload: new Uint8Array(1) }), tcp)],
      ['UDP without payload', BAD, wire.frameOf(empty, udp)],
      ['a UDP header beyond the end', BAD, wire.frameOf(wire.editedHeader(empty, 2, 0, 27), udp)],
      ['UDP, one byte', GOOD, wire.frameOf(wire.packetOf({ protocol: 17, payload: new Uint8Array(1) }), udp)],
      ['128 segments', GOOD, wire.frameOf(wire.packetOf({ payload: new Uint8Array(1280) }), { ...tcp, size: 10 })],
      ['129 segments', BAD, wire.frameOf(wire.packetOf({ payload: new Uint8Array(1281) }), { ...tcp, size: 10 })],
      ['a checksum at the start of the payload', GOOD, wire.frameOf(packet, { flags: 1, start: 20, offset: 0 })],
      ['a checksum that starts in the header', BAD, wire.frameOf(packet, { flags: 1, start: 19, offset: 16 })],
      [
        'a checksum that starts in the options',
        BAD,
        wire.frameOf(wire.packetOf({ ipOptions: [1, 1, 1, 1] }), { flags: 1, start: 20, offset: 16 }),
      ],
      ['a checksum in the last two bytes', GOOD, wire.frameOf(packet, { flags: 1, start: 20, offset: 3018 })],
      ['a checksum half beyond the end', BAD, wire.frameOf(packet, { flags: 1, start: 20, offset: 3019 })],
      ['a checksum far beyond the end', BAD, wire.frameOf(packet, { flags: 1, start: 0xffff, offset: 0xffff })],
      [
        'a checksum behind the total length',
        BAD,
        wire.frameOf(Uint8Array.from([...packet, 0, 0]), { flags: 1, start: 20, offset: 3020 }),
      ],
      ['no checksum asked for', GOOD, wire.frameOf(packet, { start: 0xffff, offset: 0xffff })],
      ['no packet', abi.DROP_TRUNCATED, new Uint8Array(10)],
      ['less than a virtio header', abi.DROP_TRUNCATED, new Uint8Array(9)],
      ['nothing', abi.DROP_TRUNCATED, new Uint8Array(0)],
      [
        'a foreign source, before the virtio header',
        abi.DROP_FOREIGN_SOURCE,
        wire.frameOf(wire.editedHeader(packet, 14, 99), { type: 9 }),
      ],
      [
        'a bad virtio header, before the length',
        BAD,
        wire.frameOf(wire.packetOf({ payload: new Uint8Array(65495) }), { type: 9 }),
      ],
    ])('virtio header: %s: %i', (_, verdict, frame) => {
      const core = coreOf(make, { offloads: VIRTIO });
      const made = send(core, [frame]);
      expect(core.verdict(0)).toBe(verdict);
      const { received, drops } = core.counters('outbound');
      if (verdict === GOOD) {
        expect(made.length).toBe(received);
        expect(made.length).toBeGreaterThan(0);
      } else {
        // However many it would have been, it is one.
        expect([made, received, drops[-verdict], core.tunnelCount]).toEqual([[], 1, 1, 0]);
        const start = core.slot(0) - abi.VIRTIO_SIZE;
        expect(hex(core.bytes.subarray(start, start + frame.length))).toBe(hex(frame));
      }
    });

    test.each<[vm: Vm, overhead: number]>([
      [{}, 24],
      [{ key: 1 }, 28],
      [{ encapsulation: 'gre-udp' }, 32],
      [{ encapsulation: 'gre-udp', key: 1 }, 36],
    ])('the longest packet of %j, uncut and cut', (vm, overhead) => {
      const core = coreOf(make, { ...vm, offloads: VIRTIO });
      const verdict = (frame: Uint8Array) => {
        send(core, [frame]);
        return core.verdict(0);
      };
      const longest = 65535 - overhead - 40;
      const uncut = (length: number) => wire.frameOf(wire.packetOf({ payload: new Uint8Array(length) }));
      expect([verdict(uncut(longest)), verdict(uncut(longest + 1))]).toEqual([GOOD, abi.DROP_TOO_LONG]);
      // What counts is the first segment.
      const cut = (size: number) => wire.superFrame({ payload: new Uint8Array(65495) }, size);
      expect([verdict(cut(longest)), verdict(cut(longest + 1))]).toEqual([GOOD, abi.DROP_TOO_LONG]);
      expect(core.counters('outbound').drops[-abi.DROP_TOO_LONG]).toBe(2);
    });

    describe('super-packets that the kernel is to cut', () => {
      const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
      const long = (parts: wire.Parts = {}) => ({ payload: wire.payloadOf(2500), ...parts });

      test.each<{ name: string; vm: Vm; parts: wire.Parts; header: number[] }>([
        { name: 'TCP', vm: {}, parts: {}, header: [0, 0, 8, 0] },
        { name: 'TCP with CWR', vm: {}, parts: { flags: ACK | CWR }, header: [0, 0, 8, 0] },
        {
          name: 'TCP with a key and options',
          vm: { key: 0x01020304 },
          parts: { tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] },
          header: [0x20, 0, 8, 0, 1, 2, 3, 4],
        },
        { name: 'UDP', vm: {}, parts: { protocol: 17 }, header: [0, 0, 8, 0] },
      ])('whole: $name', ({ vm, parts, header }) => {
        const core = coreOf(make, { ...vm, offloads });
        const frame = wire.superFrame(long(parts), 1000);
        const packet = frame.subarray(abi.VIRTIO_SIZE);
        const made = send(core, [frame]);
        const outer = 20 + header.length;
        const ip = 20 + (parts.ipOptions?.length ?? 0);
        const expected = wire.frameOf(wire.editedHeader(wire.grePacket(A, B, packet, header), 8, 65), {
          flags: 1,
          type: frame[abi.VIRTIO_GSO_TYPE] as number,
          headerLength: outer + wire.headersLength(packet),
          size: 1000,
          start: outer + ip,
          offset: parts.protocol === 17 ? 6 : 16,
        });
        expect(made.map(({ bytes, whole }) => [hex(bytes), whole])).toEqual([[hex(expected), true]]);
        expect(core.messagePieces(0)).toBe(1);
        // All is counted as what it is cut into.
        const cut = wire.cut(wire.packetOf(long(parts)), 1000);
        const bytes = cut.reduce((sum, { length }) => sum + length, 0);
        expect(made[0]?.cargo).toEqual({ packets: 3, bytes });
        expect(core.counters('outbound')).toMatchObject({ received: 3, forwarded: 3, bytes });
        core.refuse(0);
        expect(core.counters('outbound').drops[-abi.DROP_NOT_WRITTEN]).toBe(3);
      });

      test.each<{ name: string; vm?: Vm; frame: Uint8Array; packets: number }>([
        { name: 'one segment', frame: wire.superFrame(long(), 2500), packets: 1 },
        { name: 'no NEEDS_CSUM', frame: wire.edited(wire.superFrame(long(), 1000), 0, 0), packets: 3 },
        {
          name: 'another start',
          frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_START, 21),
          packets: 3,
        },
        {
          name: 'another offset',
          frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_OFFSET, 6),
          packets: 3,
        },
        {
          name: 'an offset of 256 more',
          frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_OFFSET + 1, 1),
          packets: 3,
        },
        { name: 'GRE-in-UDP', vm: { encapsulation: 'gre-udp' }, frame: wire.superFrame(long(), 1000), packets: 3 },
        { name: 'no such offload', vm: { offloads: VIRTIO }, frame: wire.superFrame(long(), 1000), packets: 3 },
        {
          name: 'too long in one',
          frame: wire.superFrame({ payload: wire.payloadOf(65535 - 24 - 39) }, 1000),
          packets: 66,
        },
        {
          name: 'too long with a key',
          vm: { key: 1 },
          frame: wire.superFrame({ payload: wire.payloadOf(65535 - 28 - 39) }, 1000),
          packets: 66,
        },
      ])('cut: $name', ({ vm, frame, packets }) => {
        const made = send(coreOf(make, { offloads, ...vm }), [frame]);
        expect([packetsIn(made).reduce((sum, n) => sum + n), made.some(({ whole }) => whole)]).toEqual([
          packets,
          false,
        ]);
        expect(made.length).toBe(packets);
      });

      test('the longest that stays whole', () => {
        const frame = wire.superFrame({ payload: wire.payloadOf(65535 - 24 - 40) }, 1000);
        const [{ bytes, whole }] = send(coreOf(make, { offloads }), [frame]) as [Message];
        expect([bytes.length, whole]).toEqual([abi.VIRTIO_SIZE + 65535, true]);
      });

      test('the TTL is one more, for the kernel takes one; 255 stays', () => {
        for (const [ttl, expected] of [
          [1, 2],
          [254, 255],
          [255, 255],
        ] as const) {
          const core = coreOf(make, { offloads });
          core.configure({ ...config, ttl });
          const small = wire.frameOf(wire.packetOf({}));
          const [first, second] = send(core, [wire.superFrame(long(), 1000), small]) as [Message, Message];
          expect([first.bytes[abi.VIRTIO_SIZE + 8], second.bytes[8]]).toEqual([expected, ttl]);
        }
      });

      test('in its place between the others, and the mark goes with the message', () => {
        const core = coreOf(make, { offloads });
        const small = wire.frameOf(wire.packetOf({}));
        const big = wire.superFrame(long(), 1000);
        expect(send(core, [small, big, small, big]).map(({ whole }) => whole)).toEqual([false, true, false, true]);
        expect(send(core, [big, small, small]).map(({ whole }) => whole)).toEqual([true, false, false]);
      });

      test('it asks for the room of one that is cut', () => {
        const core = coreOf(make, { offloads });
        const big = wire.superFrame({ payload: wire.payloadOf(1280) }, 10);
        for (let i = 0; i < 128; i++) putFrame(core, i, big);
        const free = abi.MESSAGES - abi.MAX_SEGMENTS + 1;
        // Each takes one message and no header block, but all ask for 128.
        expect(core.encapsulate(0, 128, 0)).toBe(Math.min(128, free));
        expect(core.counters('outbound').received).toBe(128 * 128);
      });
    });

    test('without the offload no virtio header is expected', () => {
      const core = coreOf(make, {});
      const plain = wire.packetOf({});
      expect(hexes(innerOf(sendPackets(core, [plain])))).toEqual([hex(plain)]);
      send(core, [wire.frameOf(plain)]);
      expect(core.verdict(0)).toBe(abi.DROP_NOT_IPV4);
    });

    test('what does not fit the tables is left for the next call: nothing is lost, nothing done twice', () => {
      const core = coreOf(make, { offloads: VIRTIO });
      const big = wire.superFrame({ payload: wire.payloadOf(abi.MAX_SEGMENTS * 10) }, 10);
      const small = wire.frameOf(wire.packetOf({}));
      for (let i = 0; i < 10; i++) putFrame(core, i, i === 9 ? small : big);
      const full = abi.MESSAGES / abi.MAX_SEGMENTS;
      const before = hex(core.bytes.subarray(abi.DESCRIPTORS + full * abi.DESCRIPTOR_SIZE, abi.CARGOS));
      expect([core.encapsulate(0, 10, 0), core.messageCount()]).toEqual([full, abi.MESSAGES]);
      expect(core.counters('outbound').received).toBe(abi.MESSAGES);
      expect(hex(core.bytes.subarray(abi.DESCRIPTORS + full * abi.DESCRIPTOR_SIZE, abi.CARGOS))).toBe(before);
      expect([core.encapsulate(full, 10, 0), core.messageCount()]).toEqual([10, abi.MAX_SEGMENTS + 1]);
      expect(core.counters('outbound').received).toBe(abi.MESSAGES + abi.MAX_SEGMENTS + 1);
      expect(core.messageBytes(abi.MAX_SEGMENTS).length).toBe(24 + 140);
    });

    test('a packet that is dropped needs no room', () => {
      const core = coreOf(make, { offloads: VIRTIO });
      const big = wire.superFrame({ payload: wire.payloadOf(abi.MAX_SEGMENTS * 10) }, 10);
      for (let i = 0; i < 10; i++) putFrame(core, i, i < 8 ? big : i === 8 ? new Uint8Array(20) : big);
      expect([core.encapsulate(0, 10, 0), core.verdict(8)]).toEqual([9, abi.DROP_TRUNCATED]);
    });

    test('header blocks run out before messages do', () => {
      const core = coreOf(make, { offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT, encapsulation: 'gre-udp', ports: 1 });
      // Each takes 32 blocks, and none is left after the last that fits.
      const big = wire.superFrame({ payload: wire.payloadOf(320) }, 10);
      const small = wire.frameOf(wire.packetOf({ payload: wire.payloadOf(1) }));
      const full = abi.HEADER_BLOCKS / 32;
      for (let i = 0; i < full + 2; i++) putFrame(core, i, i === full ? small : big);
      // The small one is not cut and needs none.
      expect(core.encapsulate(0, full + 2, 0)).toBe(full + 1);
      expect([core.verdict(full), core.counters('outbound').received]).toEqual([GOOD, full * 32 + 1]);
      expect(core.encapsulate(full + 1, full + 2, 0)).toBe(full + 2);
      expect(core.counters('outbound').received).toBe((full + 1) * 32 + 1);
    });

    test('a port whose messages run out ends the call', () => {
      const core = coreOf(make, { offloads: VIRTIO, encapsulation: 'gre-udp', ports: 8 });
      const big = wire.superFrame({ payload: wire.payloadOf(100 * 10) }, 10);
      for (let i = 0; i < 3; i++) putFrame(core, i, big);
      expect(core.encapsulate(0, 3, 0)).toBe(1);
      const [{ port } = { port: -1 }] = messages(core);
      expect(core.messageCount(port)).toBe(100);
      expect([core.encapsulate(1, 3, 0), core.encapsulate(2, 3, 0)]).toEqual([2, 3]);
      expect(core.counters('outbound').received).toBe(300);
    });

    test('first and count are clamped', () => {
      const core = coreOf(make, { offloads: VIRTIO });
      const [most, least] = [2 ** 31 - 1, -(2 ** 31)];
      for (const [first, count, end, made] of [
        [0, 0, 0, 0],
        [0, -1, 0, 0],
        [5, 3, 3, 0],
        [most, most, 128, 0],
        [least, least, 0, 0],
        [most, 7, 7, 0],
        [-3, 2, 2, 2],
        [126, 1000, 128, 2],
        [least, most, 128, 128],
      ] as const) {
        // Outer headers have taken the place of virtio headers.
        for (let i = 0; i < abi.BATCH_SIZE; i++) putFrame(core, i, wire.frameOf(wire.packetOf({})));
        const before = core.counters('outbound').received;
        expect([first, count, core.encapsulate(first, count, 0), core.messageCount()]).toEqual([
          first,
          count,
          end,
          made,
        ]);
        expect(core.counters('outbound').received).toBe(before + made);
      }
    });

    test('a message that could not be sent: all its packets are drops, and the sums stay exact', () => {
      const core = coreOf(make, { offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT, encapsulation: 'gre-udp' });
      const longer = wire.packetOf({ payload: wire.payloadOf(101) });
      const made = send(core, [wire.superFrame({ payload: wire.payloadOf(1000) }, 100), wire.frameOf(longer)]);
      expect(packetsIn(made)).toEqual([10, 1]);
      core.refuse(made[0]?.index as number);
      const { received, forwarded, bytes, drops } = core.counters('outbound');
      expect([received, forwarded, bytes, drops[-abi.DROP_NOT_WRITTEN]]).toEqual([11, 1, 141, 10]);
    });
  });

  describe('merging', () => {
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

    test.each<{ name: string; protocol: 6 | 17; flags: number; tcpOptions: number[] }>([
      { name: 'TCP', protocol: 6, flags: ACK, tcpOptions: [] },
      { name: 'TCP with options, PSH and ECE', protocol: 6, flags: ACK | PSH | ECE, tcpOptions: timestamps },
      { name: 'UDP', protocol: 17, flags: ACK, tcpOptions: [] },
    ])('V2 merging gives the super-packet that was cut: $name', ({ protocol, flags, tcpOptions }) => {
      const [a, b] = [coreOf(make, { offloads: VIRTIO }), coreOf(make, { local: B, offloads: MERGE_ALL })];
      for (const [length, size] of [
        [200, 100],
        [199, 100],
        [101, 100],
        [64 * 999, 999],
        [63 * 1000 + 1, 1000],
        [64, 1],
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
        fc.property(traffic, groupings, (packets, lengths) => {
          const groups = lengths.length > 0 ? grouped(packets.map(datagramOf), lengths) : undefined;
          const made = groups ? receiveGroups(b, groups) : receive(b, packets);
          // The VM on the other side gets from its containers what this one gave to its own.
          const back = made.map((message) => ({ merged: message.cargo.packets > 1, sent: send(a, [message.bytes]) }));
          const given = back.flatMap(({ merged, sent }) => innerOf(sent).map((packet) => ({ merged, packet })));

          // Of packets with DF, those that were merged have the identification that follows from the first one's.
          const [got, expected] = [byFlow(given), byFlow(packets.map((packet) => ({ merged: false, packet })))];
          expect([...got.keys()].sort()).toEqual([...expected.keys()].sort());
          for (const [flow, sent] of expected) {
            const arrived = got.get(flow) as Passed[];
            expect(arrived.map(({ merged, packet }) => plain(packet, merged))).toEqual(
              sent.map(({ packet }, i) => plain(packet, arrived[i]?.merged === true)),
            );
          }

          for (const { cargo, bytes } of made) {
            if (cargo.packets < 2) continue;
            if (bytes[abi.VIRTIO_SIZE + 9] === 6) tcp++;
            else udp++;
          }
          if (groups) datagrams += packets.length;
          mergedBefore.push(...made);
          cutBefore.push(...back.flatMap(({ sent }) => sent));
        }),
        // What fails is long, and takes long to shrink: the seed finds it again.
        { numRuns: 500, endOnFailure: true },
      );
      expectSums(b, 'inbound', mergedBefore);
      expectSums(a, 'outbound', cutBefore);
      expect(a.counters('outbound')).toEqual(b.counters('inbound'));
      // The property has to have met what it is about.
      for (const met of [tcp, udp, datagrams]) expect(met).toBeGreaterThan(100);
    });

    const burst = (n: number, parts: wire.Parts = {}, size = 100) =>
      wire.cut(wire.packetOf({ payload: wire.payloadOf(n * size), ...parts }), size);

    test('V3 a packet with a bad checksum passes alone, as it came, and the others are merged around it', () => {
      for (const protocol of [6, 17] as const) {
        const core = coreOf(make, { local: B, offloads: MERGE_ALL });
        const packets = burst(9, { protocol });
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
      const packets = burst(4);
      const at = { first: 0, second: 1, last: 3 }[which] as number;
      const bad = wire.edited(packets[at] as Uint8Array, 36, 0, 0);
      const made = receive(core, packets.with(at, bad));
      expect(packetsIn(made)).toEqual({ first: [1, 3], second: [1, 1, 2], last: [3, 1] }[which]);
      expect(hex(made[at === 3 ? 1 : at]?.bytes as Uint8Array)).toBe(hex(wire.frameOf(bad)));
    });

    test('V3 every byte that the checksum covers', () => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      for (const protocol of [6, 17] as const) {
        const [first, second] = burst(2, { protocol }, 9) as [Uint8Array, Uint8Array];
        for (let at = 24; at < second.length; at++) {
          const bad = wire.edited(second, at, (second[at] as number) ^ 0x40);
          expect({ at, made: packetsIn(receive(core, [first, bad])) }).toEqual({ at, made: [1, 1] });
        }
      }
    });

    test('PSH ends a super-packet, and it has it; so does a shorter packet', () => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      const [first, second] = [burst(3, { flags: ACK | PSH }), burst(3, { id: 4, sequence: 301 })];
      const made = receive(core, [...first, ...second]);
      expect(packetsIn(made)).toEqual([3, 3]);
      expect(made.map((message) => message.bytes[abi.VIRTIO_SIZE + 33])).toEqual([ACK | PSH, ACK]);

      const shorter = wire.packetOf({ id: 4, sequence: 301, payload: wire.payloadOf(99) });
      const next = wire.packetOf({ id: 5, sequence: 400, payload: wire.payloadOf(99) });
      expect(packetsIn(receive(core, [...burst(3), shorter, next]))).toEqual([4, 1]);
      // PSH opens nothing, so what follows is on its own; and what follows that can be opened.
      const pushed = burst(1, { flags: ACK | PSH });
      expect(packetsIn(receive(core, [...pushed, ...burst(3, { id: 2, sequence: 101 })]))).toEqual([1, 3]);
    });

    test('a super-packet has at most 64 packets, and 65,535 bytes', () => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      expect(packetsIn(receive(core, burst(65)))).toEqual([64, 1]);
      expect(packetsIn(receive(core, burst(65, { protocol: 17 })))).toEqual([64, 1]);
      // 40 + 5 * 13,099 = 65,535.
      const exact = [0, 1, 2, 3, 4].map((n) =>
        wire.packetOf({ id: n, sequence: 13099 * n, payload: wire.payloadOf(13099, n) }),
      );
      const made = receive(core, exact);
      expect([packetsIn(made), withoutHeader(made[0] as Message).length]).toEqual([[5], 65535]);
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
      const flow = (sourcePort: number) => burst(3, { sourcePort });
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
      // Packets that are dropped close nothing.
      expect(packetsIn(receive(core, [one, two.subarray(0, 30), two, three]))).toEqual([3]);
      // As many flows as there are buckets.
      const each = new Map(ports.map((port) => [bucketOf(port), port]));
      expect(each.size).toBe(abi.MERGE_BUCKETS);
      const all = [...each.values()].map((port) => burst(2, { sourcePort: port }));
      expect(packetsIn(receive(core, [...all.map((p) => p[0]), ...all.map((p) => p[1])] as Uint8Array[]))).toEqual(
        Array(abi.MERGE_BUCKETS).fill(2),
      );
    });

    test('nothing is kept from one call to the next', () => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      const [one, two] = burst(2) as [Uint8Array, Uint8Array];
      expect([packetsIn(receive(core, [one])), packetsIn(receive(core, [two]))]).toEqual([[1], [1]]);
      // Nor from the other direction: here is a flow of each bucket.
      const flows = new Map(
        Array.from({ length: 1000 }, (_, n) => burst(2, { sourcePort: n })).map((p) => [bucket(p[0] as Uint8Array), p]),
      );
      for (const flow of flows.values()) {
        send(core, [
          wire.superFrame({ source: 0x0a102107, destination: CONTAINER_C, payload: wire.payloadOf(300) }, 100),
        ]);
        expect(core.verdict(0)).toBe(abi.FORWARD);
        expect(packetsIn(receive(core, flow))).toEqual([2]);
      }
      // Also if the first call ended early, or dropped all.
      expect([packetsIn(receive(core, [one, one.subarray(0, 9)])), packetsIn(receive(core, [two]))]).toEqual([
        [1],
        [1],
      ]);
    });

    test('a merged packet is forwarded, to the byte, without being copied', () => {
      const core = coreOf(make, { local: B, offloads: MERGE_ALL });
      const packets = burst(10);
      for (const [i, packet] of packets.entries()) core.put(i, wire.grePacket(A, B, packet));
      core.decapsulate(0, packets.length, 0);
      expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_IOV_COUNT)).toBe(11);
      const pieces = Array.from({ length: 11 }, (_, i) => word(core, abi.IOVS + i * abi.IOV_SIZE));
      expect(pieces).toEqual([
        abi.HEADERS,
        core.slot(0) + 24,
        ...packets.slice(1).map((_, i) => core.slot(i + 1) + 24 + 40),
      ]);
      const { packets: count, bytes } = core.messageCargo(0);
      expect({ packets: count, bytes }).toEqual({ packets: 10, bytes: 1400 });
      expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 10, bytes: 1400 });
      core.refuse(0);
      expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 0, bytes: 0 });
      expect(core.counters('inbound').drops[-abi.DROP_NOT_WRITTEN]).toBe(10);
    });

    describe('open checksums', () => {
      const open = (parts: wire.Parts) => wire.partial(wire.packetOf(parts));
      const NEEDS_CSUM = 1;

      test.each<[name: string, parts: wire.Parts, virtio: wire.Virtio]>([
        ['TCP', {}, { start: 20, offset: 16 }],
        ['TCP, no payload', { payload: new Uint8Array(0) }, { start: 20, offset: 16 }],
        ['TCP, options', { tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] }, { start: 24, offset: 16 }],
        ['TCP, just the MTU', { payload: wire.payloadOf(1436) }, { start: 20, offset: 16 }],
        [
          'TCP, one byte more',
          { payload: wire.payloadOf(1437) },
          { type: 1, headerLength: 40, size: 1436, start: 20, offset: 16 },
        ],
        [
          'TCP, 60,000 bytes and options',
          { payload: wire.payloadOf(60000), tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] },
          { type: 1, headerLength: 56, size: 1420, start: 24, offset: 16 },
        ],
        ['UDP', { protocol: 17 }, { start: 20, offset: 6 }],
        ['UDP, no payload', { protocol: 17, payload: new Uint8Array(0) }, { start: 20, offset: 6 }],
        ['UDP, longer than the MTU', { protocol: 17, payload: wire.payloadOf(5000) }, { start: 20, offset: 6 }],
      ])('the virtio header says so: %s', (_, parts, virtio) => {
        const core = coreOf(make, { local: B, offloads: VIRTIO });
        const made = receive(core, [open(parts)]);
        expect(hexes(made.map(({ bytes }) => bytes))).toEqual([
          hex(wire.frameOf(open(parts), { flags: NEEDS_CSUM, ...virtio })),
        ]);
        expect(packetsIn(made)).toEqual([1]);
        // A device that takes no virtio header takes no open checksum either.
        const plainCore = coreOf(make, { local: B });
        expect(hexes(receive(plainCore, [open(parts)]).map(({ bytes }) => bytes))).toEqual([hex(wire.packetOf(parts))]);
      });

      test.each<[name: string, packet: Uint8Array]>([
        ['another sum', wire.edited(open({}), 37, (open({})[37] as number) ^ 1)],
        ['a fragment', open({ fragment: MORE_FRAGMENTS })],
        ['another protocol', wire.editedHeader(open({}), 9, 132)],
        ['a TCP header of 4 words', wire.edited(open({}), 32, 0x40)],
        ['a TCP header beyond the end', wire.edited(open({ payload: wire.payloadOf(39) }), 32, 0xf0)],
        ['a UDP header beyond the end', wire.editedHeader(open({ protocol: 17 }), 2, 0, 27).subarray(0, 27)],
      ])('not open: %s', (_, packet) => {
        const core = coreOf(make, { local: B, offloads: MERGE_ALL });
        expect(hexes(receive(core, [packet]).map(({ bytes }) => bytes))).toEqual([hex(wire.frameOf(packet))]);
        const plainCore = coreOf(make, { local: B });
        expect(hexes(receive(plainCore, [packet]).map(({ bytes }) => bytes))).toEqual([hex(packet)]);
      });

      test('the MTU is as configured; one that leaves no payload is none', () => {
        const core = coreOf(make, { local: B, offloads: VIRTIO });
        const packet = open({ payload: wire.payloadOf(2000) });
        for (const [mtu, size] of [
          [576, 536],
          [41, 1],
          [40, 0],
          [0, 0],
          [-1, 0],
          [2040, 0],
          [2039, 1999],
        ] as const) {
          core.configure({ ...config, local: B, mtu });
          const [{ bytes }] = receive(core, [packet]) as [Message];
          expect([mtu, view(bytes).getUint16(abi.VIRTIO_GSO_SIZE, true), bytes[1]]).toEqual([
            mtu,
            size,
            size > 0 ? 1 : 0,
          ]);
        }
      });

      test('completed, a checksum of zero is 0xffff', () => {
        const parts = { payload: new Uint8Array(100) };
        parts.payload.set(wire.packetOf(parts).subarray(36, 38));
        expect(view(wire.packetOf(parts)).getUint16(36)).toBe(0);
        const [{ bytes }] = receive(coreOf(make, { local: B }), [open(parts)]) as [Message];
        expect(view(bytes).getUint16(36)).toBe(0xffff);
      });

      test('a right checksum that happens to be that sum comes out the same', () => {
        for (const protocol of [6, 17] as const) {
          const parts = { protocol, payload: new Uint8Array(1000) };
          const field = protocol === 6 ? 36 : 26;
          const [right, pseudo] = [wire.packetOf(parts), open(parts)].map((packet) => view(packet).getUint16(field));
          // The sum of all but this word is ~right; with it, it is to be ~pseudo.
          view(parts.payload).setUint16(
            0,
            wire.sum(Uint8Array.of(), (right as number) + (~(pseudo as number) & 0xffff)),
          );
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
          const before = wire.packetOf({ ...parts, sequence: 0xffffffff - 998, payload: wire.payloadOf(1000) });
          expect(packetsIn(receive(b, [before, packet]))).toEqual([1, 1]);
        }
      });

      test('it is not merged, and closes its flow', () => {
        const core = coreOf(make, { local: B, offloads: MERGE_ALL });
        for (const protocol of [6, 17] as const) {
          const packets = burst(6, { protocol });
          const made = receive(core, packets.with(2, wire.partial(packets[2] as Uint8Array)));
          expect(packetsIn(made)).toEqual([2, 1, 3]);
          expect(made[1]?.bytes[0]).toBe(NEEDS_CSUM);
        }
      });

      test('all that was open is on the wire as it was meant, when it is sent on', () => {
        const [a, b] = [coreOf(make, { offloads: VIRTIO }), coreOf(make, { local: B, offloads: MERGE_ALL })];
        for (const protocol of [6, 17] as const) {
          for (const length of [0, 1, 100, 1436, 1437, 9000]) {
            const parts = { protocol, payload: wire.payloadOf(length), flags: ACK | PSH };
            const sent = innerOf(
              send(
                a,
                receive(b, [open(parts)]).map(({ bytes }) => bytes),
              ),
            );
            const whole = protocol === 17 || length <= 1436;
            expect(hexes(sent)).toEqual(hexes(whole ? [wire.packetOf(parts)] : wire.cut(wire.packetOf(parts), 1436)));
          }
        }
      });
    });

    describe('datagrams in one buffer', () => {
      const packet = wire.packetOf({});
      const good = datagramOf(packet);
      const bad = wire.edited(good, 2, 0x86);

      test('each has its own way, the descriptor the last word', () => {
        const core = coreOf(make, { local: B });
        for (const [group, verdict] of [
          [[good, bad, good], abi.FORWARD],
          [[good, good, bad], abi.FORWARD],
          [[bad, wire.edited(good, 0, 0x40), bad.subarray(0, 2)], abi.DROP_TRUNCATED],
          [[bad, wire.edited(good, 1, 1)], abi.DROP_GRE_VERSION],
        ] as const) {
          const before = core.counters('inbound').received;
          const made = receiveGroups(core, [group]);
          expect([core.verdict(0), made.length]).toEqual([verdict, group.filter((d) => d === good).length]);
          expect(made.every(({ bytes }) => hex(bytes) === hex(packet))).toBe(true);
          expect(core.counters('inbound').received - before).toBe(group.length);
          expect(networkOrder(core.peer(0))).toBe(A);
        }
      });

      test('the peer is checked as an outer source is', () => {
        const core = coreOf(make, { local: B });
        for (const [peer, verdict] of [
          [A, abi.FORWARD],
          [B, abi.DROP_FOREIGN_UNDERLAY],
          [C, abi.DROP_SPOOFED_SOURCE],
          [0, abi.DROP_FOREIGN_UNDERLAY],
          [0xc0a90001, abi.DROP_FOREIGN_UNDERLAY],
        ] as const) {
          receiveGroups(core, [[good, good]], peer);
          expect([peer, core.verdict(0)]).toEqual([peer, verdict]);
        }
        expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 2 });
      });

      test('a peer of 0 is nobody, even where the underlay prefix has it', () => {
        const core = coreOf(make, { local: B });
        const [mapping] = config.mappings as [(typeof config.mappings)[number]];
        core.configure({ local: 0x1021, mappings: [{ ...mapping, underlay: 0 }] });
        receiveGroups(core, [[datagramOf(wire.packetOf({ source: 0x0a000005 }))]], 0);
        expect(core.verdict(0)).toBe(abi.DROP_FOREIGN_UNDERLAY);
      });

      test('nothing at all is one empty datagram', () => {
        const core = coreOf(make, { local: B });
        core.describeDatagrams(0, 0, 100, networkOrder(A));
        expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
        expect(core.counters('inbound').received).toBe(1);
      });

      test('more than there are messages, and just as many', () => {
        const core = coreOf(make, { local: B });
        core.describeDatagrams(0, abi.MESSAGES + 1, 1, networkOrder(A));
        expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_BAD_DESCRIPTOR]);
        expect(core.counters('inbound').received).toBe(1);
        core.describeDatagrams(0, abi.MESSAGES, 1, networkOrder(A));
        expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
        expect(core.counters('inbound').received).toBe(1 + abi.MESSAGES);
        core.describeDatagrams(0, abi.MESSAGES * 2 - 1, 2, networkOrder(A));
        expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
      });

      test('what does not fit the tables is left for the next call, whole', () => {
        const core = coreOf(make, { local: B, offloads: VIRTIO });
        const group = Buffer.concat(Array.from({ length: 400 }, () => good));
        for (let i = 0; i < 4; i++) {
          core.bytes.set(group, core.slot(i));
          core.describeDatagrams(i, group.length, good.length, networkOrder(A));
        }
        core.put(3, wire.grePacket(A, B, packet));
        expect([core.decapsulate(0, 4, 0), core.messageCount()]).toEqual([2, 800]);
        expect(core.counters('inbound').received).toBe(800);
        expect([core.decapsulate(2, 4, 0), core.messageCount()]).toEqual([4, 401]);
        expect(core.counters('inbound')).toMatchObject({ received: 1201, forwarded: 1201 });
      });
    });
  });

  describe('GRE-in-UDP', () => {
    const udpVm = (devices: CoreDevices): Vm => ({ encapsulation: 'gre-udp', ...devices });

    test('U1 the destination port is 4754, at the address of the VM', () => {
      const core = coreOf(make, udpVm({ ports: 8 }));
      const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
      const name = abi.NAMES + message.index * abi.NAME_SIZE;
      expect(hex(core.bytes.subarray(name, name + 8))).toBe(`0200${(4754).toString(16)}c0a81021`);
      const control = abi.MESSAGE_TABLE + message.index * abi.MESSAGE_SIZE + abi.MESSAGE_CONTROL_LENGTH;
      expect(word(core, control)).toBe(0);
    });

    test('U1 the format GRE names no port', () => {
      const core = coreOf(make, {});
      const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
      const name = abi.NAMES + message.index * abi.NAME_SIZE;
      expect(hex(core.bytes.subarray(name, name + 8))).toBe('02000000c0a81021');
    });

    test.each([1, 2, 3, 7, 8])('U2 the port is that of the flow, and all %i are used', (ports) => {
      const core = coreOf(make, udpVm({ ports }));
      const flows = Array.from({ length: 400 }, (_, n) => ({
        protocol: n % 3 === 0 ? (17 as const) : (6 as const),
        sourcePort: 1024 + n * 7,
        destination: n % 2 === 0 ? 0x0a102107 : 0x0a102208,
      }));
      const used = new Map<number, number>();
      for (const flow of flows) {
        const first = wire.packetOf(flow);
        // Nothing but addresses, protocol and ports counts.
        const other = wire.packetOf({
          ...flow,
          ttl: 9,
          id: 99,
          tos: 4,
          sequence: 77,
          flags: SYN,
          payload: wire.payloadOf(3),
          ipOptions: [1, 1, 1, 1],
        });
        const made = sendPackets(core, [first, other]);
        const expected = portOf(first, ports);
        expect(made.map(({ port }) => port)).toEqual([expected, expected]);
        used.set(expected, (used.get(expected) ?? 0) + 1);
      }
      expect([...used.keys()].sort()).toEqual(Array.from({ length: ports }, (_, i) => i));
      // Nearly the same share for each.
      expect(Math.min(...used.values())).toBeGreaterThan(flows.length / ports / 2);
    });

    test.each([0, 1, 6, 17, 33, 47, 50, 132, 136, 255])('U2 protocol %i: ports where it has some', (protocol) => {
      const core = coreOf(make, udpVm({ ports: 8 }));
      const packets = Array.from({ length: 64 }, (_, n) =>
        wire.editedHeader(wire.packetOf({ sourcePort: n * 999 }), 9, protocol),
      );
      const made = new Set(packets.map((packet) => sendPackets(core, [packet])[0]?.port));
      expect(made.size > 1).toBe([6, 17, 33, 132, 136].includes(protocol));
      for (const packet of packets) {
        // Too short for ports: as if they were 0.
        for (const length of [20, 21, 23, 24]) {
          const short = wire.editedHeader(packet, 2, 0, length).subarray(0, length);
          expect(sendPackets(core, [short])[0]?.port).toBe(portOf(short, 8));
        }
        expect(sendPackets(core, [packet])[0]?.port).toBe(portOf(packet, 8));
      }
    });

    test('U2 the segments of a super-packet stay on one port', () => {
      const core = coreOf(make, { ...udpVm({ ports: 8 }), offloads: VIRTIO });
      for (let n = 0; n < 50; n++) {
        const parts = { sourcePort: 1000 + n, payload: wire.payloadOf(1000) };
        const made = send(core, [wire.superFrame(parts, 100)]);
        expect([made.length, new Set(made.map(({ port }) => port))]).toEqual([
          10,
          new Set([portOf(wire.packetOf(parts), 8)]),
        ]);
      }
    });

    test('U4 the fragments of a packet keep one port, whatever their first bytes', () => {
      const core = coreOf(make, udpVm({ ports: 8 }));
      const ports = new Set<number | undefined>();
      for (let n = 0; n < 64; n++) {
        const destination = 0x0a102102 + n;
        const fragments = [MORE_FRAGMENTS, MORE_FRAGMENTS | 10, 20, 0x1fff, MORE_FRAGMENTS | 0x8000].map(
          (fragment, i) => wire.packetOf({ protocol: 17, destination, fragment, sourcePort: n * 977 + i * 4099 }),
        );
        const used = new Set(fragments.map((fragment) => sendPackets(core, [fragment])[0]?.port));
        expect(used.size).toBe(1);
        for (const port of used) ports.add(port);
      }
      expect(ports.size).toBe(8);
    });

    test.each<[name: string, lengths: number[], expected: number[]]>([
      ['one length', [100, 100, 100], [3]],
      ['the last one shorter', [100, 100, 50], [3]],
      ['nothing follows a shorter one', [100, 50, 50, 50], [2, 2]],
      ['nothing follows a shorter one, not even the first length', [100, 50, 100], [2, 1]],
      ['a longer one', [50, 100, 100], [1, 2]],
      ['64 at most', [...Array<number>(127).fill(60), 59], [64, 64]],
      ['64 at most, even if a shorter one comes', [...Array<number>(64).fill(60), 59], [64, 1]],
      ['65,507 bytes, just', Array<number>(13).fill(5039 - 4), [13]],
      ['65,507 bytes and 13 more', Array<number>(13).fill(5040 - 4), [12, 1]],
      ['a shorter one that fits 65,507 bytes', [...Array<number>(12).fill(5040 - 4), 5027 - 4], [13]],
      ['a shorter one that does not', [...Array<number>(12).fill(5040 - 4), 5028 - 4], [12, 1]],
      ['the largest', [65535 - 32], [1]],
    ])('datagrams of one size are one message: %s', (_, lengths, expected) => {
      const packets = lengths.map((length, n) => wire.packetOf({ payload: wire.payloadOf(length - 40, n) }));
      const core = coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT }));
      const made = sendPackets(core, packets);
      expect(packetsIn(made)).toEqual(expected);
      expect(hexes(innerOf(made, 4))).toEqual(hexes(packets));
      // Each in a message of its own, where the socket cannot divide them.
      const single = sendPackets(coreOf(make, udpVm({ ports: 1 })), packets.slice(0, 3));
      expect(single.map(({ bytes }) => hex(bytes.subarray(4)))).toEqual(hexes(packets.slice(0, 3)));
    });

    test('datagrams to different VMs are different messages, and to different ports', () => {
      const core = coreOf(make, udpVm({ ports: 8, offloads: abi.OFFLOAD_UDP_SEGMENT }));
      const [b, c] = [wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })];
      const made = sendPackets(coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT })), [b, b, c, b, b]);
      expect(made.map(({ peer, cargo }) => [peer, cargo.packets])).toEqual([
        [B, 2],
        [C, 1],
        [B, 2],
      ]);
      const flows = Array.from({ length: 20 }, (_, n) => wire.packetOf({ sourcePort: n }));
      const spread = sendPackets(core, [...flows, ...flows]);
      expect(spread.map(({ port }) => port)).toEqual([...new Set(flows.map((flow) => portOf(flow, 8)))].sort());
      expectSums(core, 'outbound', spread);
    });

    test('the control message of several datagrams, and none for one', () => {
      const core = coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT }));
      const one = wire.packetOf({});
      sendPackets(core, [one, one]);
      const bytes = hex(core.bytes.subarray(abi.CONTROLS, abi.CONTROLS + abi.CONTROL_SIZE));
      // struct cmsghdr: length 18, SOL_UDP, UDP_SEGMENT; then 144 bytes each.
      expect(bytes).toBe(`1200000000000000${'11000000'}${'67000000'}9000`.padEnd(64, '0'));
      expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH)).toBe(24);
      sendPackets(core, [one]);
      expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH)).toBe(0);
      expect(hex(core.bytes.subarray(abi.CONTROLS, abi.CONTROLS + abi.CONTROL_SIZE))).toBe(bytes);
    });
  });

  test.each([0, 0x7fffffff, 0xffffffff, 2 ** 32, 0x7f1234567000, 2 ** 53 - 1])(
    'messages point into memory at %d',
    (base) => {
      const core = coreOf(make, {
        base,
        offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT,
        encapsulation: 'gre-udp',
        ports: 8,
      });
      const memory = new DataView(core.memory);
      const pointer = (at: number) => memory.getBigUint64(at, true) - BigInt(base);
      const pointers = Array.from({ length: abi.MESSAGES }, (_, i) => {
        const message = abi.MESSAGE_TABLE + i * abi.MESSAGE_SIZE;
        return [abi.MESSAGE_NAME, abi.MESSAGE_IOV, abi.MESSAGE_CONTROL].map((field) =>
          Number(pointer(message + field)),
        );
      });
      expect(pointers).toEqual(
        Array.from({ length: abi.MESSAGES }, (_, i) => [
          abi.NAMES + i * abi.NAME_SIZE,
          abi.IOVS + i * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE,
          abi.CONTROLS + i * abi.CONTROL_SIZE,
        ]),
      );
      const parts = { payload: wire.payloadOf(2500) };
      const made = send(core, [wire.superFrame(parts, 1000), wire.frameOf(wire.packetOf({}))]);
      const frames = [...wire.cut(wire.packetOf(parts), 1000), wire.packetOf({})];
      expect(hexes(innerOf(made, 4))).toEqual(hexes(frames));
      // Piece for piece, as the kernel follows them.
      const first = made[0]?.index as number;
      const iovs = Number(pointer(abi.MESSAGE_TABLE + first * abi.MESSAGE_SIZE + abi.MESSAGE_IOV));
      const pieces = Array.from({ length: 6 }, (_, i) => {
        const iov = iovs + i * abi.IOV_SIZE;
        const [start, length] = [Number(pointer(iov)), Number(memory.getBigUint64(iov + abi.IOV_LENGTH, true))];
        return core.bytes.slice(start, start + length);
      });
      expect(hex(Buffer.concat(pieces))).toBe(hex(made[0]?.bytes as Uint8Array));
      expect(pieces.map((piece) => piece.length)).toEqual([44, 1000, 44, 1000, 44, 500]);
      expect(Number(memory.getBigUint64(abi.CONFIG + abi.CONFIG_BASE, true))).toBe(base);
    },
  );

  test('what the devices can do is clamped, and said in the configuration', () => {
    const core = make();
    const said = () => [abi.CONFIG_OFFLOADS, abi.CONFIG_PORTS].map((field) => word(core, abi.CONFIG + field));
    for (const [devices, expected] of [
      [{}, [0, 1]],
      [{ offloads: 0xffffffff, ports: 100 }, [15, 8]],
      [{ offloads: 5, ports: -1 }, [5, 1]],
      [{ offloads: 16, ports: 0 }, [0, 1]],
      [{ ports: 3 }, [0, 3]],
    ] as const) {
      core.attach(devices);
      expect(said()).toEqual(expected);
    }
    // The configuration does not touch it, nor the other way round.
    core.attach({ offloads: 3, ports: 4 });
    core.configure({ ...config, key: 9, encapsulation: 'gre-udp' });
    expect(said()).toEqual([3, 4]);
    core.attach({});
    expect(word(core, abi.CONFIG + abi.CONFIG_ENCAPSULATION)).toBe(abi.ENCAPSULATION_GRE_UDP);
    expect(word(core, abi.CONFIG + abi.CONFIG_KEY)).toBe(9);
  });
});

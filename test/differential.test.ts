/** The twins leave the same bytes: all of memory is compared, after mutated packets, super-packets, flows, nonsense and tunnel churn. */
import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  abi,
  type CoreConfig,
  type CoreDevices,
  type Encapsulation,
  overhead,
  type PacketCore,
} from '../src/core/index.ts';
import { config, cores, hex, messages, word } from './core.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { CHANGES, grouped, groupings, superPackets, traffic } from './traffic.ts';

const folder = new URL('./vectors/', import.meta.url);
const seeds: Uint8Array[] = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .flatMap((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')).vectors)
  .map((vector: { input: string }) => Uint8Array.from(Buffer.from(vector.input, 'hex')))
  .filter((packet: Uint8Array) => packet.length < 2000);

/** null three times out of four. */
const seldom = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });

/** The first, nine times out of ten. */
const usually = (first: number, ...others: number[]) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(first) }, { weight: 1, arbitrary: fc.constantFrom(...others) });

/** Up to a whole batch, and often nearly that many: fast-check's own size is ten. */
const manyOf = <T>(arbitrary: fc.Arbitrary<T>, maxLength: number = abi.BATCH_SIZE) =>
  fc.array(arbitrary, { maxLength, size: 'medium' });

// Packets. Those that are not taken from the vectors go from VM `A` to VM `B`.

const [A, B] = [0xc0a81020, 0xc0a81021];

/** What is put before a descriptor's bytes: a virtio header outbound, and inbound what makes of an inner packet an underlay packet. */
interface Item {
  bytes: Uint8Array;
  virtio: wire.Virtio;
  /** The packet is one between containers: inbound it needs its outer headers. */
  inner: boolean;
  /** Bytes of each datagram, if there are several. */
  segment?: number;
  /** Type of service of the outer header, inbound. */
  tos?: number;
}

interface Edits {
  edits: readonly { at: number; byte: number }[];
  cut: number | null;
  fix: boolean;
}

const edits: fc.Arbitrary<Edits> = fc.record({
  edits: fc.array(fc.record({ at: fc.nat(60), byte: fc.nat(255) }), { maxLength: 4 }),
  cut: seldom(fc.nat(100)),
  fix: fc.boolean(),
});

/** Some bytes changed, and perhaps cut; the outer or only header checksum perhaps put right, so that it gets further. */
function mutate(bytes: Uint8Array, { edits, cut, fix }: Edits): Uint8Array {
  const packet = bytes.slice(0, cut === null ? undefined : bytes.length - Math.min(cut, bytes.length));
  for (const { at, byte } of edits) if (at < packet.length) packet[at] = byte;
  const header = ((packet[0] ?? 0) & 15) * 4;
  return fix && header >= 20 && header <= packet.length ? wire.forwarded(packet, 0) : packet;
}

const virtio: fc.Arbitrary<wire.Virtio> = fc.oneof(
  { weight: 4, arbitrary: fc.constant({}) },
  {
    weight: 1,
    arbitrary: fc.record({
      flags: fc.constantFrom(0, 1, 1, 2, 255),
      type: fc.constantFrom(0, 0, 0, 0x80, 1, 3, 4, 5, 0x81, 0x85),
      headerLength: fc.nat(0xffff),
      size: fc.constantFrom(0, 1, 2, 9, 200, 0xffff),
      start: fc.constantFrom(0, 19, 20, 20, 24, 34, 0xffff),
      offset: fc.constantFrom(0, 6, 16, 16, 100, 0xffff),
    }),
  },
);

const mutated: fc.Arbitrary<Item> = fc
  .record({ seed: fc.constantFrom(...seeds), change: edits, virtio })
  .map(({ seed, change, virtio }) => ({ bytes: mutate(seed, change), virtio, inner: false }));

const nonsense: fc.Arbitrary<Item> = fc
  .record({ bytes: fc.uint8Array({ maxLength: 100 }), virtio })
  .map((item) => ({ ...item, inner: false }));

/** Super-packets, mostly good ones; the numbers of their virtio headers now and then others, and so their bytes. */
const superPacket: fc.Arbitrary<Item> = fc
  .record({ packet: superPackets, change: seldom(edits), virtio: seldom(virtio), trailing: fc.nat(3) })
  .map(({ packet: { parts, size }, change, virtio, trailing }) => {
    const whole = wire.partial(wire.packetOf(parts));
    const bytes = Uint8Array.from([...(change ? mutate(whole, change) : whole), ...Array<number>(trailing).fill(7)]);
    const right = { flags: 1, type: parts.protocol === 6 ? 1 : 5, headerLength: wire.headersLength(whole), size };
    const offset = parts.protocol === 6 ? 16 : 6;
    return { bytes, virtio: { ...right, start: 20 + (parts.ipOptions?.length ?? 0), offset, ...virtio }, inner: true };
  });

/** So many segments that few of them fill the tables. */
const heavy: fc.Arbitrary<Item> = fc
  .record({ segments: fc.integer({ min: 60, max: 512 }), sourcePort: fc.nat(9), size: fc.constantFrom(7, 128, 300) })
  .map(({ segments, sourcePort, size }) => {
    const payload = wire.payloadOf(Math.min(segments * size, 65_495));
    const frame = wire.superFrame({ sourcePort, payload }, size);
    return { bytes: frame.slice(10), virtio: { flags: 1, type: 1, size, start: 20, offset: 16 }, inner: true };
  });

const longest: fc.Arbitrary<Item> = fc.integer({ min: 65400, max: 65535 }).chain((length) =>
  fc.constantFrom<wire.Virtio>({}, { type: 1, size: 65440 }, { type: 1, size: 1400 }).map((virtio) => {
    const bytes = wire.packetOf({ payload: wire.payloadOf(length - 40) });
    return { bytes, virtio, inner: true };
  }),
);

/** The numbers of sequences, around those that matter. */
const sequences = fc.constantFrom(0, 1, 5, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff);

/** Packets of any length and options, with DF or without, fragments of packets, SYNs: what does not fit is fragmented, or answered. */
const various: fc.Arbitrary<Item> = fc
  .record({
    protocol: fc.constantFrom<6 | 17>(6, 6, 17),
    length: fc.oneof(fc.nat(100), fc.nat(3000), fc.integer({ min: 1400, max: 1500 }), fc.nat(65000)),
    fragment: fc.constantFrom(0, 0, 0, wire.DONT_FRAGMENT, wire.MORE_FRAGMENTS, 100, 0x9fff, 0x8000),
    ipOptions: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(fc.constantFrom(0, 1, 1, 2, 3, 4, 7, 9, 0x82, 0x83, 0xff), { maxLength: 40 }) },
    ),
    tcpOptions: fc.oneof(
      fc.constantFrom(
        [],
        [2, 4, 5, 0xb4],
        [1, 2, 4, 0xff, 0xff, 0],
        [4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4],
      ),
      fc.array(fc.constantFrom(0, 1, 1, 2, 2, 3, 4, 4, 5, 9, 0xff), { maxLength: 40 }),
    ),
    flags: fc.constantFrom(wire.ACK, wire.SYN, wire.SYN | wire.ACK),
    tos: fc.nat(255),
    ttl: fc.nat(255),
    destination: usually(0x0a102107, 0x0b000001, 0x0a102107, 0x0a102007, 0x0a102100, 0xe0000001, 0xffffffff),
    open: fc.boolean(),
    outer: fc.nat(255),
  })
  .map(({ length, open, outer, ...parts }) => {
    const packet = wire.packetOf({ ...parts, payload: wire.payloadOf(Math.min(length, 65535 - 120), length) });
    const start = ((packet[0] as number) & 15) * 4;
    const asked = open ? { flags: 1, start, offset: parts.protocol === 6 ? 16 : 6 } : {};
    return { bytes: open ? wire.partial(packet) : packet, virtio: asked, inner: true, tos: outer };
  });

/** What ICMP messages from the underlay say, mostly such that are believed. */
const icmp = fc.record({
  type: usually(3, 3, 4, 11),
  code: fc.oneof(fc.constant(4), fc.nat(16)),
  mtu: fc.oneof(fc.constantFrom(0, 67, 68, 92, 100, 600, 1300, 1499, 1500), fc.nat(1600)),
  total: fc.constantFrom(1500, 1500, 576, 69, 65535),
  fromRouter: fc.boolean(),
  /** Options that are not those which are configured. */
  options: usually(0, 1, 2, 4, 7),
  udp: usually(0, 1),
  quoted: usually(48, 28, 27, 29, 36, 41),
  change: seldom(edits),
});

/** Such a message about a packet that the core's VM sent, or nearly so. */
function messageTo(
  core: PacketCore,
  { type, code, mtu, total, ...rest }: typeof icmp extends fc.Arbitrary<infer T> ? T : never,
) {
  const [self, options] = [word(core, abi.CONFIG), word(core, abi.CONFIG + abi.CONFIG_OPTIONS) ^ rest.options];
  const udp = (word(core, abi.CONFIG + abi.CONFIG_ENCAPSULATION) ^ rest.udp) !== 0;
  const peer = self === A ? B : A;
  const gre = {
    key: options & 1 ? word(core, abi.CONFIG + abi.CONFIG_KEY) : undefined,
    checksum: (options & 2) > 0,
    sequence: options & 4 ? 7 : undefined,
  };
  const header = [...(udp ? [0xc3, 0x50, 0x12, 0x92, 0, 0, 0, 0] : []), ...wire.greHeader(gre, new Uint8Array(0))];
  const packet = wire.ipv4Around({ source: self, destination: peer, protocol: udp ? 17 : 47 }, [
    ...header,
    ...Array<number>(20).fill(0x45),
  ]);
  const told = wire.editedHeader(packet, 2, total >> 8, total & 255).subarray(0, rest.quoted);
  const message = wire.icmpMessage(type, code, mtu, told);
  const source = rest.fromRouter ? 0xc0a80001 : peer;
  const bytes = wire.ipv4Around({ source, destination: self, protocol: 1 }, message);
  return rest.change ? mutate(bytes, rest.change) : bytes;
}

const ofTraffic = traffic.map((packets): Item[] =>
  packets.slice(0, abi.BATCH_SIZE).map((bytes) => ({ bytes, virtio: {}, inner: true })),
);

const GRE_HEADERS = [
  [0, 0, 8, 0],
  [0, 0, 8, 0],
  [0, 0, 8, 0],
  [0x20, 0, 8, 0, 0, 0, 0, 9],
  [0x10, 0, 8, 0, 1, 2, 3, 4],
  [0x40, 0, 8, 0],
];

/** Flows, in datagrams that lie one after the other; some of them spoilt. */
const datagrams: fc.Arbitrary<Item[]> = fc
  .record({
    packets: traffic,
    header: fc.constantFrom(...GRE_HEADERS),
    lengths: groupings,
    segments: seldom(fc.nat(40)),
    change: seldom(edits),
    repeat: fc.constantFrom(1, 1, 1, 6),
  })
  .map(({ packets, header, lengths, segments, change, repeat }) => {
    const all = packets.map((packet) => Uint8Array.from([...header, ...packet]));
    return grouped(all, lengths.length > 0 ? lengths : [1])
      .slice(0, abi.BATCH_SIZE)
      .map((group, n) => {
        const whole = Buffer.concat(Array(repeat).fill(group).flat()).subarray(0, 65535);
        const bytes = change && n % 7 === 0 ? mutate(whole, { ...change, fix: false }) : whole;
        return { bytes, virtio: {}, inner: false, segment: segments ?? (group[0]?.length as number) };
      });
  });

/** A second mesh, 240.0.0.0/4 over 10.0.0.0/8, has so many VMs that more of them share a set of the tunnel table than it has ways. */
const large: CoreConfig = {
  local: 0x0a000001,
  mappings: [{ overlay: 0xf0000000, overlayLength: 4, underlay: 0x0a000000, underlayLength: 8 }],
};
const setOf = (vm: number) => Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2);
const rivals: number[] = [];
for (let vm = 0x0a000002; rivals.length < 3 * abi.TUNNEL_WAYS; vm++) if (setOf(vm) < 2) rivals.push(vm);

/** Packets of the second mesh to VMs that share two sets, so that tunnels evict each other. */
const crowd: fc.Arbitrary<Item> = fc.constantFrom(...rivals).map((vm) => {
  const vmBits = (address: number) => (address & 0xffffff) << 4;
  const [source, destination] = [(0xf0000002 | vmBits(large.local)) >>> 0, (0xf0000003 | vmBits(vm)) >>> 0];
  return { bytes: wire.ipv4Packet(source, destination, 4), virtio: {}, inner: false };
});

const packet = fc.oneof(
  { weight: 4, arbitrary: mutated },
  { weight: 1, arbitrary: nonsense },
  { weight: 3, arbitrary: superPacket },
);

// What is done with them.

const batch = fc.record({
  outbound: fc.boolean(),
  /** Before that, these are heard of. */
  heard: seldom(manyOf(icmp, 20)),
  items: fc.oneof(
    { weight: 3, arbitrary: manyOf(packet) },
    { weight: 2, arbitrary: manyOf(superPacket, 40) },
    { weight: 1, arbitrary: manyOf(fc.oneof(heavy, heavy, packet), 30) },
    { weight: 1, arbitrary: manyOf(fc.oneof(longest, superPacket), 4) },
    { weight: 3, arbitrary: ofTraffic },
    { weight: 3, arbitrary: datagrams },
    { weight: 5, arbitrary: manyOf(various) },
    { weight: 1, arbitrary: manyOf(fc.oneof(various, superPacket), 20) },
  ),
  /** These instead, where there is such a mesh. */
  crowd: manyOf(crowd),
  /** How many the call is told: more or fewer than there are; and where it begins. */
  extra: usually(0, -1, 1, 200, -2147483648, 2147483647),
  first: usually(0, 1, 5, -1, 200, -2147483648, 2147483647),
  /** Bytes that packets lie after where they usually do. */
  shift: usually(0, 1, 2, 7),
  /** What the host knows of merging, inbound. */
  merged: usually(0, abi.NOT_MERGED, 1, 100, 1000, 0xffff, 0x80000000),
  /** GRE headers inbound are as configured, or have nothing; with a checksum or without; their numbers go on from here. */
  gre: fc.record({ configured: fc.nat(3).map((n) => n > 0), checksum: fc.boolean(), sequence: sequences }),
  now: fc.oneof(
    { weight: 8, arbitrary: fc.nat(1000) },
    { weight: 2, arbitrary: fc.nat(1_000_000) },
    { weight: 1, arbitrary: fc.constantFrom(NaN, Infinity, -Infinity, -1, -0, 0.5, 4e12, 4e12 - 0.5, 1e300, 2 ** 53) },
  ),
  expire: seldom(fc.nat(1000)),
  /** One part in so many goes on. */
  divisor: seldom(fc.constantFrom(1, 2, 3, 16, 128, 0, -1, 0x7fffffff)),
  /** Every so many messages the host could not write, for the reason with this ICMP code. */
  refused: seldom(fc.record({ every: fc.integer({ min: 1, max: 9 }), code: fc.constantFrom(-1, 0, 1, 10, 15, 16) })),
  /** A descriptor with nonsense in it. */
  descriptor: seldom(
    fc.record({
      index: fc.nat(abi.BATCH_SIZE - 1),
      address: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: abi.SLOTS, max: abi.SLOTS + 100 })),
      length: fc.oneof(fc.nat(0xffffffff), fc.nat(2000)),
      segment: fc.constantFrom(0, 0, 1, 2, 100, 0x7fffffff, 0x80000000, 0xffffffff),
    }),
  ),
});
type Batch = typeof batch extends fc.Arbitrary<infer T> ? T : never;

const prefixLength = fc.integer({ min: -1, max: 33 });
const address = fc.oneof(fc.constantFrom(0x0a000000, 0xc0a81020, 0xf0000000, 0), fc.nat(0xffffffff));
const mapping = fc.record({
  overlay: address,
  overlayLength: prefixLength,
  underlay: address,
  underlayLength: prefixLength,
});

const devices: fc.Arbitrary<CoreDevices> = fc.record({
  base: fc.constantFrom(0, 0, 0x1000, 0xffffffff, 2 ** 32, 0x7f1234567000, 2 ** 53 - 1),
  offloads: fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom(7, 15) },
    { weight: 4, arbitrary: fc.nat(15) },
    { weight: 1, arbitrary: fc.nat(0xffffffff) },
  ),
  ports: fc.constantFrom(1, 1, 2, 3, 8, 8, 0, -1, 9, 2147483647, -2147483648),
});

const setup = fc.record({
  base: fc.constantFrom(undefined, config, config, config, config, config, config, large, large),
  key: fc.constantFrom(undefined, undefined, undefined, undefined, 9, 0xffffffff, 0),
  ttl: fc.constantFrom<number | 'inherit'>(64, 255, 0, 256, -1, 'inherit'),
  mtu: fc.constantFrom(1476, 1476, 576, 100, 68, 0, -1, 65535, 65535, 2147483647),
  greChecksum: fc.nat(3).map((n) => n === 0),
  greSequence: fc.nat(3).map((n) => n === 0),
  ecn: fc.constantFrom('normal', 'normal', 'compatibility'),
  dscp: fc.constantFrom<number | 'uniform'>(0, 0, 46, -1, 'uniform', 'uniform'),
  pathMtuDiscovery: fc.boolean(),
  clampMss: fc.boolean(),
  encapsulation: fc.constantFrom<Encapsulation>('gre', 'gre-udp'),
  local: fc.constantFrom(A, A, A, B, B, B, 0),
  mappings: fc.oneof(
    { weight: 5, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.array(mapping, { maxLength: 20 }) },
  ),
  devices,
});
type Setup = typeof setup extends fc.Arbitrary<infer T> ? T : never;

/** Source and destination changed places, which no checksum notices. */
function reversed(packet: Uint8Array): Uint8Array {
  if (packet.length < 20) return packet;
  return wire.edited(packet, 12, ...packet.subarray(16, 20), ...packet.subarray(12, 16));
}

/** Puts what the VM `local` would read where it would. */
function put(core: PacketCore, local: number, { outbound, items, shift, merged, gre }: Batch): void {
  const options = word(core, abi.CONFIG + abi.CONFIG_OPTIONS);
  const isNumbered = gre.configured && (options & abi.OPTION_SEQUENCE) !== 0;
  const key = gre.configured && options & abi.OPTION_KEY ? word(core, abi.CONFIG + abi.CONFIG_KEY) : undefined;
  const hasVirtio = (word(core, abi.CONFIG + abi.CONFIG_OFFLOADS) & abi.OFFLOAD_VIRTIO) !== 0;
  for (const [i, { bytes, virtio, inner, segment, tos = 0 }] of items.entries()) {
    const packet = inner && outbound !== (local === A) ? reversed(bytes) : bytes;
    const peer = local === A ? B : A;
    const address = core.slot(i) + shift;
    if (outbound && hasVirtio) {
      core.bytes.set(wire.frameOf(packet, virtio), address - abi.VIRTIO_SIZE);
      core.describe(i, packet.length + abi.VIRTIO_SIZE, address - abi.VIRTIO_SIZE);
    } else if (!outbound && segment !== undefined) {
      core.bytes.set(packet, core.slot(i));
      core.describeDatagrams(i, packet.length, segment, peer, gre.sequence);
    } else {
      const sequence = isNumbered ? (gre.sequence + i) >>> 0 : undefined;
      const header = wire.greHeader({ key, checksum: gre.checksum, sequence }, packet);
      const whole =
        !outbound && inner && packet.length < 65400
          ? wire.ipv4Around({ source: peer, destination: local, tos }, [...header, ...packet])
          : packet;
      core.bytes.set(whole.subarray(0, abi.SLOT_SIZE - abi.HEADROOM - shift), address);
      core.describe(i, Math.min(whole.length, abi.SLOT_SIZE - abi.HEADROOM - shift), address, merged);
    }
  }
}

/** As an i32, which is what a core is told. */
const countOf = ({ items, extra }: Batch) => (items.length + extra) | 0;

/** Mappings that do not fit make `configure` throw, in both twins alike; those before them stay. */
function configure(core: PacketCore, { base, local, mappings, devices, ...rest }: Setup): string {
  core.attach(devices);
  const options: CoreConfig = {
    ...rest,
    local: base === large ? large.local : local,
    mappings: [...(base?.mappings ?? []), ...mappings],
  };
  try {
    core.configure(options);
    return 'fits';
  } catch (error) {
    return String(error);
  }
}

/** All of memory but what the core noted for itself. */
function same(a: PacketCore, b: PacketCore): void {
  for (const [start, end] of [
    [0, abi.SCRATCH],
    [abi.SCRATCH + abi.SCRATCH_SIZE, abi.MEMORY_SIZE],
  ] as const) {
    const [left, right] = [a.bytes.subarray(start, end), b.bytes.subarray(start, end)];
    if (Buffer.compare(left, right) === 0) continue;
    const at = left.findIndex((byte, i) => byte !== right[i]);
    expect.fail(`memory differs first at ${start + at}: ${a.name} ${left[at]}, ${b.name} ${right[at]}`);
  }
}

/** Calls until all are handled, as a host does; `each` looks after each call. Ends should the core not go on. */
function run(
  pair: readonly PacketCore[],
  { outbound, first, now, ...rest }: Batch,
  count: number,
  each: () => void,
): number {
  let calls = 0;
  for (let from: number = first; calls < 2 * abi.BATCH_SIZE; calls++) {
    const ends = pair.map((core) =>
      outbound ? core.encapsulate(from, count, now) : core.decapsulate(from, count, now),
    );
    expect(ends).toEqual(ends.map(() => ends[0]));
    each();
    const end = ends[0] as number;
    if (end >= Math.min(Math.max(count, 0), abi.BATCH_SIZE)) break;
    // A call begins with empty tables: it has room for one.
    expect(end).toBeGreaterThan(Math.max(from, 0));
    from = end;
  }
  if (rest.expire !== null) {
    const closed = pair.map((core) => core.expire(rest.expire as number));
    expect(closed).toEqual(closed.map(() => closed[0]));
  }
  return calls + 1;
}

const RUNS = runs(40);

test.each([
  ['wasm', 'typescript'],
  ['wasm, scalar', 'typescript'],
])('R2 %s and %s leave the same memory', { timeout: 600_000 }, (left, right) => {
  const made = [left, right].map((name) => cores.find((c) => c.name === name)?.make() as PacketCore);
  const [a, b] = made as [PacketCore, PacketCore];
  /** What the property has met, so that it is about something. */
  const met = {
    evictions: 0,
    continued: 0,
    cut: 0,
    tcp: 0,
    udp: 0,
    segments: 0,
    ports: 0,
    badOffload: 0,
    tiny: 0,
    overShare: 0,
    overShareInbound: 0,
    tooManyTunnels: 0,
    open: 0,
    whole: 0,
    learnt: 0,
    forgotten: 0,
    replies: 0,
    suppressed: 0,
    anomalies: 0,
    refused: 0,
    tooBig: 0,
    tooLong: 0,
    fragments: 0,
    sequence: 0,
    ecn: 0,
  };
  fc.assert(
    fc.property(setup, fc.array(batch, { minLength: 1, maxLength: 5 }), (options, generated) => {
      const batches = generated.map((each) => ({ ...each, items: options.base === large ? each.crowd : each.items }));
      expect(configure(a, options)).toBe(configure(b, options));
      // A time that is far ahead once takes all tokens for good.
      for (const core of [a, b]) {
        core.bytes.fill(0, abi.REPLY_BUCKETS, abi.REPLIES);
        core.bytes.fill(0, abi.LEASE_BUCKETS, abi.OUTBOUND_SHARES);
      }
      for (const each of batches) {
        if (each.heard !== null) {
          const ends = [a, b].map((core) => {
            for (const [i, said] of each.heard?.entries() ?? []) core.put(i, messageTo(core, said));
            return core.learn(each.first, ((each.heard?.length ?? 0) + each.extra) | 0, each.now);
          });
          expect(ends).toEqual([ends[0], ends[0]]);
          met.learnt += a.tunnels.learnt().length;
          same(a, b);
        }
        for (const core of [a, b]) {
          put(core, options.local, each);
          const { descriptor } = each;
          if (descriptor === null) continue;
          const record = abi.DESCRIPTORS + descriptor.index * abi.DESCRIPTOR_SIZE;
          new Uint32Array(core.memory, record, 2).set([descriptor.address, descriptor.length]);
          new DataView(core.memory).setUint32(record + abi.DESCRIPTOR_SEGMENT, descriptor.segment, true);
        }
        const [before, inbound] = [a.counters('outbound'), a.counters('inbound')];
        if (each.divisor !== null) {
          const direction = each.outbound ? 'outbound' : 'inbound';
          const sources = [a, b].map((core) => core.share(direction, countOf(each), each.divisor as number));
          expect(sources).toEqual([sources[0], sources[0]]);
          same(a, b);
        }
        const calls = run([a, b], each, countOf(each), () => {
          same(a, b);
          met.evictions += a.tunnels.closed().length;
          met.forgotten += a.tunnels.learnt().length;
          for (const { port, index, bytes, content, whole } of messages(a)) {
            if (whole) met.whole++;
            if (port > 0) met.ports++;
            if (each.outbound && a.messages.pieces(index) === 3 && a.messages.segment(index) === bytes.length)
              met.fragments++;
            if (each.outbound && a.messages.segment(index) < bytes.length) met.segments++;
            if (!each.outbound && content.packets === 1 && bytes[abi.VIRTIO_FLAGS] === 1) met.open++;
            if (!each.outbound && content.packets > 1) met[bytes[abi.VIRTIO_SIZE + 9] === 6 ? 'tcp' : 'udp']++;
          }
          if (each.refused === null) return;
          const { every, code } = each.refused;
          for (let message = 0; message < abi.ALL_MESSAGES; message += every) {
            for (const core of [a, b]) core.refuse(message, code, each.now);
            if (message % 4 === 0) for (const core of [a, b]) core.reach(core.messages.peer(message), each.now);
          }
          same(a, b);
        });
        same(a, b);
        if (calls > 1) met.continued++;
        const [after, arrived] = [a.counters('outbound'), a.counters('inbound')];
        const more = (reason: number, now = after, then = before) =>
          (now.drops[-reason] as number) - (then.drops[-reason] as number);
        if (after.forwarded - before.forwarded > abi.BATCH_SIZE) met.cut++;
        met.badOffload += more(abi.DROP_BAD_OFFLOAD);
        met.tiny += more(abi.DROP_TINY_SEGMENTS);
        met.overShare += more(abi.DROP_OVER_SHARE);
        met.overShareInbound += more(abi.DROP_OVER_SHARE, arrived, inbound);
        met.tooManyTunnels += more(abi.DROP_TOO_MANY_TUNNELS);
        met.tooBig += more(abi.DROP_TOO_BIG);
        met.tooLong += more(abi.DROP_TOO_LONG);
        met.replies += after.replies - before.replies;
        met.suppressed += after.suppressed - before.suppressed;
        met.sequence += more(abi.DROP_GRE_SEQUENCE, arrived, inbound);
        met.ecn += more(abi.DROP_ECN, arrived, inbound);
        met.refused += more(abi.DROP_NOT_WRITTEN) + more(abi.DROP_NOT_WRITTEN, arrived, inbound);
        met.anomalies += arrived.anomalies - inbound.anomalies;
      }
      for (const direction of ['outbound', 'inbound', 'icmp'] as const) {
        const { received, forwarded, drops } = a.counters(direction);
        expect(received).toBe(forwarded + drops.reduce((sum, n) => sum + n, 0));
      }
    }),
    { numRuns: RUNS, endOnFailure: false },
  );
  // A short run may meet less.
  if (RUNS >= 500)
    for (const [what, times] of Object.entries(met)) expect({ what, times }).not.toEqual({ what, times: 0 });
});

describe.each(cores)('$name', ({ make }) => {
  /** Where descriptors say that packets are, outbound with the longest outer headers and a virtio header; in ascending order. */
  function described(core: PacketCore, { outbound, items }: Batch): [start: number, end: number][] {
    const virtio = (word(core, abi.CONFIG + abi.CONFIG_OFFLOADS) & abi.OFFLOAD_VIRTIO) !== 0 ? abi.VIRTIO_SIZE : 0;
    return items.map((_, i) => {
      const record = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
      const start = word(core, record + abi.DESCRIPTOR_ADDRESS);
      const end = start + word(core, record + abi.DESCRIPTOR_LENGTH);
      return [
        outbound
          ? start + virtio - overhead('gre', { key: 0, greChecksum: true, greSequence: true }) - abi.VIRTIO_SIZE
          : start,
        end,
      ];
    });
  }

  test('R2 nothing is written outside the packets, and nothing of what the host says', { timeout: 300_000 }, () => {
    const core = make();
    const before = new Uint8Array(abi.MEMORY_SIZE);
    fc.assert(
      fc.property(setup, batch, (options, each) => {
        configure(core, options);
        put(core, options.local, each);
        before.set(core.bytes);
        const gaps: [number, number][] = [[0, abi.OUTBOUND_COUNTERS]];
        let at = abi.SLOTS;
        for (const [start, end] of described(core, each)) {
          gaps.push([at, start]);
          at = end;
        }
        gaps.push([at, abi.MEMORY_SIZE]);
        run([core], { ...each, expire: null }, Math.min(countOf(each), each.items.length), () => {
          for (const [start, end] of gaps) {
            if (Buffer.compare(core.bytes.subarray(start, end), before.subarray(start, end)) === 0) continue;
            expect.fail(`written between ${start} and ${end}`);
          }
        });
        for (let i = 0; i < each.items.length; i++) {
          const record = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
          for (const field of [abi.DESCRIPTOR_ADDRESS, abi.DESCRIPTOR_LENGTH, abi.DESCRIPTOR_SEGMENT, 20, 24, 28]) {
            expect(word(core, record + field)).toBe(new DataView(before.buffer).getUint32(record + field, true));
          }
        }
      }),
      { numRuns: Math.ceil(RUNS / 4), endOnFailure: false },
    );
  });

  test('R2 what lies around a packet does not matter', { timeout: 300_000 }, () => {
    const [a, b] = [make(), make()];
    fc.assert(
      fc.property(setup, batch, fc.nat(0xffffffff), (options, each, seed) => {
        const answers = [a, b].map((core, n) => {
          configure(core, options);
          const words = new Uint32Array(core.memory, abi.SLOTS, (each.items.length * abi.SLOT_SIZE) / 4);
          for (let i = 0; i < words.length; i++) words[i] = n === 0 ? 0 : Math.imul(i + 1, seed | 1);
          put(core, options.local, each);
          const made: unknown[] = [];
          run([core], { ...each, expire: null }, Math.min(countOf(each), each.items.length), () => {
            made.push(messages(core).map(({ bytes, ...rest }) => [hex(bytes), rest.port, rest.peer, rest.content]));
            made.push(each.items.map((_, i) => core.verdict(i)));
          });
          return [made, core.counters('outbound'), core.counters('inbound'), core.tunnels.copy(0)];
        });
        expect(answers[1]).toEqual(answers[0]);
      }),
      { numRuns: Math.ceil(RUNS / 4), endOnFailure: false },
    );
  });
});

test('every change of test/traffic.ts has a name of its own', () => {
  expect(new Set(CHANGES.map(({ protocol, name }) => `${protocol} ${name}`)).size).toBe(CHANGES.length);
});

/** ICMP messages to containers whose packets cannot be delivered: what they say, who gets them, and how many. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, overhead, type PacketCore } from '../src/core/index.ts';
import { cores, hex, putFrame, word } from './core.ts';
import * as wire from './packet.ts';
import { A, B, coreOf, hexes, VIRTIO, view } from './vms.ts';

const { DONT_FRAGMENT, MORE_FRAGMENTS } = wire;
const [CONTAINER, OWN] = [0x0a10205b, 0x0a102001];
const [HOST_UNREACHABLE, FRAGMENTATION_NEEDED] = [1, 4];

/** What RFC 792 and RFC 1812 §4.3 have one send about the packet: from the VM's own address, no more than 576 bytes. */
function unreachable(packet: Uint8Array, code: number, mtu = 0, from = OWN): Uint8Array {
  const message = wire.icmpMessage(3, code, mtu, packet.subarray(0, 548));
  return wire.ipv4Around({ source: from, destination: view(packet).getUint32(12), tos: 0xc0, protocol: 1 }, message);
}

const repliesOf = (core: PacketCore) => core.messages.replies().map((message) => core.messages.bytes(message));

/** Containers send packets, without virtio headers. Answers the replies. */
function replies(core: PacketCore, packets: readonly Uint8Array[], now = 0): Uint8Array[] {
  for (const [i, packet] of packets.entries()) core.put(i, packet);
  expect(core.encapsulate(0, packets.length, now)).toBe(packets.length);
  return repliesOf(core);
}

/** Has the core learn that a VM is not to be reached. */
function lose(core: PacketCore, vm: number, code: number, now: number): void {
  const quoted = wire.ipv4Around({ source: A, destination: vm }, [0, 0, 8, 0, 0, 0, 0, 0]);
  const message = wire.icmpMessage(3, code, 0, quoted);
  core.put(0, wire.ipv4Around({ source: vm, destination: A, protocol: 1 }, message));
  core.learn(0, 1, now);
  expect([core.verdict(0), core.messages.count(), core.messages.replies()]).toEqual([abi.FORWARD, 0, []]);
}

describe.each(cores)('$name', ({ make }) => {
  test.each<[name: string, destination: number, verdict: number]>([
    ['outside every mapping', 0x0b000001, abi.DROP_NO_MAPPING],
    ['outside every mapping, class E', 0xf0000001, abi.DROP_NO_MAPPING],
    ['in the own slice', 0x0a102007, abi.DROP_OWN_SLICE],
    ['the VM itself', OWN, abi.DROP_OWN_SLICE],
    ['a slice itself', 0x0a102100, abi.DROP_RESERVED_ADDRESS],
    ['the all-ones address of a slice', 0x0a1021ff, abi.DROP_RESERVED_ADDRESS],
    ['the own slice itself', 0x0a102000, abi.DROP_OWN_SLICE],
  ])('I5 no such VM or index is answered with host unreachable, not silence: %s', (_, destination, verdict) => {
    const core = coreOf(make, {});
    for (const parts of [
      {},
      { protocol: 17 as const },
      { fragment: 0, tos: 3, ttl: 1 },
      { fragment: MORE_FRAGMENTS },
    ]) {
      const packet = wire.packetOf({ destination, ...parts });
      expect(hexes(replies(core, [packet]))).toEqual([hex(unreachable(packet, HOST_UNREACHABLE))]);
      expect([core.verdict(0), core.messages.count()]).toEqual([verdict, 0]);
    }
    const { replies: made, suppressed, received, drops } = core.counters('outbound');
    expect([made, suppressed, received, drops[-verdict]]).toEqual([4, 0, 4, 4]);
    expect(core.tunnels.count).toBe(0);
  });

  test.each([
    ["another VM's", 0x0a10215b],
    ['the all-ones address of the slice', 0x0a1020ff],
    ['the slice itself', 0x0a102000],
    ["no mapping's", 0x0b000001],
  ])('I1 a source that is not one host of ours is not answered: %s', (_, source) => {
    const core = coreOf(make, {});
    expect(replies(core, [wire.packetOf({ source, destination: 0x0b000002 })])).toEqual([]);
    expect(core.verdict(0)).toBe(abi.DROP_FOREIGN_SOURCE);
    expect(core.counters('outbound')).toMatchObject({ replies: 0, suppressed: 0 });
  });

  test('I2, I3 literally: a message about an echo request', () => {
    const core = coreOf(make, {});
    const packet = Uint8Array.from(Buffer.from('4500001c00010000400145750a10205b0b0000010800f7fd00010001', 'hex'));
    expect(wire.sum(packet.subarray(0, 20))).toBe(0xffff);
    const [reply] = replies(core, [packet]) as [Uint8Array];
    expect(hex(reply)).toBe(
      '45c00038000040004001e5890a1020010a10205b0301fcfe000000004500001c00010000400145750a10205b0b0000010800f7fd00010001',
    );
    expect([wire.sum(reply.subarray(0, 20)), wire.sum(reply.subarray(20))]).toEqual([0xffff, 0xffff]);
  });

  test('I2 as much is quoted as fits into 576 bytes, and no byte behind the packet', () => {
    const core = coreOf(make, {});
    for (const length of [20, 21, 27, 28, 29, 547, 548, 549, 1476, 65535]) {
      const packet = wire.packetAround({ destination: 0x0b000001, protocol: 99 }, wire.payloadOf(length - 20));
      const trailed = Uint8Array.from([...packet, 1, 2, 3]);
      const [reply] = replies(core, [length < 65533 ? trailed : packet]) as [Uint8Array];
      expect(hex(reply)).toBe(hex(unreachable(packet, HOST_UNREACHABLE)));
      expect(reply.length).toBe(Math.min(28 + length, 576));
      // What is quoted is a piece of its own, from where the packet lies.
      const [message] = core.messages.replies() as [number];
      expect(core.messages.pieces(message)).toBe(2);
      const iov = abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE;
      expect([word(core, iov), word(core, iov + 16)]).toEqual([abi.REPLIES + abi.REPLY_IPV4, core.slot(0)]);
      core.bytes.fill(0, abi.REPLY_BUCKETS, abi.REPLIES);
    }
    expect(core.counters('outbound').replies).toBe(10);
  });

  test('I3 it comes from the own address in the mapping of the source', () => {
    const core = coreOf(make, {});
    const over = { underlay: 0xc0a80000, underlayLength: 16 };
    core.configure({
      local: A,
      mappings: [
        { overlay: 0x0a000000, overlayLength: 8, ...over },
        { overlay: 0xf0000000, overlayLength: 4, ...over },
      ],
    });
    // A class E source inside a configured overlay is fine.
    for (const [source, from] of [
      [0x0a10205b, 0x0a102001],
      [0xf1020345, 0xf1020001],
      [0xf1020001, 0xf1020001],
    ] as const) {
      const packet = wire.packetOf({ source, destination: 0x0b000001 });
      expect(hexes(replies(core, [packet]))).toEqual([hex(unreachable(packet, HOST_UNREACHABLE, 0, from))]);
    }
  });

  test('I3 with virtio headers, it has one, of zeros', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    core.bytes.fill(0xaa, abi.REPLIES, abi.REPLIES + 2 * abi.REPLY_SIZE);
    const packets = [40, 2000].map((length) =>
      wire.packetOf({ destination: 0x0b000001, payload: wire.payloadOf(length) }),
    );
    const frames = packets.map((packet) => wire.frameOf(wire.partial(packet), { flags: 1, start: 20, offset: 16 }));
    for (const [i, frame] of frames.entries()) putFrame(core, i, frame);
    core.encapsulate(0, 2, 0);
    // The packet is quoted as it came, with its checksum open.
    expect(hexes(repliesOf(core))).toEqual(
      packets.map((packet) => hex(wire.frameOf(unreachable(wire.partial(packet), HOST_UNREACHABLE)))),
    );
    const outside = core.bytes.subarray(abi.REPLIES, abi.REPLIES + abi.REPLY_VIRTIO);
    expect(hex(outside)).toBe('aaaaaaaaaaaa');
  });

  test.each<[options: Partial<CoreConfig>]>([
    [{}],
    [{ key: 1 }],
    [{ key: 1, greChecksum: true, greSequence: true }],
    [{ encapsulation: 'gre-udp' }],
  ])('M2 what is too big and must not be fragmented is answered with the MTU of the tunnel: %j', (options) => {
    for (const mtu of [68, 1000, 1476, 65535 - overhead(options.encapsulation ?? 'gre', options)]) {
      const core = coreOf(make, { ...options, mtu });
      const of = (length: number, fragment: number) =>
        wire.packetAround({ flags: fragment }, wire.payloadOf(length - 20));
      const packet = of(mtu + 1, DONT_FRAGMENT);
      expect(hexes(replies(core, [of(mtu, DONT_FRAGMENT), packet]))).toEqual([
        hex(unreachable(packet, FRAGMENTATION_NEEDED, mtu)),
      ]);
      expect([core.verdict(0), core.verdict(1)]).toEqual([abi.FORWARD, abi.DROP_TOO_BIG]);
      // With one that is itself a fragment it is the same, if it is the first.
      const first = of(mtu + 1, DONT_FRAGMENT | MORE_FRAGMENTS);
      expect(hexes(replies(core, [first, of(mtu + 1, DONT_FRAGMENT | 5)]))).toEqual([
        hex(unreachable(first, FRAGMENTATION_NEEDED, mtu)),
      ]);
      expect(core.verdict(1)).toBe(abi.DROP_TOO_BIG);
    }
  });

  test('M2 a super-packet that is too big is answered once', () => {
    const core = coreOf(make, { mtu: 1000, offloads: VIRTIO });
    const frame = wire.superFrame({ payload: wire.payloadOf(5000) }, 1400);
    putFrame(core, 0, frame);
    core.encapsulate(0, 1, 0);
    expect(hexes(repliesOf(core))).toEqual([
      hex(wire.frameOf(unreachable(frame.subarray(10), FRAGMENTATION_NEEDED, 1000))),
    ]);
    expect(core.counters('outbound')).toMatchObject({ received: 1, replies: 1, forwarded: 0 });
  });

  const away = { destination: 0x0b000001 };
  const icmp = (type: number) => wire.packetAround({ ...away, protocol: 1 }, wire.icmpMessage(type, 0, 0, [1, 2]));
  test.each<[name: string, packet: Uint8Array, answered: boolean]>([
    ...[3, 4, 5, 11, 12].map((type): [string, Uint8Array, boolean] => [`ICMP type ${type}`, icmp(type), false]),
    ...[0, 8, 13, 17, 30, 255].map((type): [string, Uint8Array, boolean] => [`ICMP type ${type}`, icmp(type), true]),
    ['ICMP of one byte, type 3', wire.packetAround({ ...away, protocol: 1 }, [3]), false],
    ['ICMP of one byte, type 8', wire.packetAround({ ...away, protocol: 1 }, [8]), true],
    ['ICMP of no bytes, as far as one can tell', wire.packetAround({ ...away, protocol: 1 }, []), false],
    ['no ICMP, but a 3 there', wire.packetAround({ ...away, protocol: 17 }, [3, 1]), true],
    ['a packet of no bytes', wire.packetAround({ ...away, protocol: 17 }, []), true],
    ['multicast 224.0.0.0', wire.packetOf({ destination: 0xe0000000 }), false],
    ['multicast 239.255.255.255', wire.packetOf({ destination: 0xefffffff }), false],
    ['223.255.255.255', wire.packetOf({ destination: 0xdfffffff }), true],
    ['240.0.0.0', wire.packetOf({ destination: 0xf0000000 }), true],
    ['broadcast 255.255.255.255', wire.packetOf({ destination: 0xffffffff }), false],
    ['255.255.255.254', wire.packetOf({ destination: 0xfffffffe }), true],
    ['a fragment other than the first', wire.packetOf({ ...away, fragment: 1 }), false],
    ['a middle fragment', wire.packetOf({ ...away, fragment: MORE_FRAGMENTS | 0x1fff }), false],
    ['a first fragment', wire.packetOf({ ...away, fragment: MORE_FRAGMENTS }), true],
    ['the reserved flag', wire.packetOf({ ...away, fragment: 0x8000 }), true],
  ])('I1 answered or not: %s: %s %s', (_, packet, answered) => {
    const core = coreOf(make, {});
    expect(hexes(replies(core, [packet]))).toEqual(answered ? [hex(unreachable(packet, HOST_UNREACHABLE))] : []);
    // One that must not be answered is not one too many.
    expect(core.counters('outbound')).toMatchObject({ received: 1, replies: answered ? 1 : 0, suppressed: 0 });
  });

  test('I1 the type of an ICMP message is behind the options', () => {
    const core = coreOf(make, {});
    const options = (type: number) => {
      const packet = Uint8Array.from([...icmp(0).subarray(0, 20), 8, 8, 8, 0, ...wire.icmpMessage(type, 0, 0, [])]);
      packet[0] = 0x46;
      view(packet).setUint16(2, packet.length);
      return wire.forwarded(packet, 0);
    };
    expect([replies(core, [options(3)]).length, replies(core, [options(8)]).length]).toEqual([0, 1]);
  });

  /** How many of `count` packets of each source are answered at `now`. */
  function answered(core: PacketCore, sources: readonly number[], count: number, now: number): number {
    const packets = sources.flatMap((source) => Array<Uint8Array>(count).fill(wire.packetOf({ source, ...away })));
    const before = core.counters('outbound');
    let made = 0;
    for (let at = 0; at < packets.length; at += abi.BATCH_SIZE) {
      made += replies(core, packets.slice(at, at + abi.BATCH_SIZE), now).length;
    }
    const after = core.counters('outbound');
    expect(after.replies - before.replies).toBe(made);
    expect(after.suppressed - before.suppressed).toBe(packets.length - made);
    return made;
  }
  const bucketOf = (source: number) => source % 8192;
  const sourcesOf = (n: number) => Array.from({ length: n }, (_, i) => 0x0a102002 + i);

  test('I4 a source gets 10 at once, then one each 100 ms', () => {
    const core = coreOf(make, {});
    expect(answered(core, [CONTAINER], 20, 1000)).toBe(10);
    expect(answered(core, [CONTAINER], 5, 1099)).toBe(0);
    expect(answered(core, [CONTAINER], 5, 1100)).toBe(1);
    expect(answered(core, [CONTAINER], 5, 1199.5)).toBe(0);
    expect(answered(core, [CONTAINER], 5, 1350)).toBe(2);
    expect(answered(core, [CONTAINER], 5, 1399)).toBe(0);
    expect(answered(core, [CONTAINER], 5, 1400)).toBe(1);
    // Full again, and no fuller.
    expect(answered(core, [CONTAINER], 20, 2400)).toBe(10);
    expect(answered(core, [CONTAINER], 20, 1e9)).toBe(10);
    // A clock that goes back gives nothing.
    expect(answered(core, [CONTAINER], 5, 0)).toBe(0);
  });

  test('I4 all together get 50 at once, then one each ms', () => {
    const core = coreOf(make, {});
    const sources = sourcesOf(100);
    // Ten each, until all are used up.
    expect(answered(core, sources.slice(0, 8), 16, 5000)).toBe(50);
    expect(answered(core, sources.slice(20, 30), 1, 5000)).toBe(0);
    expect(answered(core, sources.slice(20, 30), 1, 5003)).toBe(3);
    // Who was not answered because of all has lost nothing.
    expect(answered(core, [sources[29] as number], 12, 5100)).toBe(10);
    expect(answered(core, sources.slice(40, 80), 3, 5100)).toBe(40);
    expect(core.counters('outbound')).toMatchObject({ forwarded: 0, received: 128 + 10 + 10 + 12 + 120 });
  });

  test('each container of a slice of 8,192 addresses has a bucket of its own', () => {
    const core = coreOf(make, {});
    const mapping = { overlay: 0xf0000000, overlayLength: 4, underlay: 0xc0a80000, underlayLength: 17 };
    core.configure({ local: A, mappings: [mapping] });
    const slice = 0xf2040000;
    for (let index = 1; index < 8191; index++) {
      expect(answered(core, [slice + index], 1, index * 1000)).toBe(1);
      // Of its ten tokens the next one would have one less, if it were the same bucket.
      const own = word(core, abi.REPLY_BUCKETS + 8 * index + 4);
      expect([own, word(core, abi.REPLY_BUCKETS + 8 * (index + 1) + 4)]).toEqual([own, 0]);
      expect(own).not.toBe(0);
    }
  });

  test('I4 sources that share a bucket share its tokens, others do not', () => {
    const core = coreOf(make, {});
    // So many sources one VM does not have: another mesh.
    const mapping = { overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a81020, underlayLength: 32 };
    core.configure({ local: A, mappings: [mapping] });
    const first = 0x0a000005;
    const all = Array.from({ length: 20000 }, (_, i) => first + 1 + i);
    const twin = all.find((source) => bucketOf(source) === bucketOf(first)) as number;
    const other = all.find((source) => bucketOf(source) !== bucketOf(first)) as number;
    expect([answered(core, [first], 7, 0), answered(core, [twin], 7, 0), answered(core, [other], 12, 0)]).toEqual([
      7, 3, 10,
    ]);
    expect(word(core, abi.REPLY_BUCKETS + 8 * bucketOf(first) + 4)).not.toBe(0);
  });

  test.each([
    [NaN, 0],
    [-Infinity, 0],
    [-1e300, 0],
    [-1, 9],
    [-0, 10],
    [Infinity, 1],
    [1e300, 16],
  ])('I4 any time: %d gives %i of 16', (now, count) => {
    const core = coreOf(make, {});
    expect(answered(core, [CONTAINER], 16, now)).toBe(count);
  });

  test('I4 packets that pass cost no tokens, and replies no room', () => {
    const core = coreOf(make, {});
    const packets = Array.from({ length: 128 }, (_, i) =>
      i % 16 === 0 ? wire.packetOf({ source: 0x0a102002 + i, ...away }) : wire.packetOf({ payload: wire.payloadOf(9) }),
    );
    expect(replies(core, packets)).toHaveLength(8);
    expect([core.messages.count(), core.messages.all().length, core.messages.count(abi.REPLY_PORT)]).toEqual([
      120, 120, 8,
    ]);
    expect(core.messages.replies()).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((i) => abi.MESSAGES + i));
    for (const message of core.messages.replies()) {
      expect(core.messages.content(message)).toEqual({ packets: 0, bytes: 0 });
      expect(word(core, abi.MESSAGE_TABLE + message * abi.MESSAGE_SIZE + abi.MESSAGE_CONTROL_LENGTH)).toBe(0);
    }
    // The next call begins with none.
    expect(replies(core, [wire.packetOf({})])).toEqual([]);
    core.encapsulate(0, 0, 0);
    expect(core.messages.replies()).toEqual([]);
    replies(core, [wire.packetOf(away)]);
    core.decapsulate(0, 0, 0);
    expect(core.messages.replies()).toEqual([]);
  });

  const formats: [options: Partial<CoreConfig>, outer: number][] = [
    [{}, 20],
    [{ key: 7, greChecksum: true, greSequence: true }, 20],
    [{ encapsulation: 'gre-udp' }, 28],
    [{ encapsulation: 'gre-udp', key: 7 }, 28],
  ];

  /** What a router says about the outer packet that the core makes of this one, of which it quotes so much. */
  function about(core: PacketCore, packet: Uint8Array, code: number, quoted = 548, mtu = 0): Uint8Array {
    replies(core, [packet]);
    let [sent] = core.messages.all().map((message) => core.messages.bytes(message)) as [Uint8Array];
    // The kernel's part of GRE-in-UDP.
    if (sent[0] !== 0x45) {
      const udp = [0xc3, 0x50, 0x12, 0x92, 0, 0, 0, 0];
      sent = wire.ipv4Around({ source: A, destination: B, protocol: 17 }, [...udp, ...sent]);
    }
    const message = wire.icmpMessage(3, code, mtu, sent.subarray(0, quoted));
    return wire.ipv4Around({ source: B, destination: A, protocol: 1 }, message);
  }

  /** The core learns from a message. Answers the replies. */
  function learn(core: PacketCore, packet: Uint8Array, now = 0): Uint8Array[] {
    core.put(0, packet);
    core.learn(0, 1, now);
    expect([core.verdict(0), core.messages.count()]).toEqual([abi.FORWARD, 0]);
    return repliesOf(core);
  }

  test.each(formats)('I5 what the underlay says of a VM that cannot be reached is passed on: %j', (options) => {
    for (const code of [0, 1, 2, 3, 5, 13, 15]) {
      const core = coreOf(make, options);
      const packet = wire.packetOf({});
      // Host unreachable, for whatever reason.
      expect(hexes(learn(core, about(core, packet, code)))).toEqual([hex(unreachable(packet, HOST_UNREACHABLE))]);
      expect(core.tunnels.learnt()).toEqual([{ vm: B, unreachable: code }]);
      // The next packet is sent; if it arrives, nobody is told anything.
      expect([replies(core, [packet]), core.messages.count() > 0, core.verdict(0)]).toEqual([[], true, abi.FORWARD]);
      core.put(0, wire.grePacket(B, A, wire.packetOf({ source: 0x0a102107, destination: CONTAINER })));
    }
  });

  test('I5 a packet from the VM says that it can be reached', () => {
    const core = coreOf(make, {});
    replies(core, [wire.packetOf({})]);
    lose(core, B, 1, 0);
    expect(core.tunnels.learnt()).toEqual([{ vm: B, unreachable: 1 }]);
    // A packet that is dropped says nothing.
    core.put(0, wire.grePacket(B, A, wire.packetOf({ source: 0x0a102207, destination: CONTAINER })));
    core.decapsulate(0, 1, 0);
    expect([core.verdict(0), core.tunnels.learnt()]).toEqual([abi.DROP_SPOOFED_SOURCE, []]);
    core.put(0, wire.grePacket(B, A, wire.packetOf({ source: 0x0a102107, destination: CONTAINER })));
    core.decapsulate(0, 1, 0);
    expect([core.verdict(0), core.tunnels.learnt()]).toEqual([abi.FORWARD, [{ vm: B }]]);
    core.decapsulate(0, 1, 0);
    expect(core.tunnels.learnt()).toEqual([]);
  });

  test.each(formats)('M2 so is how much fits, to whom it says something: %j', (options) => {
    const core = coreOf(make, { ...options, mtu: 1400 });
    const bytes = overhead(options.encapsulation ?? 'gre', options);
    const packet = wire.packetOf({ payload: wire.payloadOf(1300) });
    const expected = unreachable(packet, FRAGMENTATION_NEEDED, 1300 - bytes);
    expect(hexes(learn(core, about(core, packet, 4, 1400, 1300)))).toEqual([hex(expected)]);
    // A packet that may be fragmented is so from now on.
    const other = coreOf(make, { ...options, mtu: 1400 });
    const fragmentable = wire.packetOf({ fragment: 0, payload: wire.payloadOf(1300) });
    expect(learn(other, about(other, fragmentable, 4, 1400, 1300))).toEqual([]);
    expect([replies(other, [fragmentable]), other.messages.all().length]).toEqual([[], 2]);
  });

  test.each(formats)('I2 as much is quoted as there is, and nothing if it tells no flow: %j', (options, outer) => {
    const packet = wire.packetOf({});
    const gre = overhead('gre', options) - 20;
    for (const bytes of [0, 4, 19, 20, 27, 28, 29, 40, packet.length]) {
      const core = coreOf(make, options);
      const quoted = outer + gre + bytes;
      if (quoted < outer + 8) continue;
      const made = learn(core, about(core, packet, 1, quoted));
      if (bytes < 28) expect(made).toEqual([]);
      else expect(hexes(made)).toEqual([hex(unreachable(packet.subarray(0, bytes), HOST_UNREACHABLE))]);
    }
  });

  test('I1 nobody else is told: not about ICMP errors, later fragments, or what is not ours', () => {
    const core = coreOf(make, {});
    const error = wire.packetAround({ protocol: 1 }, wire.icmpMessage(3, 1, 0, wire.packetOf({}).subarray(0, 28)));
    expect(learn(core, about(core, error, 1))).toEqual([]);
    const later = wire.packetOf({ fragment: 9 });
    expect(learn(core, about(core, later, 1))).toEqual([]);
    // What is quoted may be forged: the inner packet has to be one that went there.
    const forged = (parts: wire.Parts) => {
      const quoted = wire.grePacket(A, B, wire.packetOf(parts));
      return wire.ipv4Around({ source: B, destination: A, protocol: 1 }, wire.icmpMessage(3, 1, 0, quoted));
    };
    expect(learn(core, forged({}))).toHaveLength(1);
    expect(learn(core, forged({ source: 0x0a102207 }))).toEqual([]);
    expect(learn(core, forged({ source: 0x0a102000 }))).toEqual([]);
    expect(learn(core, forged({ destination: 0x0a102207 }))).toEqual([]);
    expect(learn(core, forged({ destination: 0x0a1021ff }))).toEqual([]);
    expect(learn(core, forged({ destination: 0x08080808 }))).toEqual([]);
    expect(core.counters('outbound')).toMatchObject({ replies: 1, suppressed: 0 });
  });

  test('I4 the same limits hold for what is passed on', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    putFrame(core, 0, wire.frameOf(wire.packetOf({})));
    core.encapsulate(0, 1, 0);
    const quoted = wire.grePacket(A, B, wire.packetOf({}));
    const message = wire.ipv4Around({ source: B, destination: A, protocol: 1 }, wire.icmpMessage(3, 1, 0, quoted));
    for (let i = 0; i < 12; i++) core.put(i, message);
    expect([core.learn(0, 12, 0), core.messages.replies().length]).toEqual([12, 10]);
    expect(core.counters('outbound')).toMatchObject({ replies: 10, suppressed: 2 });
    const [first] = repliesOf(core) as [Uint8Array];
    expect(hex(first)).toBe(hex(wire.frameOf(unreachable(wire.packetOf({}), HOST_UNREACHABLE))));
    // Who forges such messages does not keep the core from saying what it knows itself.
    putFrame(core, 0, wire.frameOf(wire.packetOf(away)));
    core.encapsulate(0, 1, 0);
    expect([core.messages.replies().length, core.counters('outbound').suppressed]).toEqual([1, 2]);
  });
});

/** ICMP messages from the underlay: which are believed, what is learnt from them, and for how long. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, overhead, type PacketCore, tunnelsFrom } from '../src/core/index.ts';
import { cores, hex, messages } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, coreOf, hear, sendPackets, VIRTIO, view } from './vms.ts';

const { DONT_FRAGMENT, MORE_FRAGMENTS } = wire;
const ROUTER = 0xc0a80001;
const FOREIGN = abi.DROP_FOREIGN_ICMP;
const KEY = 0x01020304;

/** What of a message is not as it should be, or not as usual. */
interface Edit {
  /** The outer header, the ICMP header, the header that is quoted, and what is behind that. */
  outer?: Partial<wire.Outer>;
  type?: number;
  code?: number;
  mtu?: number;
  quoted?: Partial<wire.Outer>;
  behind?: readonly number[];
  /** Bytes of the packet that is quoted, by its header. */
  total?: number;
  /** What is done to what is quoted, and to the whole. */
  edit?: (quoted: Uint8Array) => Uint8Array;
  after?: (packet: Uint8Array) => Uint8Array;
}

const GRE = [0, 0, 8, 0];
/** UDP header of a datagram of GRE-in-UDP. */
const udp = (source = 50000, destination = 4754) => [
  source >> 8,
  source & 255,
  destination >> 8,
  destination & 255,
  1,
  0,
  0,
  0,
];

/** A message from a router about a packet of 1500 bytes to B: fragmentation needed, and DF set. */
function about(each: Edit): Uint8Array {
  // The source port of GRE-in-UDP is a high one, flags of GRE are not so many.
  const protocol = (each.behind?.[0] ?? 0) >= 0xbf ? 17 : 47;
  const header = wire.ipv4Around({ source: A, destination: B, protocol, ...each.quoted }, []);
  view(header).setUint16(2, each.total ?? 1500);
  const fixed = wire.forwarded(header, 0);
  const quoted = Uint8Array.from([...fixed, ...(each.behind ?? [...GRE, 0x45, 0, 0, 0])]);
  const message = wire.icmpMessage(each.type ?? 3, each.code ?? 4, each.mtu ?? 1400, each.edit?.(quoted) ?? quoted);
  const packet = wire.ipv4Around({ source: ROUTER, destination: A, protocol: 1, ...each.outer }, message);
  return each.after?.(packet) ?? packet;
}

/** A core with a tunnel to B, and one to C. */
function tunnelled(make: () => PacketCore, options: Partial<CoreConfig> = {}): PacketCore {
  const core = coreOf(make, { mtu: 1476, ...options });
  sendPackets(core, [wire.packetOf({}), wire.packetOf({ destination: 0x0a102207 })]);
  hear(core);
  return core;
}

function learn(core: PacketCore, packet: Uint8Array, now = 0): number {
  core.put(0, packet);
  expect(core.learn(0, 1, now)).toBe(1);
  return core.verdict(0);
}

/** What is known about the way to B at `now`. */
function known(core: PacketCore, now = 0, vm: number = B) {
  const { pathMtu, unreachable } = tunnelsFrom(core.tunnels.copy(now)).find((tunnel) => tunnel.vm === vm) ?? {};
  return { pathMtu, unreachable };
}

/** Whether a packet of so many bytes with DF goes to B at `now`. */
function passes(core: PacketCore, length: number, now: number): boolean {
  core.put(0, wire.packetAround({}, wire.payloadOf(length - 20)));
  core.encapsulate(0, 1, now);
  return core.verdict(0) === abi.FORWARD;
}

const limitAt = (core: PacketCore, now: number) => {
  let [fits, not] = [20, 1477];
  while (not - fits > 1) {
    const middle = (fits + not) >> 1;
    if (passes(core, middle, now)) fits = middle;
    else not = middle;
  }
  return fits;
};

describe.each(cores)('$name', ({ make }) => {
  test.each<[options: Partial<CoreConfig>, behind: readonly number[]]>([
    [{}, [...GRE, 0, 0, 0, 0]],
    [{ key: KEY }, [0x20, 0, 8, 0, 1, 2, 3, 4]],
    [{ key: KEY, greSequence: true }, [0x30, 0, 8, 0, 1, 2, 3, 4]],
    [{ key: KEY, greChecksum: true, greSequence: true }, [0xb0, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]],
    [{ encapsulation: 'gre-udp' }, udp()],
    [{ encapsulation: 'gre-udp', key: KEY }, [...udp(), 0x20, 0, 8, 0, 1, 2, 3, 4]],
  ])('M6 the path MTU, less the overhead, is the limit of the tunnel, and of that alone: %j', (options, behind) => {
    const core = tunnelled(make, options);
    const bytes = overhead(options.encapsulation ?? 'gre', options);
    expect(learn(core, about({ mtu: 1300, behind }), 5000)).toBe(abi.FORWARD);
    expect([core.peer(0), core.tunnels.learnt()]).toEqual([B, [{ vm: B, pathMtu: 1300 }]]);
    expect([known(core), known(core, 0, C)]).toEqual([{ pathMtu: 1300 }, {}]);
    expect(limitAt(core, 5000)).toBe(1300 - bytes);
    // Without DF they are fragmented to it.
    const packet = wire.packetOf({ fragment: 0, payload: wire.payloadOf(1436) });
    const [first] = sendPackets(core, [packet]).map((message) => message.bytes.length);
    const ours = bytes - (options.encapsulation === 'gre-udp' ? 28 : 0);
    expect(first).toBe(ours + 20 + ((1300 - bytes - 20) & ~7));
    // And a host is told so.
    core.put(0, wire.packetAround({}, wire.payloadOf(1400)));
    core.encapsulate(0, 1, 5000);
    const [reply] = core.messages.replies().map((message) => core.messages.bytes(message)) as [Uint8Array];
    expect([core.verdict(0), view(reply).getUint16(26)]).toEqual([abi.DROP_TOO_BIG, 1300 - bytes]);
    core.put(0, wire.packetAround({ destination: 0x0a102207 }, wire.payloadOf(1400)));
    core.encapsulate(0, 1, 5000);
    expect(core.verdict(0)).toBe(abi.FORWARD);
  });

  test('M6 it never raises, and news alone is noted', () => {
    const core = tunnelled(make);
    const heard = (mtu: number, now = 0) => {
      const verdict = learn(core, about({ mtu }), now);
      return [verdict, known(core).pathMtu, core.tunnels.learnt().length];
    };
    expect(heard(1400)).toEqual([0, 1400, 1]);
    expect(heard(1400)).toEqual([0, 1400, 0]);
    expect(heard(1401)).toEqual([0, 1400, 0]);
    expect(heard(1499)).toEqual([0, 1400, 0]);
    expect(heard(1399)).toEqual([0, 1399, 1]);
    // What the configured MTU is anyway is no news.
    const wide = tunnelled(make, { mtu: 1376 });
    learn(wide, about({ mtu: 1400 }));
    expect([wide.verdict(0), known(wide), wide.tunnels.learnt()]).toEqual([0, {}, []]);
    learn(wide, about({ mtu: 1399 }));
    expect([known(wide), wide.tunnels.learnt()]).toEqual([{ pathMtu: 1399 }, [{ vm: B, pathMtu: 1399 }]]);
  });

  test.each<[mtu: number, verdict: number, pathMtu: number | undefined]>([
    [1499, abi.FORWARD, 1499],
    [1500, FOREIGN, undefined],
    [1501, FOREIGN, undefined],
    [65535, FOREIGN, undefined],
    [67, FOREIGN, undefined],
    [1, FOREIGN, undefined],
    // Anybody can say so: it is not taken for less than what hardly any network has.
    [68, abi.FORWARD, 552],
    [551, abi.FORWARD, 552],
    [552, abi.FORWARD, 552],
    [553, abi.FORWARD, 553],
  ])('M6 an MTU of %i below 68, or one that had let the packet pass, is none', (mtu, verdict, pathMtu) => {
    const core = tunnelled(make);
    expect([learn(core, about({ mtu })), known(core).pathMtu]).toEqual([verdict, pathMtu]);
  });

  test.each<[total: number, pathMtu: number | undefined]>([
    [65535, 32000],
    [32001, 32000],
    [32000, 17914],
    [17914, 8166],
    [8166, 4352],
    [4352, 2002],
    [2002, 1492],
    [1500, 1492],
    [1493, 1492],
    [1492, 1006],
    [1006, 552],
    [508, 552],
    [296, 552],
    [69, 552],
    [68, undefined],
    [28, undefined],
  ])('M6 zero is the next plateau below %i bytes: %s', (total, pathMtu) => {
    const core = tunnelled(make, { mtu: 65000 });
    expect(learn(core, about({ mtu: 0, total }))).toBe(pathMtu === undefined ? FOREIGN : abi.FORWARD);
    expect(known(core).pathMtu).toBe(pathMtu);
  });

  test('M6 it is forgotten after ten minutes, and not before', () => {
    const core = tunnelled(make);
    learn(core, about({ mtu: 1300 }), 1_000_999);
    expect([passes(core, 1277, 1_601_000 - 0.5), known(core, 1_600_999).pathMtu]).toEqual([false, 1300]);
    expect([passes(core, 1277, 1_601_000), core.tunnels.learnt()]).toEqual([true, [{ vm: B }]]);
    expect([passes(core, 1477, 1_601_000), core.tunnels.learnt()]).toEqual([false, []]);
    // Also for a clock that goes back.
    expect([passes(core, 1476, 0), known(core).pathMtu]).toEqual([true, undefined]);
    // Smaller, it is there for ten minutes from then on; as it was, it is not longer.
    learn(core, about({ mtu: 1300 }), 0);
    learn(core, about({ mtu: 1300 }), 300_000);
    learn(core, about({ mtu: 1200 }), 400_000);
    learn(core, about({ mtu: 1250 }), 500_000);
    expect([passes(core, 1177, 1_000_999), passes(core, 1177, 1_001_000)]).toEqual([false, true]);
  });

  test('M6 it is forgotten where a packet without room asks for it, too', () => {
    const core = tunnelled(make, { mtu: 68 + 1000 });
    learn(core, about({ mtu: 1000 }), 0);
    const packet = wire.packetAround({ flags: 0 }, wire.payloadOf(60000));
    for (let i = 0; i < 128; i++) core.put(i, packet);
    const end = core.encapsulate(0, 128, 700_000);
    expect([end < 128, core.tunnels.learnt()]).toEqual([true, [{ vm: B }]]);
  });

  test.each([NaN, -1, -Infinity, Infinity, 4e12, 1e300])('M6 a time of %d counts as 0', (now) => {
    const core = tunnelled(make);
    learn(core, about({ mtu: 1300 }), now);
    learn(core, about({ code: 1 }), now);
    core.put(0, wire.packetOf({}));
    core.encapsulate(0, 1, now);
    expect(core.tunnels.learnt()).toEqual([]);
    expect([known(core, 600_999).pathMtu, known(core, 601_000).pathMtu]).toEqual([1300, undefined]);
    expect([known(core, 29_999).unreachable, known(core, 30_000).unreachable]).toEqual([1, undefined]);
  });

  test('M6 the last second that there is', () => {
    const core = tunnelled(make);
    const now = 4e12 - 0.5;
    learn(core, about({ mtu: 1300 }), now);
    expect([passes(core, 1277, now), known(core, now).pathMtu]).toEqual([false, 1300]);
  });

  test('M6 nothing is said of packets that may be fragmented', () => {
    const core = tunnelled(make, { pathMtuDiscovery: false });
    expect([learn(core, about({})), known(core).pathMtu]).toEqual([FOREIGN, undefined]);
  });

  test('M6 the host may find it out by itself', () => {
    const core = tunnelled(make);
    core.narrow(B, 1300, 0);
    expect([core.tunnels.learnt(), passes(core, 1276, 0), passes(core, 1277, 0)]).toEqual([
      [{ vm: B, pathMtu: 1300 }],
      true,
      false,
    ]);
    core.narrow(B, 1400, 0);
    core.narrow(0xc0a81099, 1300, 0);
    core.narrow(0, 1300, 0);
    expect([core.tunnels.learnt(), known(core).pathMtu]).toEqual([[], 1300]);
  });

  test('M7 clamping follows it, both ways', () => {
    const core = tunnelled(make, { clampMss: true });
    learn(core, about({ mtu: 1300 }));
    const syn = (size: number, parts: wire.Parts = {}) =>
      wire.packetOf({
        flags: wire.SYN,
        payload: new Uint8Array(0),
        tcpOptions: [2, 4, size >> 8, size & 255],
        ...parts,
      });
    expect(hex(sendPackets(core, [syn(1460)])[0]?.bytes.subarray(24) as Uint8Array)).toBe(hex(syn(1236)));
    const back = { source: 0x0a102107, destination: 0x0a10205b };
    core.put(0, wire.grePacket(B, A, syn(1460, back)));
    core.decapsulate(0, 1, 0);
    expect(hex(core.messages.bytes(0))).toBe(hex(syn(1236, back)));
    // Inbound, too, it is forgotten in time.
    core.put(0, wire.grePacket(B, A, syn(1460, back)));
    core.decapsulate(0, 1, 601_000);
    expect([hex(core.messages.bytes(0)), core.tunnels.learnt()]).toEqual([hex(syn(1436, back)), [{ vm: B }]]);
  });

  const T = abi.DROP_TRUNCATED;
  test.each<[name: string, verdict: number, edit: Edit]>([
    ['just right', abi.FORWARD, {}],
    ['from anybody', abi.FORWARD, { outer: { source: 0x08080808 } }],
    ['from a container of our own', FOREIGN, { outer: { source: 0x0a10205b } }],
    ['from our own overlay address', FOREIGN, { outer: { source: 0x0a102001 } }],
    ['from a container of another VM', FOREIGN, { outer: { source: 0x0a102107 } }],
    ['from the last address of the overlay', FOREIGN, { outer: { source: 0x0affffff } }],
    ['from the first address behind the overlay', abi.FORWARD, { outer: { source: 0x0b000000 } }],
    ['the outer header may have options', abi.FORWARD, { after: (p) => withOptions(p) }],
    ['not the whole packet', T, { after: (p) => p.subarray(0, -1) }],
    ['less than an IPv4 header', T, { after: (p) => p.subarray(0, 19) }],
    ['no IPv4', abi.DROP_NOT_IPV4, { after: (p) => wire.edited(p, 0, 0x65) }],
    ['a short header length', abi.DROP_BAD_HEADER_LENGTH, { after: (p) => wire.edited(p, 0, 0x44) }],
    ['a short total length', abi.DROP_BAD_TOTAL_LENGTH, { after: (p) => wire.edited(p, 2, 0, 19) }],
    ['a bad header checksum', abi.DROP_BAD_HEADER_CHECKSUM, { after: (p) => wire.edited(p, 10, 1, 1) }],
    ['no ICMP', FOREIGN, { outer: { protocol: 2 } }],
    ['no ICMP, and a fragment', FOREIGN, { outer: { protocol: 2, flags: 1 } }],
    ['a first fragment', abi.DROP_FRAGMENT, { outer: { flags: MORE_FRAGMENTS } }],
    ['a last fragment', abi.DROP_FRAGMENT, { outer: { flags: 1 } }],
    ['a fragment for another', abi.DROP_FRAGMENT, { outer: { flags: 1, destination: B } }],
    ['for another', abi.DROP_NOT_FOR_US, { outer: { destination: B } }],
    ['7 bytes of ICMP', T, { after: (p) => cutTo(p, 27) }],
    ['no bytes of ICMP', T, { after: (p) => cutTo(p, 20) }],
    ['a bad checksum', abi.DROP_ICMP_CHECKSUM, { after: (p) => wire.edited(p, 22, 1, 1) }],
    ['a bad checksum of another type', abi.DROP_ICMP_CHECKSUM, { type: 8, after: (p) => wire.edited(p, 22, 1, 1) }],
    ['a byte that is not summed', abi.FORWARD, { after: (p) => Uint8Array.from([...p, 1]) }],
    ...[0, 4, 5, 8, 11, 12].map((type): [string, number, Edit] => [`type ${type}`, FOREIGN, { type }]),
    ['code 16', FOREIGN, { code: 16 }],
    ['code 255', FOREIGN, { code: 255 }],
    ['nothing quoted', FOREIGN, { edit: (q) => q.subarray(0, 0) }],
    ['19 bytes quoted', FOREIGN, { edit: (q) => q.subarray(0, 19) }],
    ['27 bytes quoted', FOREIGN, { edit: (q) => q.subarray(0, 27) }],
    ['28 bytes quoted', abi.FORWARD, { edit: (q) => q.subarray(0, 28) }],
    ['quoted: no IPv4', FOREIGN, { edit: (q) => wire.edited(q, 0, 0x65) }],
    ['quoted: a short header', FOREIGN, { edit: (q) => wire.edited(q, 0, 0x44) }],
    ['quoted: a longer header', FOREIGN, { edit: (q) => wire.edited(q, 0, 0x46) }],
    ['quoted: a longer header, all there', abi.FORWARD, { edit: (q) => withOptions(q) }],
    ['quoted: another checksum, as some routers have it', abi.FORWARD, { edit: (q) => wire.edited(q, 10, 0, 0) }],
    ['quoted: another TTL', abi.FORWARD, { quoted: { ttl: 1 } }],
    ['quoted: a foreign source', FOREIGN, { quoted: { source: B } }],
    ['quoted: a first fragment', abi.FORWARD, { quoted: { flags: DONT_FRAGMENT | MORE_FRAGMENTS } }],
    ['quoted: without DF', FOREIGN, { quoted: { flags: 0 } }],
    ['quoted: another fragment', FOREIGN, { quoted: { flags: DONT_FRAGMENT | 1 } }],
    ['quoted: no VM', FOREIGN, { quoted: { destination: 0x08080808 } }],
    ['quoted: a VM without a tunnel', FOREIGN, { quoted: { destination: 0xc0a81023 } }],
    ['quoted: to us', FOREIGN, { quoted: { destination: A } }],
    ['quoted: another protocol', FOREIGN, { quoted: { protocol: 6 } }],
    ['quoted: a GRE header with a key', FOREIGN, { behind: [0x20, 0, 8, 0, 0, 0, 0, 0] }],
    ['quoted: a GRE header of another type', FOREIGN, { behind: [0, 0, 0x86, 0xdd, 0, 0, 0, 0] }],
    ['quoted: a GRE header of another version', FOREIGN, { behind: [0, 1, 8, 0, 0, 0, 0, 0] }],
    ['quoted: GRE-in-UDP', FOREIGN, { behind: [...udp(), ...GRE] }],
  ])('M6 what is believed: %s: %i', (_, verdict, edit) => {
    const core = tunnelled(make);
    core.learn(0, 0, 0);
    const before = core.bytes.slice(abi.TUNNELS, abi.SLOTS);
    const packet = about(edit);
    expect(learn(core, packet)).toBe(verdict);
    const { received, forwarded, bytes, drops } = core.counters('icmp');
    if (verdict === abi.FORWARD) {
      expect([received, forwarded, bytes, known(core).pathMtu]).toEqual([1, 1, view(packet).getUint16(2), 1400]);
    } else {
      expect([received, forwarded, bytes, drops[-verdict]]).toEqual([1, 0, 0, 1]);
      expect(Buffer.compare(core.bytes.subarray(abi.TUNNELS, abi.SLOTS), before)).toBe(0);
      expect(core.tunnels.learnt()).toEqual([]);
    }
    expect([messages(core), core.messages.replies(), core.counters('outbound').received]).toEqual([[], [], 2]);
    // The packet stays as it came.
    expect(hex(core.bytes.subarray(core.slot(0), core.slot(0) + packet.length))).toBe(hex(packet));
  });

  test.each<[name: string, verdict: number, options: Partial<CoreConfig>, behind: readonly number[]]>([
    ['the key', 0, { key: KEY }, [0x20, 0, 8, 0, 1, 2, 3, 4]],
    ['another key', FOREIGN, { key: KEY }, [0x20, 0, 8, 0, 1, 2, 3, 5]],
    ['no key', FOREIGN, { key: KEY }, [0, 0, 8, 0, 1, 2, 3, 4]],
    ['the key is further behind', 0, { key: KEY, greChecksum: true }, [0xa0, 0, 8, 0, 9, 9, 9, 9]],
    ['it is further behind, and right', 0, { key: KEY, greChecksum: true }, [0xa0, 0, 8, 0, 9, 9, 9, 9, 1, 2, 3, 4]],
    [
      'it is further behind, and another',
      FOREIGN,
      { key: KEY, greChecksum: true },
      [0xa0, 0, 8, 0, 9, 9, 9, 9, 1, 2, 3, 5],
    ],
    ['half of it', 0, { key: KEY, greChecksum: true }, [0xa0, 0, 8, 0, 9, 9, 9, 9, 1, 2]],
    ['half of another', FOREIGN, { key: KEY, greChecksum: true }, [0xa0, 0, 8, 0, 9, 9, 9, 9, 1, 3]],
    ['a sequence number says nothing', 0, { greSequence: true }, [0x10, 0, 8, 0, 9, 9, 9, 9]],
    ['no checksum, though we send one', FOREIGN, { greChecksum: true }, [0, 0, 8, 0, 0, 0, 0, 0]],
    ['UDP', 0, { encapsulation: 'gre-udp' }, udp()],
    ['the first dynamic port', 0, { encapsulation: 'gre-udp' }, udp(49152)],
    ['the last port', 0, { encapsulation: 'gre-udp' }, udp(65535)],
    ['a port before', FOREIGN, { encapsulation: 'gre-udp' }, udp(49151)],
    ['another destination port', FOREIGN, { encapsulation: 'gre-udp' }, udp(50000, 4755)],
    ['UDP and GRE', 0, { encapsulation: 'gre-udp' }, [...udp(), ...GRE]],
    ['UDP and 1 byte of GRE', 0, { encapsulation: 'gre-udp' }, [...udp(), 0]],
    ['UDP and another byte', FOREIGN, { encapsulation: 'gre-udp' }, [...udp(), 0x20]],
    ['UDP and another byte at last', FOREIGN, { encapsulation: 'gre-udp' }, [...udp(), 0, 0, 8, 1]],
    ['UDP and 3 bytes', 0, { encapsulation: 'gre-udp' }, [...udp(), 0, 0, 8]],
    ['UDP, GRE and another key', FOREIGN, { encapsulation: 'gre-udp', key: KEY }, [...udp(), 0x20, 0, 8, 0, 1, 2, 4]],
    ['no UDP', FOREIGN, { encapsulation: 'gre-udp' }, [0, 0, 8, 0, 0, 0, 0, 0]],
  ])('M6 the key and the ports that are quoted: %s: %i', (_, verdict, options, behind) => {
    const core = tunnelled(make, options);
    expect(learn(core, about({ behind }))).toBe(verdict);
    expect(known(core).pathMtu).toBe(verdict === 0 ? 1400 : undefined);
  });

  test.each([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])('I5 code %i: the VM cannot be reached', (code) => {
    const core = tunnelled(make);
    const isOfHost = code === 2 || code === 3;
    // Of protocols and ports only the VM itself knows.
    expect(learn(core, about({ code }), 1000)).toBe(isOfHost ? FOREIGN : abi.FORWARD);
    if (isOfHost) expect(known(core, 1000)).toEqual({});
    const own = { code, outer: { source: B } };
    expect(learn(core, about(own), 1000)).toBe(abi.FORWARD);
    expect(known(core, 1000)).toEqual({ unreachable: code });
    expect([known(core, 30_999), known(core, 31_000)]).toEqual([{ unreachable: code }, {}]);
    // Heard again, it is believed longer, and that is not noted.
    learn(core, about(own), 9999);
    expect([core.tunnels.learnt(), known(core, 38_999), known(core, 39_000)]).toEqual([[], { unreachable: code }, {}]);
    // The MTU that it has does not matter.
    expect(learn(core, about({ ...own, mtu: 0 }))).toBe(abi.FORWARD);
    expect(known(core).pathMtu).toBe(undefined);
    // Another reason is no news; it is again, after 30 s without any.
    const other = code === 1 ? 0 : 1;
    learn(core, about({ code: other }), 10_000);
    expect([core.tunnels.learnt(), known(core, 10_000)]).toEqual([[], { unreachable: other }]);
    learn(core, about({ code: other }), 40_000);
    expect(core.tunnels.learnt()).toEqual([{ vm: B, unreachable: other }]);
    learn(core, about({ mtu: 1300 }), 70_000);
    expect(core.tunnels.learnt()).toEqual([{ vm: B, pathMtu: 1300 }]);
    // Last use is the host's own.
    expect(tunnelsFrom(core.tunnels.copy(0)).map(({ lastUse }) => lastUse)).toEqual([0, 0]);
  });

  test('I5 a vm of 0 has no tunnel, not even where the underlay prefix has it', () => {
    const core = tunnelled(make);
    core.configure({
      local: A,
      mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0, underlayLength: 10 }],
    });
    const before = core.bytes.slice(abi.TUNNELS, abi.SLOTS);
    expect(learn(core, about({ quoted: { destination: 0 } }))).toBe(FOREIGN);
    expect(Buffer.compare(core.bytes.subarray(abi.TUNNELS, abi.SLOTS), before)).toBe(0);
  });

  test('M6, I5 both are known at once, and noted one after the other; a tunnel that is closed forgets', () => {
    const core = tunnelled(make);
    core.put(0, about({ code: 1 }));
    core.put(1, about({ mtu: 1300 }));
    core.put(2, about({ mtu: 1200, quoted: { destination: C } }));
    core.put(3, wire.packetOf({}));
    expect(core.learn(0, 4, 0)).toBe(4);
    expect(core.tunnels.learnt()).toEqual([
      { vm: B, unreachable: 1 },
      { vm: B, unreachable: 1, pathMtu: 1300 },
      { vm: C, pathMtu: 1200 },
    ]);
    expect([core.tunnels.opened(), core.tunnels.closed(), core.tunnels.haveChanged]).toEqual([[], [], true]);
    expect(core.counters('icmp')).toMatchObject({ received: 4, forwarded: 3 });
    // Without the tunnel a larger one would be tried again too soon.
    expect([core.expire(1), core.expire(600_999.9), core.tunnels.learnt()]).toEqual([0, 0, []]);
    expect(core.expire(601_000)).toBe(2);
    expect(learn(core, about({}))).toBe(FOREIGN);
    sendPackets(core, [wire.packetOf({})]);
    expect(known(core)).toEqual({});
  });

  test('M6 first and count are clamped, descriptors checked, and messages of the last call are gone', () => {
    const core = tunnelled(make);
    const [most, least] = [2 ** 31 - 1, -(2 ** 31)];
    for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, about({ mtu: 1400 - i }));
    for (const [first, count, end, made] of [
      [0, 0, 0, 0],
      [5, 3, 3, 0],
      [most, most, 128, 0],
      [least, least, 0, 0],
      [-3, 2, 2, 2],
      [126, 1000, 128, 2],
    ] as const) {
      const before = core.counters('icmp').received;
      expect([first, count, core.learn(first, count, 0)]).toEqual([first, count, end]);
      expect(core.counters('icmp').received).toBe(before + made);
    }
    sendPackets(core, [wire.packetOf({}), wire.packetOf({ destination: 0x0b000001 })]);
    expect([core.messages.count(), core.messages.count(abi.REPLY_PORT)]).toEqual([1, 1]);
    core.learn(0, 0, 0);
    expect([core.messages.count(), core.messages.count(abi.REPLY_PORT)]).toEqual([0, 0]);
    const words = new Uint32Array(core.memory, abi.DESCRIPTORS, 2);
    for (const [address, length] of [
      [0, 100],
      [abi.MEMORY_SIZE - 10, 11],
      [abi.SLOTS + abi.HEADROOM, 0xffffffff],
      [0xffffffff, 0],
    ]) {
      words.set([address as number, length as number]);
      core.learn(0, 1, 0);
      expect(core.verdict(0)).toBe(abi.DROP_BAD_DESCRIPTOR);
    }
  });

  test('M6 as many as one call can hold, all of them news', () => {
    const core = tunnelled(make);
    for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, about({ mtu: 1400 - i }));
    core.learn(0, abi.BATCH_SIZE, 0);
    expect(core.tunnels.learnt().map(({ pathMtu }) => pathMtu)).toEqual(
      Array.from({ length: 128 }, (_, i) => 1400 - i),
    );
  });

  test('M6 with virtio headers, too: what a raw socket delivers has none', () => {
    const core = coreOf(make, { mtu: 1476, offloads: VIRTIO });
    core.put(0, wire.grePacket(B, A, wire.packetOf({ source: 0x0a102107, destination: 0x0a10205b })));
    core.decapsulate(0, 1, 0);
    expect(learn(core, about({}))).toBe(abi.FORWARD);
  });
});

/** The packet with 4 bytes of options. */
function withOptions(packet: Uint8Array): Uint8Array {
  const copy = Uint8Array.from([...packet.subarray(0, 20), 1, 1, 1, 0, ...packet.subarray(20)]);
  copy[0] = 0x46;
  view(copy).setUint16(2, view(packet).getUint16(2) + 4);
  return wire.forwarded(copy, 0);
}

/** The packet of so many bytes, and its header says so. */
const cutTo = (packet: Uint8Array, length: number) => wire.editedHeader(packet, 2, 0, length).subarray(0, length);

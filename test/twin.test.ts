/** The TypeScript twin of the packet core on its own: what docs/abi.md says, against plain sums and packets built here. */
import { describe, expect, test } from 'vitest';
import * as abi from '../src/core/abi.ts';
import type { CoreConfig, CoreDevices, Encapsulation, PacketCore } from '../src/core/core.ts';
import { tunnelsFrom } from '../src/core/tunnels.ts';
import { sum } from '../src/core/typescript/checksum.ts';
import { typescriptCore } from '../src/core/typescript/index.ts';

const u32 = (text: string) => text.split('.').reduce((value, byte) => value * 256 + Number(byte), 0);

/** A core on the VM `local`, its mappings as 'overlay/length underlay/length'. */
function coreOf(
  local: string,
  plans = ['10.0.0.0/8 192.168.0.0/16'],
  key?: number,
  encapsulation: Encapsulation = 'gre',
  devices: CoreDevices = {},
  more: Partial<CoreConfig> = {},
): PacketCore {
  const core = typescriptCore();
  core.attach(devices);
  const mappings = plans.map((plan) => {
    const [overlay = 0, overlayLength = 0, underlay = 0, underlayLength = 0] = plan.split(/[/ ]/).map(u32);
    return { overlay, overlayLength, underlay, underlayLength };
  });
  core.configure({ local: u32(local), key, encapsulation, mappings, ...more });
  return core;
}

/** The ones-complement sum, two bytes at a time with the carry added at once. */
function plainSum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

/** An IPv4 packet with a right header checksum; `to` is text or u32. */
function ipv4(from: string, to: string | number, payload: Uint8Array = new Uint8Array(8), protocol = 17) {
  const packet = new Uint8Array(20 + payload.length);
  const view = new DataView(packet.buffer);
  packet.set([0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol]);
  view.setUint16(2, packet.length);
  view.setUint32(12, u32(from));
  view.setUint32(16, typeof to === 'string' ? u32(to) : to);
  view.setUint16(10, 0xffff - plainSum(packet.subarray(0, 20)));
  packet.set(payload, 20);
  return packet;
}

const tunnelsOf = (core: PacketCore) => tunnelsFrom(core.copyTunnels());
const gre = (header: number[], inner: Uint8Array) => Uint8Array.from([...header, ...inner]);

/** The verdict on one packet. */
function handle(core: PacketCore, call: 'encapsulate' | 'decapsulate', packet: Uint8Array, now = 0): number {
  core.put(0, packet);
  core[call](0, 1, now);
  return core.verdict(0);
}

test('the checksum is the plain sum at every length and alignment', () => {
  const bytes = new Uint8Array(9008).map((_, i) => (i * 2654435761) >>> 13);
  const memory = new DataView(bytes.buffer);
  for (let length = 0; length <= 9001; length++) {
    expect(sum(memory, length % 7, length)).toBe(plainSum(bytes.subarray(length % 7, (length % 7) + length)));
  }
  const ones = new Uint8Array(65535).fill(0xff);
  expect(sum(new DataView(ones.buffer), 0, ones.length)).toBe(plainSum(ones));
});

test.each([
  ['10.0.0.0/8 192.168.0.0/16', '10.16.32.91', '192.168.16.32'],
  ['240.0.0.0/4 192.168.0.0/16', '241.2.0.91', '192.168.16.32'],
  ['240.0.0.0/4 192.168.0.0/17', '242.4.0.91', '192.168.16.32'],
  ['10.0.0.0/8 192.168.16.0/21', '10.4.0.91', '192.168.16.32'],
  ['128.0.0.0/1 1.2.3.4/32', '255.1.2.3', '1.2.3.4'],
])('mapping %s: %s is on %s', (plan, address, vm) => {
  expect(coreOf(vm, [plan]).vmOf(u32(address))).toBe(u32(vm));
  expect(coreOf(vm, [plan]).vmOf(u32('9.0.0.1'))).toBe(0);
});

test('mapping refuses lengths that do not fit, and a seventeenth', () => {
  for (const rest of ['0 2.0.0.0/16', '33 2.0.0.0/32', '8 2.0.0.0/0', '8 2.0.0.0/33', '8 2.0.0.0/9']) {
    expect(() => coreOf('1.2.3.4', [`10.0.0.0/${rest}`])).toThrow(RangeError);
  }
  expect(() => coreOf('1.2.3.4', Array(16).fill('10.0.0.0/8 2.0.0.0/10'))).not.toThrow();
  expect(() => coreOf('1.2.3.4', Array(17).fill('10.0.0.0/8 2.0.0.0/10'))).toThrow(RangeError);
});

test.each([undefined, 0xdeadbeef])('packets with key %s cross the underlay unchanged', (key) => {
  const a = coreOf('192.168.1.1', undefined, key);
  const b = coreOf('192.168.2.2', undefined, key);
  const inner = ipv4('10.1.1.5', '10.2.2.9', new Uint8Array(101).fill(7));
  expect(handle(a, 'encapsulate', gre([...inner], new Uint8Array(3)), 5)).toBe(abi.FORWARD);
  const outer = a.messageBytes(0);
  const header = key === undefined ? [0, 0, 8, 0] : [0x20, 0, 8, 0, 0xde, 0xad, 0xbe, 0xef];
  const expected = ipv4('192.168.1.1', '192.168.2.2', gre(header, inner), 47);
  expected.set([0, 0, 0x40, 0, 64, 47, 0, 0], 4);
  new DataView(expected.buffer).setUint16(10, 0xffff - plainSum(expected.subarray(0, 20)));
  expect(outer).toEqual(expected);
  for (const at of [abi.DESCRIPTORS + abi.DESCRIPTOR_PEER, abi.NAMES + abi.NAME_ADDRESS]) {
    expect(a.bytes.slice(at, at + 4)).toEqual(Uint8Array.of(192, 168, 2, 2));
  }
  expect(a.bytes.slice(abi.NAMES, abi.NAMES + 4)).toEqual(Uint8Array.of(2, 0, 0, 0));
  expect([a.messageCount(), a.messageCargo(0)]).toEqual([1, { packets: 1, bytes: inner.length }]);

  expect(handle(b, 'decapsulate', outer, 6)).toBe(abi.FORWARD);
  expect(b.messageBytes(0)).toEqual(inner);
  expect([b.messageCount(), b.messageCargo(0)]).toEqual([1, { packets: 1, bytes: inner.length }]);
  expect(b.bytes.slice(abi.DESCRIPTORS + 12, abi.DESCRIPTORS + 16)).toEqual(Uint8Array.of(192, 168, 1, 1));
  const use = { firstUse: 6, lastUse: 6, outbound: { packets: 0, bytes: 0 } };
  expect(tunnelsOf(b)).toEqual([{ vm: u32('192.168.1.1'), ...use, inbound: { packets: 1, bytes: inner.length } }]);
  expect(b.counters('inbound')).toMatchObject({ received: 1, forwarded: 1, bytes: inner.length });
});

describe('drops', () => {
  const core = coreOf('192.168.1.1');
  const [me, peer] = ['10.1.1.5', '10.2.2.9'];
  const damaged = (at: number, value: number) => ipv4(me, peer).with(at, value);
  const tunnelled = (payload: Uint8Array) => ipv4('192.168.2.2', '192.168.1.1', payload, 47);
  const back = ipv4(peer, me);
  const whole = gre([0x80, 0, 8, 0, 0, 0, 0, 0], back);
  new DataView(whole.buffer).setUint16(4, 0xffff - plainSum(whole));

  test.each<[number, Uint8Array]>([
    [abi.DROP_TRUNCATED, new Uint8Array(19)],
    [abi.DROP_NOT_IPV4, damaged(0, 0x65)],
    [abi.DROP_BAD_HEADER_LENGTH, damaged(0, 0x44)],
    [abi.DROP_BAD_TOTAL_LENGTH, damaged(3, 19)],
    [abi.DROP_TRUNCATED, damaged(3, 29)],
    [abi.DROP_BAD_HEADER_CHECKSUM, damaged(8, 63)],
    [abi.DROP_FOREIGN_SOURCE, ipv4('10.1.2.5', peer)],
    [abi.DROP_FOREIGN_SOURCE, ipv4('10.1.1.255', peer)],
    [abi.DROP_NO_MAPPING, ipv4(me, '11.0.0.1')],
    [abi.DROP_OWN_SLICE, ipv4(me, '10.1.1.0')],
    [abi.DROP_RESERVED_ADDRESS, ipv4(me, '10.2.2.0')],
    [abi.DROP_TOO_LONG, ipv4(me, peer, new Uint8Array(65535 - 20 - 23))],
    [abi.FORWARD, ipv4(me, peer, new Uint8Array(65535 - 20 - 24))],
  ])('outbound %i', (verdict, packet) => expect(handle(core, 'encapsulate', packet)).toBe(verdict));

  test.each<[number, Uint8Array]>([
    [abi.DROP_NOT_GRE, ipv4('192.168.2.2', '192.168.1.1')],
    [abi.DROP_FRAGMENT, tunnelled(whole).with(4, 0).with(6, 0x12)], // the same sum, with an offset
    [abi.DROP_NOT_FOR_US, ipv4('192.168.2.2', '192.168.1.2', whole, 47)],
    [abi.DROP_FOREIGN_UNDERLAY, ipv4('192.169.2.2', '192.168.1.1', whole, 47)],
    [abi.DROP_TRUNCATED, tunnelled(new Uint8Array(3))],
    [abi.DROP_GRE_VERSION, tunnelled(gre([0, 1, 8, 0], back))],
    [abi.DROP_GRE_FLAGS, tunnelled(gre([0x40, 0, 8, 0], back))],
    [abi.DROP_TRUNCATED, tunnelled(Uint8Array.of(0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))],
    [abi.DROP_GRE_CHECKSUM, tunnelled(whole.with(5, (whole[5] as number) ^ 1))],
    [abi.DROP_GRE_PROTOCOL, tunnelled(gre([0, 0, 0x86, 0xdd], back))],
    [abi.DROP_GRE_KEY, tunnelled(gre([0x20, 0, 8, 0, 0, 0, 0, 0], back))],
    [abi.DROP_SPOOFED_SOURCE, tunnelled(gre([0, 0, 8, 0], ipv4('10.2.3.9', me)))],
    [abi.DROP_FOREIGN_DESTINATION, tunnelled(gre([0, 0, 8, 0], ipv4(peer, '10.1.2.5')))],
    [abi.DROP_RESERVED_ADDRESS, tunnelled(gre([0, 0, 8, 0], ipv4(peer, '10.1.1.255')))],
    [abi.FORWARD, tunnelled(gre([0x10, 0, 8, 0, 1, 2, 3, 4], back))],
    [abi.FORWARD, tunnelled(whole)],
  ])('inbound %i', (verdict, packet) => expect(handle(core, 'decapsulate', packet)).toBe(verdict));

  test('every packet is counted once, and descriptors outside the slots never trap', () => {
    const words = new Uint32Array(core.memory, abi.DESCRIPTORS, 2);
    const edges = [0, abi.SLOTS + 53, abi.SLOTS + 54, abi.MEMORY_SIZE - 1, abi.MEMORY_SIZE, 0x80000000, 0xffffffff];
    for (const address of edges) {
      for (const length of [0, 1, abi.MEMORY_SIZE, 0x7fffffff, 0x80000000, 0xffffffff]) {
        words.set([address, length]);
        core.decapsulate(0, 1, 0);
        const outside = address < abi.SLOTS + 54 || address + length > abi.MEMORY_SIZE;
        expect(core.verdict(0) === abi.DROP_BAD_DESCRIPTOR).toBe(outside);
        expect([...words]).toEqual([address, length]);
      }
    }
    expect([core.encapsulate(0, -1, 0), core.encapsulate(0, 2 ** 31 - 1, 0)]).toEqual([0, abi.BATCH_SIZE]);
    expect([core.encapsulate(-9, 1, 0), core.decapsulate(7, 3, 0)]).toEqual([1, 3]);
    for (const { received, forwarded, drops } of [core.counters('outbound'), core.counters('inbound')]) {
      expect(received).toBe(drops.reduce((total, drop) => total + drop, forwarded));
    }
  });
});

const plans = ['10.0.0.0/8 100.64.0.0/10', '11.0.0.0/8 192.168.0.0/16'];

test('tunnels: a ninth VM of a set takes the way of the one used longest ago', () => {
  const core = coreOf('192.168.0.1', plans);
  const setOf = (vm: number) => Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2);
  const base = u32('100.64.0.0');
  const equals: number[] = [];
  for (let i = 1; equals.length < 10; i++) if (setOf(base + i) === 77) equals.push(i);
  const to = (i: number, now: number) => {
    const packet = ipv4('11.0.1.5', u32('10.0.0.1') + (equals[i] as number) * 4);
    expect(handle(core, 'encapsulate', packet, now)).toBe(abi.FORWARD);
  };
  for (let i = 0; i < 8; i++) to(i, 10 + i);
  to(0, 20);
  expect([core.opened(), core.closed()]).toEqual([[], []]);
  to(8, 21);
  expect([core.opened(), core.closed()]).toEqual([[base + (equals[8] as number)], [base + (equals[1] as number)]]);
  expect(core.expire(13)).toBe(1);
  to(9, 22);
  expect(tunnelsOf(core).map((t) => equals.indexOf(t.vm - base))).toEqual([0, 8, 9, 3, 4, 5, 6, 7]);
});

test('tunnels: 65,536 are open at once, and expire in batches', () => {
  const core = coreOf('100.64.0.1', plans);
  for (let vm = 0; vm < 65536; vm += abi.BATCH_SIZE) {
    for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, ipv4('10.0.0.5', u32('11.0.0.9') + (vm + i) * 256));
    expect([core.encapsulate(0, abi.BATCH_SIZE, vm), core.opened().length]).toEqual([abi.BATCH_SIZE, abi.BATCH_SIZE]);
  }
  expect([core.expire(0), core.tunnelCount]).toEqual([0, 65536]);
  let closed = 0;
  for (let n = abi.BATCH_SIZE; n === abi.BATCH_SIZE; closed += n) n = core.expire(32768);
  expect([closed, core.tunnelCount]).toEqual([32768, 32768]);
  expect(Math.min(...tunnelsOf(core).map((t) => t.lastUse))).toBe(32768);
});

// Messages.

/** What has super-packets cut here. */
const ALL = abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_SEGMENT | abi.OFFLOAD_UDP_MERGE;
/** What leaves that to the kernel where it can. */
const WHOLE = ALL | abi.OFFLOAD_GRE_SEGMENT;
const [here, there] = ['10.1.1.5', '10.2.2.9'];
const [thisVm, thatVm] = ['192.168.1.1', '192.168.2.2'];
const thatPeer = 0x0202a8c0;

/** A core on `vm` that can do `offloads`. */
const able = (
  offloads: number,
  encapsulation: Encapsulation = 'gre',
  ports = 1,
  vm = thisVm,
  more: Partial<CoreConfig> = {},
) => coreOf(vm, undefined, undefined, encapsulation, { offloads, ports }, more);
const messagesOf = (core: PacketCore, port = 0) =>
  Array.from({ length: core.messageCount(port) }, (_, i) => core.messageBytes(port * abi.MESSAGES_PER_PORT + i));
const bytes = (length: number, seed = 1) => new Uint8Array(length).map((_, i) => ((i + seed) * 2654435761) >>> 13);
const view = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset);

/** What of a packet a test chooses; the rest is as in `transport`. */
interface Fields {
  from?: string;
  to?: string;
  protocol?: number;
  tos?: number;
  id?: number;
  flags?: number;
  ttl?: number;
  ipOptions?: number[];
  ports?: number;
  sequence?: number;
  acknowledgement?: number;
  tcpFlags?: number;
  reserved?: number;
  window?: number;
  urgent?: number;
  options?: number[];
  payload?: Uint8Array;
  noChecksum?: boolean;
  /** The checksum field holds the sum of the pseudo header alone. */
  open?: boolean;
  /** Another protocol, for a packet that else is as `protocol` says. */
  disguise?: number;
}

/** A TCP (6) or UDP (17) packet from `there` to `here` with right checksums. */
function transport(fields: Fields = {}): Uint8Array {
  const f = { protocol: 6, tos: 0, id: 0, flags: 0x4000, ttl: 64, ports: 0x1234_0050, ...fields };
  const options = f.options ?? [];
  const data = f.payload ?? bytes(100);
  const segment = new Uint8Array((f.protocol === 6 ? 20 + options.length : 8) + data.length);
  const s = view(segment);
  s.setUint32(0, f.ports);
  if (f.protocol === 6) {
    s.setUint32(4, f.sequence ?? 1000);
    s.setUint32(8, f.acknowledgement ?? 77);
    s.setUint8(12, ((20 + options.length) / 4) * 16 + (f.reserved ?? 0));
    s.setUint8(13, f.tcpFlags ?? 0x10);
    s.setUint16(14, f.window ?? 500);
    s.setUint16(18, f.urgent ?? 0);
    segment.set(options, 20);
  } else {
    s.setUint16(4, segment.length);
  }
  segment.set(data, segment.length - data.length);

  const ipOptions = f.ipOptions ?? [];
  const header = 20 + ipOptions.length;
  const packet = new Uint8Array(header + segment.length);
  const v = view(packet);
  packet.set([0x40 + header / 4, f.tos, 0, 0, 0, 0, 0, 0, f.ttl, f.protocol]);
  v.setUint16(2, packet.length);
  v.setUint16(4, f.id);
  v.setUint16(6, f.flags);
  v.setUint32(12, u32(f.from ?? there));
  v.setUint32(16, u32(f.to ?? here));
  packet.set(ipOptions, 20);
  packet.set(segment, header);
  const field = header + (f.protocol === 6 ? 16 : 6);
  if (f.open) {
    v.setUint16(field, pseudoSum(packet));
  } else if (!f.noChecksum) {
    v.setUint16(field, 0xffff - transportSum(packet) || 0xffff);
  }
  packet[9] = f.disguise ?? f.protocol;
  v.setUint16(10, 0xffff - plainSum(packet.subarray(0, header)));
  return packet;
}

/** The pseudo header of a packet, in bytes. */
function pseudoOf(packet: Uint8Array): number[] {
  const length = view(packet).getUint16(2) - ((packet[0] as number) & 15) * 4;
  return [...packet.subarray(12, 20), 0, packet[9] as number, length >> 8, length & 0xff];
}

/** The plain sum over the pseudo header alone. */
const pseudoSum = (packet: Uint8Array) => plainSum(Uint8Array.from(pseudoOf(packet)));

/** The plain sum over pseudo header and segment. */
function transportSum(packet: Uint8Array): number {
  return plainSum(Uint8Array.from([...pseudoOf(packet), ...packet.subarray(((packet[0] as number) & 15) * 4)]));
}

/** Payload of 100 bytes that makes the sum over the packet, its checksum field included, all ones. */
function levelled(fields: Fields): Uint8Array {
  const payload = bytes(100).fill(0, 0, 2);
  const rest = 0xffff - transportSum(transport({ ...fields, payload }));
  payload.set([rest >> 8, rest & 0xff]);
  return payload;
}

/** A virtio header: flags, GSO type, header length, GSO size, checksum start and offset. */
function virtio(flags = 0, type = 0, header = 0, size = 0, start = 0, offset = 0): number[] {
  const words = [header, size, start, offset].flatMap((word) => [word & 0xff, word >> 8]);
  return [flags, type, ...words];
}

test('attach: pointers are the base plus a place, beyond 32 bits and across the carry', () => {
  for (const base of [0x7f12_fff0_1230, 0xffff_ffff, 2 ** 52 + 16, 0]) {
    const core = coreOf(thisVm, undefined, undefined, 'gre', { base, offloads: 0xff, ports: 99 });
    expect([...new Uint32Array(core.memory, abi.CONFIG + abi.CONFIG_OFFLOADS, 2)]).toEqual([15, abi.MAX_PORTS]);
    const inner = ipv4(here, there);
    expect(handle(core, 'encapsulate', gre(virtio(), inner))).toBe(abi.FORWARD);
    expect(core.messageBytes(0).subarray(24)).toEqual(inner);
    const u64 = (at: number) => new DataView(core.memory).getBigUint64(at, true);
    const from = (place: number) => BigInt(base) + BigInt(place);
    for (const i of [0, 1, 511, abi.MESSAGES - 1]) {
      const m = abi.MESSAGE_TABLE + i * abi.MESSAGE_SIZE;
      expect(u64(m + abi.MESSAGE_NAME)).toBe(from(abi.NAMES + 16 * i));
      expect(u64(m + abi.MESSAGE_NAME_LENGTH)).toBe(16n);
      expect(u64(m + abi.MESSAGE_IOV)).toBe(from(abi.IOVS + 128 * 16 * i));
      expect(u64(m + abi.MESSAGE_IOV_COUNT)).toBe(i === 0 ? 1n : 0n);
      expect(u64(m + abi.MESSAGE_CONTROL)).toBe(from(abi.CONTROLS + 32 * i));
      const control = Uint32Array.of(18, 0, 17, 103, 0, 0, 0, 0);
      expect(new Uint32Array(core.memory, abi.CONTROLS + 32 * i, 8)).toEqual(control);
      expect(core.bytes[abi.NAMES + 16 * i]).toBe(2);
    }
    expect(u64(abi.IOVS)).toBe(from(core.slot(0) + 10 - 24));
    expect(u64(abi.IOVS + 8)).toBe(BigInt(24 + inner.length));
  }
  const core = able(ALL, 'gre-udp', -3);
  handle(core, 'encapsulate', gre(virtio(), ipv4(here, there)));
  core.attach({ offloads: ALL });
  const name = core.bytes.slice(abi.NAMES, abi.NAMES + abi.NAME_SIZE);
  expect(name).toEqual(Uint8Array.of(2, ...new Uint8Array(15)));
  expect(new Uint32Array(core.memory, abi.CONFIG, 10)).toEqual(
    Uint32Array.of(u32(thisVm), 0, 0, 64, 1, 1, ALL, 1, 0, 0),
  );
});

test('configure: what attach was told stays, all else is new', () => {
  const core = coreOf(thisVm, undefined, 7, 'gre-udp', { base: 2 ** 32 + 5, offloads: WHOLE, ports: 3 });
  const words = new Uint32Array(core.memory, abi.CONFIG, abi.CONFIG_SIZE / 4);
  const told = [WHOLE, 3, 5, 1];
  expect([...words]).toEqual([u32(thisVm), 1, 7, 64, 1, 1, ...told, 1476, 0, 0, 0, 0, 0]);
  words.fill(0x55555555, (abi.CONFIG_MTU + 4) / 4);
  core.configure({ local: u32(thatVm), ttl: 257, mtu: 9000, mappings: [] });
  expect([...words]).toEqual([u32(thatVm), 0, 0, 1, 0, 0, ...told, 9000, 0, 0, 0, 0, 0]);
  core.configure({ local: 1, mtu: -2, mappings: [] });
  core.attach({});
  expect([...words]).toEqual([1, 0, 0, 64, 0, 0, 0, 1, 0, 0, 0xfffffffe, 0, 0, 0, 0, 0]);
});

// Outbound: virtio header, cutting.

test('a checksum that the container left open is completed', () => {
  for (const [protocol, offset] of [
    [6, 16],
    [17, 6],
  ] as const) {
    for (const length of [1, 100, 1001]) {
      const packet = transport({ protocol, from: here, to: there, payload: bytes(length), ipOptions: [1, 1, 1, 0] });
      const open = packet.slice();
      view(open).setUint16(24 + offset, pseudoSum(packet));
      const core = able(ALL);
      expect(handle(core, 'encapsulate', gre(virtio(1, 0, 0, 0, 24, offset), open))).toBe(abi.FORWARD);
      expect(core.messageBytes(0).subarray(24)).toEqual(packet);
      // Without the flag, nothing is touched.
      expect(handle(core, 'encapsulate', gre(virtio(2, 0x80, 0, 0, 24, offset), open))).toBe(abi.FORWARD);
      expect(core.messageBytes(0).subarray(24)).toEqual(open);
    }
  }
  // A sum of all ones becomes 0xffff, not 0.
  const core = able(ALL);
  const flat = ipv4(here, there, Uint8Array.of(0xff, 0xff, 0, 0, 0, 0));
  expect(handle(core, 'encapsulate', gre(virtio(1, 0, 0, 0, 20, 2), flat))).toBe(abi.FORWARD);
  expect(core.messageBytes(0).subarray(44)).toEqual(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0));
});

const CHOPPED: Fields = { protocol: 17, from: here, to: there, ipOptions: [1, 1, 1, 0] };
describe('virtio headers', () => {
  const tcp = (fields: Fields = {}) => transport({ from: here, to: there, options: [1, 1, 1, 1], ...fields });
  const shortTcp = tcp({ payload: new Uint8Array(1) });
  shortTcp[32] = 0x40;
  test.each<[string, number, number[], Uint8Array]>([
    ['no room for it', abi.DROP_TRUNCATED, virtio().slice(1), new Uint8Array(0)],
    ['the packet behind it ends early', abi.DROP_TRUNCATED, virtio(), tcp().subarray(0, 123)],
    ['a checksum starts in the IPv4 header', abi.DROP_BAD_OFFLOAD, virtio(1, 0, 0, 0, 19, 0), tcp()],
    ['a checksum starts right behind it', abi.FORWARD, virtio(1, 0, 0, 0, 20, 0), tcp()],
    ['a checksum ends past the packet', abi.DROP_BAD_OFFLOAD, virtio(1, 0, 0, 0, 20, 123), tcp()],
    ['a checksum ends with the packet', abi.FORWARD, virtio(1, 0, 0, 0, 20, 122), tcp()],
    ['a checksum far away', abi.DROP_BAD_OFFLOAD, virtio(1, 0, 0, 0, 65535, 65535), tcp()],
    ['a checksum that need not be', abi.FORWARD, virtio(0, 0, 0, 0, 65535, 65535), tcp()],
    ['an unknown type', abi.DROP_BAD_OFFLOAD, virtio(1, 4, 0, 50, 20, 16), tcp()],
    ['UDP fragments', abi.DROP_BAD_OFFLOAD, virtio(1, 3, 0, 50, 20, 6), transport(CHOPPED)],
    ['TCP type, UDP packet', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50, 20, 16), transport(CHOPPED)],
    ['UDP type, TCP packet', abi.DROP_BAD_OFFLOAD, virtio(1, 5, 0, 50, 20, 6), tcp()],
    ['TCP type, another that looks like it', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50), tcp({ disguise: 47 })],
    ['UDP type, another that looks like it', abi.DROP_BAD_OFFLOAD, virtio(1, 5, 0, 50), tcp({ disguise: 136 })],
    ['a fragment', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50, 20, 16), tcp({ flags: 0x2000 })],
    ['segments of 0 bytes', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 0, 20, 16), tcp()],
    ['a TCP header of 4 words', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50, 20, 16), shortTcp],
    ['TCP without payload', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50, 20, 16), tcp({ payload: bytes(0) })],
    ['TCP without a header', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 50, 20, 16), ipv4(here, there, bytes(12), 6)],
    ['UDP without payload', abi.DROP_BAD_OFFLOAD, virtio(1, 5, 0, 9), transport({ ...CHOPPED, payload: bytes(0) })],
    ['129 segments', abi.DROP_BAD_OFFLOAD, virtio(1, 1, 0, 1, 20, 16), tcp({ payload: bytes(129) })],
    ['128 segments', abi.FORWARD, virtio(1, 1, 0, 1, 20, 16), tcp({ payload: bytes(128) })],
    ['with ECN', abi.FORWARD, virtio(1, 0x81, 0, 50, 20, 16), tcp()],
    ['a first segment too long', abi.DROP_TOO_LONG, virtio(1, 1, 0, 65468, 20, 16), tcp({ payload: bytes(65491) })],
    ['a first segment just so', abi.FORWARD, virtio(1, 1, 0, 65467, 20, 16), tcp({ payload: bytes(65491) })],
  ])('%s', (_, verdict, header, packet) => {
    const core = able(ALL);
    expect(handle(core, 'encapsulate', gre(header, packet))).toBe(verdict);
    const { received, forwarded, drops } = core.counters('outbound');
    expect([received - forwarded, drops[-verdict] ?? 0]).toEqual(verdict === 0 ? [0, 0] : [1, 1]);
  });
});

test('GRE-in-UDP takes 8 bytes more', () => {
  const core = able(0, 'gre-udp');
  expect(handle(core, 'encapsulate', ipv4(here, there, bytes(65535 - 20 - 32)))).toBe(abi.FORWARD);
  expect(handle(core, 'encapsulate', ipv4(here, there, bytes(65535 - 20 - 31)))).toBe(abi.DROP_TOO_LONG);
});

/** The outer headers of the format GRE are right; returns the packet within. */
function innerOf(message: Uint8Array): Uint8Array {
  expect(plainSum(message.subarray(0, 20))).toBe(0xffff);
  expect([view(message).getUint16(2), [...message.subarray(20, 24)]]).toEqual([message.length, [0, 0, 8, 0]]);
  return message.subarray(24);
}

test('TCP is cut as Linux does it', () => {
  const options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
  for (const [length, size, count] of [
    [1000, 300, 4],
    [900, 300, 3],
    [300, 300, 1],
    [7, 300, 1],
    [3003, 1001, 3],
  ] as const) {
    const fields: Fields = { from: here, to: there, id: 0xfffe, tos: 3, flags: 0, options, ipOptions: [1, 1, 1, 0] };
    const payload = bytes(length);
    const whole = transport({ ...fields, sequence: 0xffffff00, tcpFlags: 0xff, payload, noChecksum: true });
    const core = able(ALL);
    core.put(0, gre(virtio(1, 0x81, 0, size, 24, 16), whole));
    expect([core.encapsulate(0, 1, 3), core.verdict(0)]).toEqual([1, abi.FORWARD]);
    const segments = messagesOf(core).map(innerOf);
    const expected = Array.from({ length: count }, (_, n) =>
      transport({
        ...fields,
        id: (0xfffe + n) & 0xffff,
        sequence: (0xffffff00 + n * size) >>> 0,
        tcpFlags: 0xff & (n === 0 ? 0xff : ~0x80) & (n === count - 1 ? 0xff : ~0x09),
        payload: payload.subarray(n * size, (n + 1) * size),
      }),
    );
    expect(segments).toEqual(expected);
    const total = expected.reduce((sum, segment) => sum + segment.length, 0);
    expect(segments.map((_, i) => core.messageCargo(i))).toEqual(
      expected.map((s) => ({ packets: 1, bytes: s.length })),
    );
    expect(core.counters('outbound')).toMatchObject({ received: count, forwarded: count, bytes: total });
    expect(tunnelsOf(core)[0]).toMatchObject({ lastUse: 3, outbound: { packets: count, bytes: total } });
    // The packet in its slot keeps its bytes.
    expect(core.bytes.slice(core.slot(0), core.slot(0) + 10 + whole.length)).toEqual(
      gre(virtio(1, 0x81, 0, size, 24, 16), whole),
    );
  }
});

test('UDP is cut as Linux does it, and a checksum is never 0', () => {
  const whole = transport({ protocol: 17, from: here, to: there, id: 5, payload: bytes(1000), noChecksum: true });
  const core = able(ALL);
  expect(handle(core, 'encapsulate', gre(virtio(1, 5, 0, 333, 20, 6), whole))).toBe(abi.FORWARD);
  const expected = [0, 333, 666, 999].map((at, n) =>
    transport({ protocol: 17, from: here, to: there, id: 5 + n, payload: bytes(1000).subarray(at, at + 333) }),
  );
  expect(messagesOf(core).map(innerOf)).toEqual(expected);

  // The payload makes the sum all ones: UDP says 0xffff, TCP 0.
  for (const [protocol, type, checksum] of [
    [17, 5, 0xffff],
    [6, 1, 0],
  ] as const) {
    const fields: Fields = { protocol, from: here, to: there, noChecksum: true };
    const packet = transport({ ...fields, payload: levelled(fields) });
    expect(handle(core, 'encapsulate', gre(virtio(1, type, 0, 999, 20, 6), packet))).toBe(abi.FORWARD);
    const [segment] = messagesOf(core).map(innerOf);
    expect(view(segment as Uint8Array).getUint16(20 + (protocol === 6 ? 16 : 6))).toBe(checksum);
  }
});

// Outbound: super-packets that go back to the kernel.

const cargoOf = (core: PacketCore, i: number) => [
  ...new Uint32Array(core.memory, abi.CARGOS + i * abi.CARGO_SIZE, abi.CARGO_SIZE / 4),
];

describe('whole', () => {
  const tcp = (length: number, more: Fields = {}) =>
    transport({ from: here, to: there, options: [1, 1, 1, 1], payload: bytes(length), open: true, ...more });
  const udp = (length: number, more: Fields = {}) =>
    transport({ protocol: 17, from: here, to: there, payload: bytes(length), open: true, ...more });

  test.each<[string, number | undefined, number, number[], number, Uint8Array, number]>([
    ['TCP', undefined, 64, virtio(1, 1, 7, 300, 20, 16), 44, tcp(1000), 4],
    ['TCP with a key and ECN', 0xdeadbeef, 254, virtio(1, 0x81, 0, 999, 20, 16), 44, tcp(1000), 2],
    ['TCP with IPv4 options', 1, 255, virtio(3, 1, 0, 1, 24, 16), 48, tcp(128, { ipOptions: [1, 1, 1, 0] }), 128],
    ['UDP', undefined, 0, virtio(0xff, 5, 0, 250, 20, 6), 28, udp(1000), 4],
    ['UDP with ECN', 7, 1, virtio(1, 0x85, 65535, 499, 20, 6), 28, udp(1000), 3],
  ])('%s', (_, key, ttl, header, headers, packet, segments) => {
    const run = (offloads: number) => {
      const core = coreOf(thisVm, undefined, key, 'gre', { offloads }, { ttl });
      core.bytes.fill(0x55, abi.CARGOS, abi.CARGOS + 4 * abi.CARGO_SIZE);
      core.put(0, gre(virtio(), ipv4(here, there)));
      core.put(1, gre(header, packet));
      core.put(2, gre(virtio(), ipv4(here, there)));
      core.bytes.fill(0x66, abi.HEADERS, abi.HEADERS + abi.HEADER_BLOCK_SIZE);
      expect([core.encapsulate(0, 3, 9), core.verdict(1), core.peer(1)]).toEqual([3, abi.FORWARD, thatPeer]);
      return core;
    };
    const core = run(WHOLE);
    const inGre =
      key === undefined ? [0, 0, 8, 0] : [0x20, 0, 8, 0, key >>> 24, (key >> 16) & 255, (key >> 8) & 255, key & 255];
    const outer = 20 + inGre.length;
    const expected = ipv4(thisVm, thatVm, gre(inGre, packet), 47);
    expected.set([0, 0, 0x40, 0, Math.min(ttl + 1, 255), 47, 0, 0], 4);
    view(expected).setUint16(10, 0xffff - plainSum(expected.subarray(0, 20)));
    const v = view(Uint8Array.from(header));
    const [size, start, offset] = [4, 6, 8].map((at) => v.getUint16(at, true)) as [number, number, number];
    const message = gre(virtio(1, header[1], outer + headers, size, outer + start, offset), expected);
    expect([core.messageCount(), core.messagePieces(1), core.messageBytes(1)]).toEqual([3, 1, message]);
    expect(core.messagePeer(1)).toBe(thatPeer);
    expect(core.bytes[abi.MESSAGE_TABLE + abi.MESSAGE_SIZE + abi.MESSAGE_CONTROL_LENGTH]).toBe(0);
    // No header block is used.
    expect(core.bytes.subarray(abi.HEADERS, abi.HEADERS + abi.HEADER_BLOCK_SIZE).every((b) => b === 0x66)).toBe(true);

    const total = packet.length + (segments - 1) * headers;
    expect([0, 1, 2].map((i) => cargoOf(core, i))).toEqual([
      [1, 28, 0, 0],
      [segments, total, 1, 0],
      [1, 28, 0, 0],
    ]);
    expect(cargoOf(core, 3)).toEqual(Array(4).fill(0x55555555));
    expect(core.counters('outbound')).toMatchObject({ received: segments + 2, bytes: total + 56 });
    // What else is to be seen is as if it were cut.
    const cutter = run(ALL);
    expect(cutter.messageCount()).toBe(segments + 2);
    expect([core.counters('outbound'), tunnelsOf(core)]).toEqual([cutter.counters('outbound'), tunnelsOf(cutter)]);
    // What was its message is another's in the next call.
    core.put(0, gre(virtio(), ipv4(here, there)));
    core.put(1, gre(virtio(), ipv4(here, there)));
    expect([core.encapsulate(0, 2, 9), cargoOf(core, 1)]).toEqual([2, [1, 28, 0, 0]]);
  });

  test.each<[string, boolean, number[], Uint8Array, (CoreDevices | undefined)?, Encapsulation?, number?]>([
    ['nothing against it', true, virtio(1, 1, 0, 500, 20, 16), tcp(1000)],
    ['UDP: nothing against it', true, virtio(1, 5, 0, 500, 20, 6), udp(1000)],
    ['not OFFLOAD_GRE_SEGMENT', false, virtio(1, 1, 0, 500, 20, 16), tcp(1000), { offloads: ALL }],
    ['GRE-in-UDP', false, virtio(1, 1, 0, 500, 20, 16), tcp(1000), undefined, 'gre-udp'],
    ['one segment', false, virtio(1, 1, 0, 1000, 20, 16), tcp(1000)],
    ['two, just so', true, virtio(1, 1, 0, 999, 20, 16), tcp(1000)],
    ['as long as can be', true, virtio(1, 1, 0, 1400, 20, 16), tcp(65535 - 24 - 44)],
    ['one byte longer', false, virtio(1, 1, 0, 1400, 20, 16), tcp(65535 - 24 - 43)],
    ['with a key, as long as can be', true, virtio(1, 1, 0, 1400, 20, 16), tcp(65535 - 28 - 44), undefined, 'gre', 7],
    ['with a key, one byte longer', false, virtio(1, 1, 0, 1400, 20, 16), tcp(65535 - 28 - 43), undefined, 'gre', 7],
    ['no NEEDS_CSUM', false, virtio(0xfe, 1, 0, 500, 20, 16), tcp(1000)],
    ['another checksum start', false, virtio(1, 1, 0, 500, 24, 16), tcp(1000)],
    [
      'no options, but their checksum start',
      false,
      virtio(1, 1, 0, 500, 20, 16),
      tcp(1000, { ipOptions: [1, 1, 1, 0] }),
    ],
    ['TCP with the offset of UDP', false, virtio(1, 1, 0, 500, 20, 6), tcp(1000)],
    ['UDP with the offset of TCP', false, virtio(1, 5, 0, 500, 20, 16), udp(1000)],
    ['not the low byte alone', false, virtio(1, 5, 0, 500, 20, 0x106), udp(1000)],
  ])('%s: %s', (_, isWhole, header, packet, devices = { offloads: WHOLE }, encapsulation = 'gre', key = undefined) => {
    const core = coreOf(thisVm, undefined, key, encapsulation, devices);
    expect(handle(core, 'encapsulate', gre(header, packet))).toBe(abi.FORWARD);
    expect(cargoOf(core, 0)[2]).toBe(isWhole ? 1 : 0);
    expect(core.messagePieces(0) === 1).toBe(isWhole);
    expect(core.messageBytes(0)[0]).toBe(isWhole ? 1 : encapsulation === 'gre' ? 0x45 : 0);
  });

  test('what is wrong with a super-packet is so without cutting, too', () => {
    const core = able(WHOLE);
    expect(handle(core, 'encapsulate', gre(virtio(1, 1, 0, 1, 20, 16), tcp(129)))).toBe(abi.DROP_BAD_OFFLOAD);
    const short = ipv4(here, there, bytes(12), 6);
    expect(handle(core, 'encapsulate', gre(virtio(1, 1, 0, 1, 20, 16), short))).toBe(abi.DROP_BAD_OFFLOAD);
  });

  test('room is asked for as for a packet that is cut, and one message is used', () => {
    const core = able(WHOLE);
    for (let i = 0; i < 128; i++) core.put(i, gre(virtio(1, 1, 0, 1, 20, 16), tcp(128)));
    expect([core.encapsulate(0, 128, 0), core.messageCount()]).toEqual([128, 128]);
    // 7 * 128 + 126 messages are taken by packets that are cut: 2 are left.
    for (let i = 0; i < 8; i++) core.put(i, gre(virtio(0, 1, 0, 1), tcp(i === 7 ? 126 : 128)));
    core.put(8, gre(virtio(1, 1, 0, 1, 20, 16), tcp(2)));
    core.put(9, gre(virtio(1, 1, 0, 1, 20, 16), tcp(2)));
    expect([core.encapsulate(0, 10, 0), core.messageCount(), cargoOf(core, 1022)[2]]).toEqual([9, 1023, 1]);
    core.put(8, gre(virtio(1, 1, 0, 1, 20, 16), tcp(3)));
    const before = core.counters('outbound');
    expect([core.encapsulate(8, 9, 0), core.messageCount()]).toEqual([9, 1]);
    expect(core.counters('outbound').forwarded).toBe(before.forwarded + 3);
    core.put(8, gre(virtio(1, 1, 0, 1, 20, 16), tcp(3)));
    expect([core.encapsulate(0, 10, 0), core.messageCount()]).toEqual([8, 1022]);
  });
});

// GRE-in-UDP: runs, ports.

test('GRE-in-UDP: datagrams of one length to one VM share a message, the last may be shorter', () => {
  const to = (vm: string, size: number) => ipv4(here, vm, bytes(size));
  const batch = [
    to(there, 50),
    to(there, 50),
    to(there, 40),
    to(there, 40),
    to(there, 41),
    to('10.2.3.9', 41),
    to(there, 9),
  ];
  const run = (offloads: number, key?: number) => {
    const core = coreOf(thisVm, undefined, key, 'gre-udp', { offloads });
    batch.forEach((packet, i) => {
      core.put(i, packet);
    });
    expect(core.encapsulate(0, batch.length, 0)).toBe(batch.length);
    return core;
  };
  const head = (key?: number) => (key === undefined ? [0, 0, 8, 0] : [0x20, 0, 8, 0, 0, 0, 0, 7]);
  for (const key of [undefined, 7]) {
    const core = run(abi.OFFLOAD_UDP_SEGMENT, key);
    const sent = [[0, 1, 2], [3], [4], [5], [6]];
    expect(messagesOf(core)).toEqual(
      sent.map((run) => Uint8Array.from(run.flatMap((i) => [...head(key), ...(batch[i] as Uint8Array)]))),
    );
    expect(core.messageSegment(0)).toBe(head(key).length + 70);
    expect(core.messageCargo(0)).toEqual({ packets: 3, bytes: 70 + 70 + 60 });
    const controlLengths = sent.map((_, i) => core.bytes[abi.MESSAGE_TABLE + i * 64 + abi.MESSAGE_CONTROL_LENGTH]);
    expect(controlLengths).toEqual([24, 0, 0, 0, 0]);
    const name = core.bytes.slice(abi.NAMES + 3 * abi.NAME_SIZE, abi.NAMES + 4 * abi.NAME_SIZE);
    expect(name).toEqual(Uint8Array.of(2, 0, 0x12, 0x92, 192, 168, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0));
    expect(run(0, key).messageCount()).toBe(batch.length);
    // What was the first message's is not the next one's.
    core.encapsulate(3, 4, 0);
    expect(core.bytes[abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH]).toBe(0);
    expect(messagesOf(core)).toEqual([gre(head(key), batch[3] as Uint8Array)]);
  }
});

test('GRE-in-UDP: a run ends at 64 datagrams and at 65,507 bytes', () => {
  for (const [length, sizes] of [
    [10, [64, 64]],
    [1453, [44, 44, 40]],
  ] as const) {
    const core = able(abi.OFFLOAD_UDP_SEGMENT, 'gre-udp');
    for (let i = 0; i < 128; i++) core.put(i, ipv4(here, there, bytes(length + 8)));
    expect(core.encapsulate(0, 128, 0)).toBe(128);
    expect(messagesOf(core).map((_, i) => core.messageCargo(i).packets)).toEqual(sizes);
  }
  // 65,507 bytes go, one more does not: 44 of 1484 and one of 211, or 212.
  for (const [last, count] of [
    [211, 1],
    [212, 2],
  ] as const) {
    const core = able(abi.OFFLOAD_UDP_SEGMENT, 'gre-udp');
    for (let i = 0; i < 44; i++) core.put(i, ipv4(here, there, bytes(1484 - 24)));
    core.put(44, ipv4(here, there, bytes(last - 24)));
    expect([core.encapsulate(0, 45, 0), core.messageCount()]).toEqual([45, count]);
  }
});

test('GRE-in-UDP: cut segments fill messages, each with two pieces', () => {
  const core = able(ALL, 'gre-udp');
  const whole = transport({ from: here, to: there, payload: bytes(10050), noChecksum: true });
  expect(handle(core, 'encapsulate', gre(virtio(1, 1, 0, 100, 20, 16), whole))).toBe(abi.FORWARD);
  expect([core.messageCount(), core.messageCargo(0).packets, core.messageCargo(1).packets]).toEqual([2, 64, 37]);
  const segments = messagesOf(core).flatMap((message, m) => {
    const size = core.messageSegment(m);
    return Array.from({ length: Math.ceil(message.length / size) }, (_, i) => message.slice(i * size, (i + 1) * size));
  });
  segments.forEach((segment, n) => {
    const part = bytes(10050).subarray(n * 100, n * 100 + 100);
    const expected = transport({ from: here, to: there, id: n, sequence: 1000 + n * 100, payload: part });
    expect(segment).toEqual(gre([0, 0, 8, 0], expected));
  });
});

/** The port of docs/abi.md, in whole numbers of any size. */
function portOf(packet: Uint8Array, ports: number): number {
  const v = view(packet);
  const header = ((packet[0] as number) & 15) * 4;
  const protocol = packet[9] as number;
  const known = [6, 17, 33, 132, 136].includes(protocol) && (v.getUint16(6) & 0x3fff) === 0;
  const w = known && v.getUint16(2) >= header + 4 ? v.getUint32(header) : 0;
  const K = 0x9e3779b1n;
  let h = BigInt(v.getUint32(12));
  for (const next of [v.getUint32(16), w, protocol]) h = (h * K + BigInt(next)) & 0xffffffffn;
  h ^= h >> 15n;
  h = (h * K) & 0xffffffffn;
  return Number(((h >> 16n) * BigInt(ports)) >> 16n);
}

test('GRE-in-UDP: the flow chooses the port, fragments stay with each other', () => {
  for (const ports of [1, 3, 8]) {
    const core = able(0, 'gre-udp', ports);
    const seen = new Set<number>();
    for (let i = 0; i < 300; i++) {
      const protocol = [1, 6, 17, 33, 132, 136, 4][i % 7] as number;
      const inner = ipv4(here, u32(there) + (i % 5), bytes([8, 3, 4][i % 3] as number, i), protocol);
      if (i % 13 === 0) inner.set([0x20, 0, 64, protocol, 0, 0], 6);
      if (i % 13 === 1) inner.set([0, 1, 64, protocol, 0, 0], 6);
      view(inner).setUint16(10, 0);
      view(inner).setUint16(10, 0xffff - plainSum(inner.subarray(0, 20)));
      expect(handle(core, 'encapsulate', inner)).toBe(abi.FORWARD);
      const counts = Array.from({ length: abi.MAX_PORTS }, (_, port) => core.messageCount(port));
      const port = portOf(inner, ports);
      expect(counts).toEqual(counts.map((_, p) => (p === port ? 1 : 0)));
      expect(core.messageBytes(port * abi.MESSAGES_PER_PORT)).toEqual(gre([0, 0, 8, 0], inner));
      seen.add(port);
    }
    expect(seen.size).toBe(ports);
    // The format GRE has no ports.
    const plain = able(0, 'gre', ports);
    for (let i = 0; i < 9; i++) plain.put(i, ipv4(here, there, bytes(8, i)));
    plain.encapsulate(0, 9, 0);
    expect([plain.messageCount(0), plain.messageCount(1)]).toEqual([9, 0]);
  }
});

// Room.

test('room: a batch that needs more messages than there are is handled in several calls', () => {
  const core = able(ALL);
  const whole = transport({ from: here, to: there, payload: bytes(100), noChecksum: true });
  for (let i = 0; i < 128; i++) core.put(i, gre(virtio(1, 1, 0, 10, 20, 16), whole));
  const seen: number[][] = [];
  for (let first = 0; first < 128 && seen.length < 9; ) {
    const next = core.encapsulate(first, 128, 0);
    seen.push([first, next, core.messageCount()]);
    expect(core.counters('outbound')).toMatchObject({ received: next * 10, forwarded: next * 10 });
    first = next;
  }
  expect(seen).toEqual([
    [0, 102, 1020],
    [102, 128, 260],
  ]);
  // What would be dropped needs no room, and a whole packet needs no block.
  for (let i = 0; i < 8; i++)
    core.put(
      i,
      gre(
        virtio(1, 1, 0, 1, 20, 16),
        transport({ from: here, to: there, payload: bytes(i === 7 ? 127 : 128), noChecksum: true }),
      ),
    );
  core.put(8, gre(virtio(9, 9, 9, 9, 9, 9), whole));
  core.put(9, gre(virtio(), whole));
  core.put(10, gre(virtio(), whole));
  expect([core.encapsulate(0, 11, 0), core.messageCount(), core.verdict(9)]).toEqual([10, abi.MESSAGES, 0]);
  core.bytes.fill(0x55, abi.DESCRIPTORS + 32 * 10 + 8, abi.DESCRIPTORS + 32 * 10 + 16);
  expect(core.encapsulate(0, 11, 0)).toBe(10);
  expect([core.verdict(10), core.peer(10)]).toEqual([0x55555555, 0x55555555]);
});

test('room: each port of GRE-in-UDP has its share, and header blocks are shared', () => {
  const core = able(0, 'gre-udp', 8);
  const packet = ipv4(here, there);
  const segmented = transport({ from: here, to: there, payload: bytes(640), noChecksum: true });
  for (let i = 0; i < 128; i++) core.put(i, packet);
  expect([core.encapsulate(0, 128, 0), core.messageCount(portOf(packet, 8))]).toEqual([128, 128]);

  const cutter = able(ALL, 'gre-udp', 1);
  const runs = gre(virtio(1, 1, 0, 10, 20, 16), segmented);
  for (let i = 0; i < 128; i++) cutter.put(i, runs);
  // 64 segments are one message; 16 times 64 header blocks are all there are.
  expect([cutter.encapsulate(0, 128, 0), cutter.messageCount()]).toEqual([16, 16]);
  // A packet that is not cut needs none.
  cutter.put(16, gre(virtio(), segmented));
  expect([cutter.encapsulate(0, 128, 0), cutter.messageCount()]).toEqual([17, 17]);
  // 107 messages of 128 are taken: there is no room for 107 more, though there are blocks.
  cutter.attach({ offloads: abi.OFFLOAD_VIRTIO });
  for (let i = 0; i < 2; i++) cutter.put(i, gre(virtio(1, 1, 0, 6, 20, 16), segmented));
  expect([cutter.encapsulate(0, 2, 0), cutter.messageCount()]).toEqual([1, 107]);
  for (let i = 0; i < 2; i++) cutter.put(i, runs);
  expect([cutter.encapsulate(0, 128, 0), cutter.messageCount()]).toEqual([2, 128]);
});

test('room: inbound datagrams', () => {
  const core = able(0, 'gre-udp');
  const datagram = gre([0, 0, 8, 0], ipv4(there, here));
  const run = Uint8Array.from({ length: 100 * datagram.length }, (_, i) => datagram[i % datagram.length] as number);
  for (let i = 0; i < 12; i++) {
    core.bytes.set(run, core.slot(i));
    core.describeDatagrams(i, run.length, datagram.length, thatPeer);
  }
  expect([core.decapsulate(0, 12, 0), core.messageCount(), core.counters('inbound').received]).toEqual([
    10, 1000, 1000,
  ]);
  expect([core.decapsulate(10, 12, 0), core.messageCount(), core.counters('inbound').received]).toEqual([
    12, 200, 1200,
  ]);
  // More datagrams than messages, whatever room there is.
  core.describeDatagrams(0, 1025, 1, thatPeer);
  expect([core.decapsulate(0, 1, 0), core.verdict(0), core.counters('inbound').received]).toEqual([1, -1, 1201]);
  core.describeDatagrams(0, 1024, 1, thatPeer);
  expect([core.decapsulate(0, 1, 0), core.verdict(0), core.counters('inbound').received]).toEqual([1, -2, 2225]);
});

// Inbound: datagrams, merging.

test('datagrams: each has its verdict, the descriptor that of the whole', () => {
  const core = able(0, 'gre-udp');
  const good = gre([0, 0, 8, 0], ipv4(there, here, bytes(30)));
  const spoofed = gre([0, 0, 8, 0], ipv4('10.2.3.9', here, bytes(30)));
  const take = (parts: Uint8Array[], segment = good.length, peer = thatPeer) => {
    const all = Uint8Array.from(parts.flatMap((part) => [...part]));
    core.bytes.set(all, core.slot(0));
    core.describeDatagrams(0, all.length, segment, peer);
    expect(core.decapsulate(0, 1, 0)).toBe(1);
    expect(core.peer(0)).toBe(peer);
    return core.verdict(0);
  };
  expect(take([good, spoofed, good.subarray(0, 20)])).toBe(abi.FORWARD);
  expect(messagesOf(core)).toEqual([good.slice(4)]);
  expect([take([spoofed, good.subarray(0, 20)]), core.messageCount()]).toEqual([abi.DROP_TRUNCATED, 0]);
  expect([take([good], 0xffffffff), core.messageCount()]).toEqual([abi.FORWARD, 1]);
  expect(take([])).toBe(abi.DROP_TRUNCATED);
  expect(take([], 1, 0x0101a8c0)).toBe(abi.DROP_FOREIGN_UNDERLAY);
  expect(take([good], undefined, 0x0202a9c0)).toBe(abi.DROP_FOREIGN_UNDERLAY);
  const { received, forwarded, bytes: carried, drops } = core.counters('inbound');
  expect([received, forwarded, carried, drops[-abi.DROP_SPOOFED_SOURCE], drops[-abi.DROP_TRUNCATED]]).toEqual([
    9, 2, 100, 2, 3,
  ]);
});

/** What `core` makes of inner packets that come in one call, as virtio header and packet. */
function arrive(core: PacketCore, packets: Uint8Array[]): Uint8Array[] {
  packets.forEach((packet, i) => {
    core.put(i, ipv4(thatVm, thisVm, gre([0, 0, 8, 0], packet), 47));
  });
  expect(core.decapsulate(0, packets.length, 0)).toBe(packets.length);
  packets.forEach((_, i) => {
    expect(core.verdict(i)).toBe(abi.FORWARD);
  });
  return messagesOf(core);
}

/** `count` packets of a TCP connection or a UDP flow that can be merged, the last with what `last` says. */
function stream(count: number, fields: Fields = {}, last: Fields = {}): Uint8Array[] {
  const size = fields.payload?.length ?? 100;
  return Array.from({ length: count }, (_, n) =>
    transport({
      ...fields,
      id: ((fields.id ?? 0xfffe) + n) & 0xffff,
      sequence: ((fields.sequence ?? 0xffffff80) + n * size) >>> 0,
      payload: bytes(size, n),
      ...(n === count - 1 ? last : {}),
    }),
  );
}

const options = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
test.each<[string, number, Uint8Array[]]>([
  ['TCP', 52, stream(5, { options, flags: 0, tos: 2 }, { payload: bytes(33, 9) })],
  ['TCP with PSH', 40, stream(3, { tcpFlags: 0x50 }, { tcpFlags: 0x58 })],
  ['TCP, odd', 40, stream(64, { payload: bytes(501), flags: 0 })],
  ['UDP', 28, stream(4, { protocol: 17, ttl: 3, flags: 0 }, { payload: bytes(1) })],
  ["UDP, don't fragment", 28, stream(2, { protocol: 17 })],
])('merging %s: one super-packet, and cutting it gives the input back', (_, headers, packets) => {
  const core = able(ALL);
  const messages = arrive(core, packets);
  expect(messages.length).toBe(1);
  const [message] = messages as [Uint8Array];
  const merged = message.subarray(10);
  const tcp = merged[9] === 6;
  const [first, total] = [packets[0] as Uint8Array, packets.reduce((sum, packet) => sum + packet.length, 0)];
  expect([...message.subarray(0, 10)]).toEqual(
    virtio(1, tcp ? 1 : 5, headers, first.length - headers, 20, tcp ? 16 : 6),
  );
  expect([merged.length, view(merged).getUint16(2)]).toEqual(Array(2).fill(total - (packets.length - 1) * headers));
  expect([plainSum(merged.subarray(0, 20)), view(merged).getUint16(4)]).toEqual([0xffff, view(first).getUint16(4)]);
  expect(view(merged).getUint16(tcp ? 36 : 26)).toBe(pseudoSum(merged));
  if (!tcp) expect(view(merged).getUint16(24)).toBe(merged.length - 20);
  expect(core.messageCargo(0)).toEqual({ packets: packets.length, bytes: total });
  expect(core.counters('inbound')).toMatchObject({ received: packets.length, forwarded: packets.length, bytes: total });
  expect(tunnelsOf(core)[0]?.inbound).toEqual({ packets: packets.length, bytes: total });

  const sender = able(ALL, 'gre', 1, thatVm);
  expect(handle(sender, 'encapsulate', message)).toBe(abi.FORWARD);
  expect(messagesOf(sender).map(innerOf)).toEqual(packets);
});

describe('open checksums', () => {
  const kinds: [string, Fields, number, number][] = [
    ['TCP', { options }, 20, 16],
    ['TCP, odd', { payload: bytes(33), flags: 0, id: 9 }, 20, 16],
    ['TCP without payload', { options, payload: bytes(0) }, 20, 16],
    ['TCP with IPv4 options', { ipOptions: [1, 1, 1, 0] }, 24, 16],
    ['TCP, the reserved flag', { flags: 0x8000 }, 20, 16],
    ['UDP', { protocol: 17 }, 20, 6],
    ['UDP, odd', { protocol: 17, payload: bytes(5), flags: 0 }, 20, 6],
    ['UDP without payload', { protocol: 17, payload: bytes(0) }, 20, 6],
    ['UDP with IPv4 options', { protocol: 17, ipOptions: [1, 1, 1, 0] }, 24, 6],
  ];

  test.each(kinds)('%s: the virtio header says so, or it is completed', (_, fields, start, offset) => {
    const packet = transport({ ...fields, open: true });
    const right = transport(fields);
    expect(right).not.toEqual(packet);
    for (const offloads of [abi.OFFLOAD_VIRTIO, ALL]) {
      const core = able(offloads);
      core.bytes.fill(0x55, abi.HEADERS, abi.HEADERS + abi.HEADER_BLOCK_SIZE);
      core.bytes.fill(0x55, abi.CARGOS, abi.CARGOS + abi.CARGO_SIZE);
      const [message] = arrive(core, [packet]) as [Uint8Array];
      expect(message).toEqual(gre(virtio(1, 0, 0, 0, start, offset), packet));
      expect([core.messagePieces(0), cargoOf(core, 0)]).toEqual([2, [1, packet.length, 0, 0]]);
      // Whoever sends it on completes it.
      const sender = able(ALL, 'gre', 1, thatVm);
      expect(handle(sender, 'encapsulate', message)).toBe(abi.FORWARD);
      expect(messagesOf(sender).map(innerOf)).toEqual([right]);
    }
    expect(arrive(able(0), [packet])).toEqual([right]);
    expect(arrive(able(ALL), [right])).toEqual([gre(virtio(), right)]);
    expect(arrive(able(0), [right])).toEqual([right]);
  });

  test('one that comes out as 0 is 0xffff', () => {
    for (const protocol of [6, 17]) {
      const at = protocol === 6 ? 36 : 26;
      // With the payload, the sum is all ones without the field; but with it as the pseudo header's, twice that.
      const payload = levelled({ protocol, noChecksum: true });
      const packet = transport({ protocol, payload, open: true });
      expect(transportSum(transport({ protocol, payload, noChecksum: true }))).toBe(0xffff);
      const [message] = arrive(able(0), [packet]) as [Uint8Array];
      expect(view(message).getUint16(at)).toBe(0xffff);
      expect(message).toEqual(transport({ protocol, payload }));
    }
  });

  test('TCP that is longer than fits is to be cut into what does', () => {
    // Of the packet: bytes, of these in headers; MTU; whether it is to be cut.
    const cases: [Fields, number, number, number, boolean][] = [
      [{ options, payload: bytes(448) }, 500, 52, 500, false],
      [{ options, payload: bytes(449) }, 501, 52, 500, true],
      [{ options, payload: bytes(4000), ipOptions: [1, 1, 1, 0] }, 4056, 56, 500, true],
      [{ options, payload: bytes(100) }, 152, 52, 53, true],
      [{ options, payload: bytes(100) }, 152, 52, 52, false],
      [{ options, payload: bytes(100) }, 152, 52, 51, false],
      [{ options, payload: bytes(100) }, 152, 52, 0, false],
      [{ options, payload: bytes(100) }, 152, 52, -1, false],
      [{ options, payload: bytes(100) }, 152, 52, 2 ** 31 - 1, false],
      [{ payload: bytes(60000) }, 60040, 40, 59999, true],
      [{ protocol: 17, payload: bytes(473) }, 501, 28, 500, false],
    ];
    for (const [fields, length, headers, mtu, isCut] of cases) {
      const packet = transport({ ...fields, open: true });
      expect(packet.length).toBe(length);
      const start = fields.ipOptions ? 24 : 20;
      const offset = fields.protocol === 17 ? 6 : 16;
      const [type, header, size] = isCut ? [1, headers, mtu - headers] : [0, 0, 0];
      const [message] = arrive(able(ALL, 'gre', 1, thisVm, { mtu }), [packet]) as [Uint8Array];
      expect(message).toEqual(gre(virtio(1, type, header, size, start, offset), packet));
      if (!isCut || length > 5000) continue;
      const sender = able(ALL, 'gre', 1, thatVm);
      expect(handle(sender, 'encapsulate', message)).toBe(abi.FORWARD);
      const segments = messagesOf(sender).map(innerOf);
      expect(segments.map((segment) => segment.length).slice(0, -1)).toEqual(
        Array(Math.ceil((length - headers) / size) - 1).fill(mtu),
      );
      for (const segment of segments) expect(transportSum(segment)).toBe(0xffff);
    }
    // Without the offload it is passed on as it is, and so is one that is not open.
    const long: Fields = { options, payload: bytes(449) };
    expect(arrive(able(0, 'gre', 1, thisVm, { mtu: 500 }), [transport({ ...long, open: true })])).toEqual([
      transport(long),
    ]);
    expect(arrive(able(ALL, 'gre', 1, thisVm, { mtu: 500 }), [transport(long)])).toEqual([
      gre(virtio(), transport(long)),
    ]);
  });

  /** Puts the pseudo header's sum where `at` says, for the total length that it is given. */
  const forged = (packet: Uint8Array, at: number, total = packet.length) => {
    const v = view(packet);
    v.setUint16(2, total);
    v.setUint16(10, 0);
    v.setUint16(10, 0xffff - plainSum(packet.subarray(0, ((packet[0] as number) & 15) * 4)));
    v.setUint16(at, pseudoSum(packet));
    return packet;
  };
  const off = (packet: Uint8Array, at: number, change: (field: number) => number) => {
    view(packet).setUint16(at, change(view(packet).getUint16(at)) & 0xffff);
    return packet;
  };
  const plain = (fields: Fields = {}) => transport({ ...fields, open: true });
  test.each<[string, Uint8Array]>([
    ['more fragments follow', forged(plain({ flags: 0x2000 }), 36)],
    ['a later fragment', forged(plain({ flags: 1 }), 36)],
    ['UDP: a later fragment', forged(plain({ protocol: 17, flags: 0x4001 }), 26)],
    ['UDP-Lite', forged(plain({ protocol: 17, disguise: 136 }), 26)],
    ['DCCP, as if it were TCP', forged(plain({ disguise: 33 }), 36)],
    ['UDP: 7 bytes behind the IPv4 header', forged(plain({ protocol: 17 }), 26, 27)],
    ['TCP: 19 bytes behind the IPv4 header', forged(plain(), 36, 39)],
    ['TCP: options past the end', forged(plain({ reserved: 0x10 }), 36, 43)],
    ['TCP: a data offset of 4 words', forged(plain({ reserved: -0x10 }), 36)],
    ['TCP: the sum complemented', off(plain(), 36, (field) => ~field)],
    ['TCP: one more', off(plain(), 36, (field) => field + 1)],
    ['UDP: no checksum', transport({ protocol: 17, noChecksum: true })],
    ['TCP: the sum where UDP has its own', forged(transport({ noChecksum: true }), 26)],
  ])('not open: %s', (_, packet) => {
    const inner = packet.slice(0, view(packet).getUint16(2));
    expect(arrive(able(ALL), [packet])).toEqual([gre(virtio(), inner)]);
    expect(arrive(able(0), [packet])).toEqual([inner]);
  });

  test('open: headers that just end within the total length', () => {
    for (const packet of [
      forged(plain({ reserved: 0x10 }), 36, 44),
      forged(plain(), 36, 40),
      forged(plain({ protocol: 17 }), 26, 28),
    ]) {
      const inner = packet.slice(0, view(packet).getUint16(2));
      const [message] = arrive(able(ALL), [packet]) as [Uint8Array];
      expect(message).toEqual(gre(virtio(1, 0, 0, 0, 20, packet[9] === 6 ? 16 : 6), inner));
      const [completed] = arrive(able(0), [packet]) as [Uint8Array];
      expect(transportSum(completed)).toBe(0xffff);
      expect(completed).not.toEqual(inner);
    }
  });

  test('an open packet is not merged, even if its checksum happens to be right', () => {
    for (const protocol of [6, 17]) {
      const fields = (n: number): Fields => ({ protocol, id: n, sequence: 1000 + 100 * n, payload: bytes(100, n) });
      const [a, b, c, d] = [0, 1, 2, 3].map((n) => transport(fields(n))) as [
        Uint8Array,
        Uint8Array,
        Uint8Array,
        Uint8Array,
      ];
      const twin = { ...fields(1), open: true };
      const both = transport({ ...twin, payload: levelled(twin) });
      expect([transportSum(both), view(both).getUint16(protocol === 6 ? 36 : 26)]).toEqual([0xffff, pseudoSum(both)]);
      const open = virtio(1, 0, 0, 0, 20, protocol === 6 ? 16 : 6);
      const core = able(ALL);
      for (const second of [both, transport(twin)]) {
        const messages = arrive(core, [a, second, c, d]);
        expect(messages.slice(0, 2)).toEqual([gre(virtio(), a), gre(open, second)]);
        expect([messages.length, core.messageCargo(2).packets]).toEqual([3, 2]);
        // It opens nothing.
        expect(arrive(core, [second, c])).toEqual([gre(open, second), gre(virtio(), c)]);
      }
      expect([arrive(core, [a, b]).length, arrive(able(0), [both])]).toEqual([1, [both]]);
    }
  });

  test('datagrams of one descriptor, each for itself', () => {
    const packets = [plain(), transport({ sequence: 1100 }), plain({ sequence: 1200 })] as [
      Uint8Array,
      Uint8Array,
      Uint8Array,
    ];
    const run = (offloads: number) => {
      const core = able(offloads, 'gre-udp');
      const all = Uint8Array.from(packets.flatMap((packet) => [0, 0, 8, 0, ...packet]));
      core.bytes.set(all, core.slot(0));
      core.describeDatagrams(0, all.length, 4 + packets[0].length, thatPeer);
      expect(core.decapsulate(0, 1, 0)).toBe(1);
      return messagesOf(core);
    };
    expect(run(0)).toEqual([transport(), packets[1], transport({ sequence: 1200 })]);
    const open = virtio(1, 0, 0, 0, 20, 16);
    expect(run(ALL)).toEqual([gre(open, packets[0]), gre(virtio(), packets[1]), gre(open, packets[2])]);
  });
});

describe('not merged: each packet is passed on just as it came', () => {
  const [first, second] = stream(2, { id: 7, sequence: 900, options, flags: 0 }) as [Uint8Array, Uint8Array];
  const next: Fields = { id: 8, sequence: 1000, options, flags: 0, payload: bytes(100, 1) };
  const udp = stream(2, { protocol: 17, id: 7, flags: 0 }) as [Uint8Array, Uint8Array];
  const badLength = udp[1].slice();
  view(badLength).setUint16(24, 107);
  view(badLength).setUint16(26, 0);
  view(badLength).setUint16(26, 0xffff - transportSum(badLength));
  const nextUdp: Fields = { protocol: 17, id: 8, flags: 0, payload: bytes(100, 1) };
  // The word behind the options looks like a UDP length, should anyone take them for ports.
  const opted = [7, 8].map((id) => transport({ ...nextUdp, id, ports: 0x0070_0050, ipOptions: [1, 1, 1, 0] })) as [
    Uint8Array,
    Uint8Array,
  ];
  const summedToNothing = (fields: Fields) =>
    transport({ ...fields, payload: levelled({ ...fields, noChecksum: true }), noChecksum: true });
  // A checksum of 0 or 0xffff: right either way, but only one is what cutting gives.
  const summedToOnes = (fields: Fields) => {
    const packet = summedToNothing(fields);
    view(packet).setUint16(20 + (packet[9] === 6 ? 16 : 6), 0xffff);
    return packet;
  };
  const headed = (fields: Fields, checksum: number) => {
    const blank = transport({ ...fields, id: 0 });
    view(blank).setUint16(10, 0);
    const packet = transport({ ...fields, id: 0xffff - plainSum(blank.subarray(0, 20)) });
    view(packet).setUint16(10, checksum);
    return packet;
  };
  test('the packets of these tests are merged if nothing is changed', () => {
    expect(transport(next)).toEqual(second);
    for (const pair of [[first, second], udp, stream(2, { id: 8 }, { id: 8 })]) {
      expect(arrive(able(ALL), pair).length).toBe(1);
    }
  });

  test('a checksum of 0xffff where cutting would give 0', () => {
    const [one, two] = [0, 1].map((n) => ({ sequence: 900 + 100 * n })) as [Fields, Fields];
    const count = (...pair: Uint8Array[]) => arrive(able(ALL), pair).length;
    const [right, follows] = [transport(one), transport(two)];
    for (const [first, second] of [
      [headed(one, 0), follows],
      [right, headed(two, 0)],
      [summedToNothing(one), follows],
      [right, summedToNothing(two)],
    ] as const) {
      expect(count(first, second)).toBe(1);
    }
    for (const [first, second] of [
      [headed(one, 0xffff), follows],
      [right, headed(two, 0xffff)],
      [summedToOnes(one), follows],
      [right, summedToOnes(two)],
    ] as const) {
      expect(plainSum(first.subarray(0, 20)) + plainSum(second.subarray(0, 20))).toBe(2 * 0xffff);
      expect(transportSum(first) + transportSum(second)).toBe(2 * 0xffff);
      expect(arrive(able(ALL), [first, second])).toEqual([gre(virtio(), first), gre(virtio(), second)]);
    }
    // In UDP, cutting gives 0xffff as well; its IPv4 header is like any other.
    const datagram: Fields = { protocol: 17 };
    expect(count(summedToOnes(datagram), transport(datagram))).toBe(1);
    expect(count(transport(datagram), headed(datagram, 0))).toBe(1);
    expect(count(transport(datagram), headed(datagram, 0xffff))).toBe(2);
  });

  test.each<[string, Uint8Array, Uint8Array]>([
    ['another source', first, transport({ ...next, from: '10.2.2.8' })],
    ['another destination', first, transport({ ...next, to: '10.1.1.6' })],
    ['another port', first, transport({ ...next, ports: 0x1234_0051 })],
    ['another TOS', first, transport({ ...next, tos: 1 })],
    ['another TTL', first, transport({ ...next, ttl: 63 })],
    ['DF here, not there', first, transport({ ...next, flags: 0x4000 })],
    [
      'the reserved flag',
      transport({ ...next, id: 7, sequence: 900, flags: 0x8000 }),
      transport({ ...next, flags: 0x8000 }),
    ],
    ['an identification that does not follow', first, transport({ ...next, id: 9 })],
    [
      'IPv4 options',
      transport({ ...next, id: 7, sequence: 900, ipOptions: [1, 1, 1, 0] }),
      transport({ ...next, ipOptions: [1, 1, 1, 0] }),
    ],
    ['a fragment', first, transport({ ...next, flags: 0x2000 })],
    ['more payload than the first', first, transport({ ...next, payload: bytes(101, 1) })],
    ['no payload', first, transport({ ...next, payload: bytes(0) })],
    ['a gap in the sequence', first, transport({ ...next, sequence: 1001 })],
    ['the same sequence again', first, transport({ ...next, sequence: 900 })],
    ['another acknowledgement', first, transport({ ...next, acknowledgement: 78 })],
    ['reserved TCP bits', first, transport({ ...next, reserved: 1 })],
    ['other flags: ECE', first, transport({ ...next, tcpFlags: 0x50 })],
    [
      'other flags: URG',
      transport({ ...next, id: 7, sequence: 900, tcpFlags: 0x30 }),
      transport({ ...next, tcpFlags: 0x30 }),
    ],
    ['FIN', first, transport({ ...next, tcpFlags: 0x11 })],
    ['CWR', first, transport({ ...next, tcpFlags: 0x90 })],
    ['SYN', first, transport({ ...next, tcpFlags: 0x12 })],
    ['no ACK', transport({ ...next, id: 7, sequence: 900, tcpFlags: 0 }), transport({ ...next, tcpFlags: 0 })],
    ['another window', first, transport({ ...next, window: 501 })],
    ['another urgent pointer', first, transport({ ...next, urgent: 1 })],
    ['other options', first, transport({ ...next, options: options.with(11, 9) })],
    ['fewer options', first, transport({ ...next, options: options.slice(0, 8) })],
    ['PSH on the first', transport({ ...next, id: 7, sequence: 900, tcpFlags: 0x18 }), second],
    ['a first one with a wrong checksum', first.with(150, (first[150] as number) ^ 1), second],
    ['a second one with a wrong checksum', first, second.with(150, (second[150] as number) ^ 1)],
    [
      'a data offset of 4 words',
      transport({ ...next, id: 7, sequence: 884, reserved: -0x40 }),
      transport({ ...next, reserved: -0x40 }),
    ],
    [
      'a data offset past the end',
      transport({ ...next, id: 7, sequence: 1000 + 7, reserved: 0x70, payload: bytes(21) }),
      transport({ ...next, reserved: 0x70, payload: bytes(21) }),
    ],
    ['a shorter first one', transport({ ...next, id: 7, sequence: 901, payload: bytes(99) }), second],
    ['UDP: another identification', udp[0], transport({ ...nextUdp, id: 7 })],
    ['UDP: more payload than the first', udp[0], transport({ ...nextUdp, payload: bytes(101) })],
    ['UDP: no payload', udp[0], transport({ ...nextUdp, payload: bytes(0) })],
    ['UDP: no checksum', udp[0], transport({ ...nextUdp, noChecksum: true })],
    ['UDP: no checksum, though it would be right', transport({ ...nextUdp, id: 7 }), summedToNothing(nextUdp)],
    ['UDP: IPv4 options', ...opted],
    ['UDP: a wrong checksum', udp[0], udp[1].with(100, (udp[1][100] as number) ^ 1)],
    ['UDP: another length', udp[0], badLength],
    ['neither TCP nor UDP', ipv4(there, here, bytes(100), 1), ipv4(there, here, bytes(100), 1)],
    ['three bytes behind the header', ipv4(there, here, bytes(3), 6), ipv4(there, here, bytes(3), 6)],
  ])('%s', (_, a, b) => {
    for (const packet of [a, b]) {
      // The header checksum is right again after `with`.
      packet.set([0, 0], 10);
      view(packet).setUint16(10, 0xffff - plainSum(packet.subarray(0, ((packet[0] as number) & 15) * 4)));
    }
    const cut = (packet: Uint8Array) => packet.slice(0, view(packet).getUint16(2));
    expect(arrive(able(ALL), [a, b])).toEqual([gre(virtio(), cut(a)), gre(virtio(), cut(b))]);
  });

  test('without the offloads', () => {
    expect(arrive(able(abi.OFFLOAD_UDP_MERGE), [first, second])).toEqual([first, second]);
    expect(arrive(able(abi.OFFLOAD_VIRTIO), udp)).toEqual(udp.map((packet) => gre(virtio(), packet)));
    expect(arrive(able(abi.OFFLOAD_VIRTIO), [first, second]).length).toBe(1);
  });

  test('after a super-packet had the message, and whatever lies in the scratch memory', () => {
    const core = able(ALL);
    expect(arrive(core, [first, second]).length).toBe(1);
    for (const scratch of [0xff, 1, 0x7f]) {
      core.bytes.fill(scratch, abi.SCRATCH, abi.SCRATCH + abi.SCRATCH_SIZE);
      expect(arrive(core, [first])).toEqual([gre(virtio(), first)]);
    }
  });

  test('across two calls', () => {
    const core = able(ALL);
    expect([arrive(core, [first]), arrive(core, [second])]).toEqual([[gre(virtio(), first)], [gre(virtio(), second)]]);
  });
});

describe('open flows', () => {
  /** Packets in each message. */
  const cargo = (packets: Uint8Array[]) => {
    const core = able(ALL);
    return arrive(core, packets).map((_, i) => core.messageCargo(i).packets);
  };
  const tcp = stream(6, { sequence: 1000, id: 0 }) as [Uint8Array, ...Uint8Array[]];
  const [a, b, c, d] = tcp as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const fields = (n: number): Fields => ({ id: n, sequence: 1000 + 100 * n, payload: bytes(100, n) });

  test('a packet that is not added closes the flow and opens it anew, if it can', () => {
    expect(cargo([a, c, d])).toEqual([1, 2]);
    expect(cargo([a, b, transport({ ...fields(2), tcpFlags: 0x11 }), transport(fields(3))])).toEqual([2, 1, 1]);
    expect(cargo([a, transport({ ...fields(1), tcpFlags: 0x18 }), c, d])).toEqual([2, 2]);
    expect(cargo([a, transport({ ...fields(3), tcpFlags: 0x18 }), b])).toEqual([1, 1, 1]);
    expect(
      cargo([a, transport({ ...fields(1), payload: bytes(99) }), transport({ ...fields(2), sequence: 1199 })]),
    ).toEqual([2, 1]);
    expect(cargo([a, b.with(60, (b[60] as number) ^ 1), c, d])).toEqual([1, 1, 2]);
  });

  test('at most 64 packets and 65,535 bytes', () => {
    expect(cargo(stream(100))).toEqual([64, 36]);
    expect(cargo(stream(50, { payload: bytes(1424) }))).toEqual([45, 5]);
    expect(cargo(stream(3, { payload: bytes(32747) }))).toEqual([2, 1]);
    expect(cargo(stream(3, { payload: bytes(32748) }))).toEqual([1, 1, 1]);
    expect(cargo(stream(2, { payload: bytes(32748) }, { payload: bytes(32747) }))).toEqual([2]);
  });

  test('flows side by side, and packets without one between them', () => {
    const other = stream(3, { protocol: 17, id: 3, ports: 0x1234_5050 });
    const icmp = ipv4(there, here, bytes(90), 1);
    const fragment = transport({ ...fields(1), flags: 0x2000 });
    const mixed = [a, other[0], icmp, b, other[1], fragment, c, other[2]] as Uint8Array[];
    expect(cargo(mixed)).toEqual([3, 3, 1, 1]);
  });

  test('one flow in each bucket: another of the same closes it', () => {
    const bucket = (packet: Uint8Array) => {
      const v = view(packet);
      let h = v.getUint32(12);
      for (const next of [v.getUint32(16), v.getUint32(20), packet[9] as number])
        h = (Math.imul(h, 0x9e3779b1) + next) | 0;
      return Math.imul(h ^ (h >>> 15), 0x9e3779b1) >>> 26;
    };
    // Flows that differ from the first in protocol, ports, source or destination alone.
    const one = stream(2) as [Uint8Array, Uint8Array];
    const others = Array.from({ length: 250 }, (_, i): Fields[] => [
      { ports: 0x1234_0051 + i },
      { from: `10.2.2.${i + 1}` },
      { to: `10.1.1.${i + 1}` },
    ]).flat();
    const core = able(ALL);
    for (const fields of [{ protocol: 17 }, ...others] as Fields[]) {
      const other = stream(2, fields) as [Uint8Array, Uint8Array];
      if (fields.from === there || fields.to === here) continue;
      const isSame = bucket(one[0]) === bucket(other[0]);
      // In the same bucket, the second would be taken for what follows if all but flows were compared.
      expect(arrive(core, [one[0], other[1], one[1]]).length).toBe(isSame ? 3 : 2);
    }
    const same = stream(
      2,
      others.find((fields) => fields.ports && bucket(transport(fields)) === bucket(one[0])),
    ) as [Uint8Array, Uint8Array];
    expect(cargo([one[0], same[0], one[1], same[1]])).toEqual([1, 1, 1, 1]);
    // Also one that cannot be merged.
    const bare = transport({ ports: view(same[0]).getUint32(20), payload: bytes(0) });
    expect(cargo([one[0], bare, one[1]])).toEqual([1, 1, 1]);
  });

  test('datagrams of one descriptor are merged too', () => {
    const core = able(ALL, 'gre-udp');
    const all = Uint8Array.from([a, b, c].flatMap((packet) => [0, 0, 8, 0, ...packet]));
    core.bytes.set(all, core.slot(0));
    core.describeDatagrams(0, all.length, 4 + a.length, thatPeer);
    expect([core.decapsulate(0, 1, 0), core.messageCount(), core.messageCargo(0).packets]).toEqual([1, 1, 3]);
  });
});

test('damaged packets: nothing throws, nothing is read past the length or written outside', () => {
  let state = 1;
  const random = (n: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const COUNT = 24;
  const make = (direction: 'encapsulate' | 'decapsulate', i: number) => {
    const fields: Fields = {
      protocol: [6, 17][random(2)] as number,
      flags: random(2) * 0x4000,
      payload: bytes(random(300)),
    };
    if (random(2) === 0) fields.options = options;
    if (random(3) === 0) fields.open = true;
    let packet: Uint8Array;
    if (direction === 'encapsulate') {
      const type = [0, 1, 5][random(3)] as number;
      const inner = transport({ ...fields, from: here, to: there });
      const [start, offset] = random(2) === 0 ? [20, fields.protocol === 6 ? 16 : 6] : [random(50), random(20)];
      packet = gre(virtio(random(2), type, 0, random(99), start, offset), inner);
    } else {
      packet = ipv4(thatVm, thisVm, gre([0, 0, 8, 0], transport({ ...fields, id: i, sequence: i * 100 })), 47);
    }
    for (let n = random(3); n > 0; n--) packet[random(Math.min(packet.length, 90))] = random(256);
    return packet.subarray(0, packet.length - (random(4) === 0 ? random(20) : 0));
  };
  for (const [direction, offloads, encapsulation] of [
    ['encapsulate', ALL, 'gre-udp'],
    ['encapsulate', WHOLE, 'gre'],
    ['decapsulate', ALL, 'gre-udp'],
    ['decapsulate', 0, 'gre'],
  ] as const) {
    const coreOfRun = () => able(offloads, encapsulation, 4, thisVm, { mtu: 200 });
    const cores = [coreOfRun(), coreOfRun()] as const;
    for (let round = 0; round < 100; round++) {
      const packets = Array.from({ length: COUNT }, (_, i) => make(direction, i));
      const segments = packets.map(() => (random(3) === 0 ? 1 + random(200) : 0));
      const results = cores.map((core, poison) => {
        for (let i = 0; i < COUNT; i++) {
          const packet = packets[i] as Uint8Array;
          core.bytes.fill(poison === 0 ? 0x00 : 0xff, core.slot(i) - 64, core.slot(i) + 1024);
          if (segments[i] === 0 || direction === 'encapsulate') {
            core.put(i, packet);
          } else {
            core.bytes.set(packet.subarray(Math.min(20, packet.length)), core.slot(i));
            core.describeDatagrams(i, Math.max(packet.length - 20, 0), segments[i] as number, thatPeer);
          }
        }
        const length = (i: number) => new Uint32Array(core.memory, abi.DESCRIPTORS + 32 * i, 2)[1] as number;
        expect(core[direction](0, COUNT, round)).toBe(COUNT);
        for (let i = 0; i < COUNT; i++) {
          const edges = [core.slot(i) - 64, core.slot(i) - 28, core.slot(i) + length(i), core.slot(i) + 1024];
          for (const [from, to] of [edges.slice(0, 2), edges.slice(2)] as [number, number][]) {
            expect(core.bytes.subarray(from, to).every((byte) => byte === (poison === 0 ? 0 : 0xff))).toBe(true);
          }
        }
        const ports = Array.from({ length: abi.MAX_PORTS }, (_, port) => messagesOf(core, port));
        return [packets.map((_, i) => core.verdict(i)), ports, core.counters('outbound'), core.counters('inbound')];
      });
      expect(results[1]).toEqual(results[0]);
    }
    const { received, forwarded, drops } = cores[0].counters(direction === 'encapsulate' ? 'outbound' : 'inbound');
    expect(received).toBe(drops.reduce((total, drop) => total + drop, forwarded));
    expect([forwarded > 500, received - forwarded > 500]).toEqual([true, true]);
    // Nothing lies between or behind what docs/abi.md names.
    const gaps = [
      [0, abi.CONFIG],
      [abi.MESSAGE_COUNTS + 4 * abi.MAX_PORTS, abi.SCRATCH],
      [abi.SLOTS + COUNT * abi.SLOT_SIZE, abi.MEMORY_SIZE],
    ];
    for (const [from, to] of gaps) expect(cores[0].bytes.subarray(from, to).every((byte) => byte === 0)).toBe(true);
  }
});

/** The TypeScript twin of the packet core on its own: what docs/abi.md says, against plain sums and packets built here. */
import { describe, expect, test } from 'vitest';
import * as abi from '../src/core/abi.ts';
import { type PacketCore, tunnelsFrom } from '../src/core/core.ts';
import { sum } from '../src/core/typescript/checksum.ts';
import { typescriptCore } from '../src/core/typescript/index.ts';

const u32 = (text: string) => text.split('.').reduce((value, byte) => value * 256 + Number(byte), 0);

/** A core on the VM `local`, its mappings as 'overlay/length underlay/length'. */
function coreOf(local: string, plans = ['10.0.0.0/8 192.168.0.0/16'], key?: number): PacketCore {
  const core = typescriptCore();
  const mappings = plans.map((plan) => {
    const [overlay = 0, overlayLength = 0, underlay = 0, underlayLength = 0] = plan.split(/[/ ]/).map(u32);
    return { overlay, overlayLength, underlay, underlayLength };
  });
  core.configure({ local: u32(local), key, mappings });
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
  core[call](1, now);
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
  const outer = a.packet(0).slice();
  const header = key === undefined ? [0, 0, 8, 0] : [0x20, 0, 8, 0, 0xde, 0xad, 0xbe, 0xef];
  const expected = ipv4('192.168.1.1', '192.168.2.2', gre(header, inner), 47);
  expected.set([0, 0, 0x40, 0, 64, 47, 0, 0], 4);
  new DataView(expected.buffer).setUint16(10, 0xffff - plainSum(expected.subarray(0, 20)));
  expect(outer).toEqual(expected);
  expect(a.bytes.slice(abi.DESCRIPTORS + 12, abi.DESCRIPTORS + 16)).toEqual(Uint8Array.of(192, 168, 2, 2));

  expect(handle(b, 'decapsulate', outer, 6)).toBe(abi.FORWARD);
  expect(b.packet(0)).toEqual(inner);
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
    const edges = [0, abi.SLOTS + 63, abi.SLOTS + 64, abi.MEMORY_SIZE - 1, abi.MEMORY_SIZE, 0x80000000, 0xffffffff];
    for (const address of edges) {
      for (const length of [0, 1, abi.MEMORY_SIZE, 0x7fffffff, 0x80000000, 0xffffffff]) {
        words.set([address, length]);
        core.decapsulate(1, 0);
        const outside = address < abi.SLOTS + 64 || address + length > abi.MEMORY_SIZE;
        expect(core.verdict(0) === abi.DROP_BAD_DESCRIPTOR).toBe(outside);
        expect([...words]).toEqual([address, length]);
      }
    }
    expect([core.encapsulate(-1, 0), core.encapsulate(2 ** 31 - 1, 0) >= 0]).toEqual([0, true]);
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
    expect([core.encapsulate(abi.BATCH_SIZE, vm), core.opened().length]).toEqual([abi.BATCH_SIZE, abi.BATCH_SIZE]);
  }
  expect([core.expire(0), core.tunnelCount]).toEqual([0, 65536]);
  let closed = 0;
  for (let n = abi.BATCH_SIZE; n === abi.BATCH_SIZE; closed += n) n = core.expire(32768);
  expect([closed, core.tunnelCount]).toEqual([32768, 32768]);
  expect(Math.min(...tunnelsOf(core).map((t) => t.lastUse))).toBe(32768);
});

/** The program at the egress of the overlay's device, run by the kernel itself: whose packets leave, for whom, by which way, and in how small pieces. */
import { afterAll, describe, expect, test } from 'vitest';
import { LEAST_TCP_SEGMENT, LEAST_UDP_SEGMENT } from '../../src/core/abi.ts';
import { INBOUND, OUTBOUND } from '../../src/dataplane/check/counts.ts';
import { SourceCheck } from '../../src/dataplane/check/source-check.ts';
import { skip } from '../net/require.ts';
import {
  address,
  counted,
  difference,
  framed,
  framedTo,
  inner,
  mapping,
  number,
  ON,
  outerTo,
  run,
  SHOT,
  why,
} from './test-run.ts';

const bytes = 40;
const VM = number('192.168.16.33');
const formats = [
  { name: 'VXLAN', isVxlan: true, overhead: 50, wrap: framedTo },
  { name: 'GRE', isVxlan: false, overhead: 24, wrap: (vm: number, packet: Uint8Array) => outerTo(vm, packet, 24) },
  {
    name: 'GRE-in-UDP with a key',
    isVxlan: false,
    overhead: 36,
    wrap: (vm: number, packet: Uint8Array) => outerTo(vm, packet, 36),
  },
];

describe.skipIf(skip('egress', why()))('egress', () => {
  describe.each(formats)('$name', ({ isVxlan, overhead, wrap }) => {
    const mappings = [mapping('10.0.0.0/8', '192.168.0.0/16')];
    const check = new SourceCheck({ mappings, local: address('192.168.16.32'), isVxlan, overhead });
    afterAll(() => check.close());

    const good = inner('10.16.32.91', '10.16.33.7');
    const cases: { name: string; packet: Uint8Array; vm?: string; counts: Record<string, number> }[] = [
      { name: 'good', packet: good, counts: { packets: 1, bytes } },
      { name: "the VM's own", packet: inner('10.16.32.1', '10.16.33.1'), counts: { packets: 1, bytes } },
      { name: 'foreign source', packet: inner('10.16.33.91', '10.16.34.7'), counts: { 'foreign-source': 1 } },
      { name: 'source outside', packet: inner('192.168.16.32', '10.16.34.7'), counts: { 'foreign-source': 1 } },
      { name: 'from our slice itself', packet: inner('10.16.32.0', '10.16.33.7'), counts: { 'foreign-source': 1 } },
      {
        name: 'from our address kept free',
        packet: inner('10.16.32.255', '10.16.33.7'),
        counts: { 'foreign-source': 1 },
      },
      { name: 'no mapping', packet: inner('10.16.32.91', '11.16.33.7'), counts: { 'no-mapping': 1 } },
      { name: 'our own slice', packet: inner('10.16.32.91', '10.16.32.7'), counts: { 'own-slice': 1 } },
      { name: 'to a slice itself', packet: inner('10.16.32.91', '10.16.33.0'), counts: { 'reserved-address': 1 } },
      {
        name: 'to an address kept free',
        packet: inner('10.16.32.91', '10.16.33.255'),
        counts: { 'reserved-address': 1 },
      },
      {
        name: "to the underlay's broadcast address",
        packet: inner('10.16.32.91', '10.255.255.7'),
        vm: '192.168.255.255',
        counts: { 'reserved-address': 1 },
      },
      {
        name: "to the underlay's own address",
        packet: inner('10.16.32.91', '10.0.0.7'),
        vm: '192.168.0.0',
        counts: { 'reserved-address': 1 },
      },
      { name: 'nested GRE', packet: inner('10.16.32.91', '10.16.33.7', 47), counts: { 'nested-gre': 1 } },
      { name: 'version 6', packet: Uint8Array.from([0x60, ...good.subarray(1)]), counts: { 'not-ipv4': 1 } },
      { name: 'led to another VM', packet: good, vm: '192.168.16.40', counts: { diverted: 1 } },
      { name: 'led back here', packet: good, vm: '192.168.16.32', counts: { diverted: 1 } },
      { name: 'led out of the underlay', packet: good, vm: '192.169.16.33', counts: { diverted: 1 } },
      { name: 'led nowhere', packet: good, vm: '0.0.0.0', counts: { diverted: 1 } },
      { name: 'led to all', packet: good, vm: '255.255.255.255', counts: { diverted: 1 } },
      { name: 'led to a group', packet: good, vm: '224.0.0.1', counts: { diverted: 1 } },
    ];
    test.each(cases)('$name', ({ packet, vm, counts }) => {
      const verdict = counts['packets'] ? ON : SHOT;
      const to = vm === undefined ? VM : number(vm);
      expect(
        difference(check, OUTBOUND, () => expect(run(check.egress, wrap(to, packet)).verdict).toBe(verdict)),
      ).toEqual(counts);
      expect(counted(check, INBOUND)).toEqual({});
    });

    test('a mark of others stays on what goes out', () => {
      expect(run(check.egress, wrap(VM, good), 77)).toEqual({ verdict: ON, mark: 77 });
    });

    const udpFloor = Math.max(LEAST_UDP_SEGMENT, 28 + overhead);
    test.each([
      { name: 'UDP of one byte', protocol: 17, size: 1, isTiny: true },
      { name: 'UDP, a byte too small', protocol: 17, size: udpFloor - 1, isTiny: true },
      { name: 'UDP, just enough', protocol: 17, size: udpFloor, isTiny: false },
      { name: 'UDP as QUIC has it', protocol: 17, size: 1200, isTiny: false },
      { name: 'TCP of one byte', protocol: 6, size: 1, isTiny: true },
      { name: 'TCP, a byte too small', protocol: 6, size: LEAST_TCP_SEGMENT - 1, isTiny: true },
      { name: 'TCP, just enough', protocol: 6, size: LEAST_TCP_SEGMENT, isTiny: false },
      { name: 'TCP at the least path MTU', protocol: 6, size: 500, isTiny: false },
      { name: 'another tunnel of UDP', protocol: 4, size: LEAST_TCP_SEGMENT - 1, isTiny: true },
    ])('segments: $name', ({ protocol, size, isTiny }) => {
      const packet = wrap(VM, inner('10.16.32.91', '10.16.33.7', protocol));
      const counts = difference(check, OUTBOUND, () =>
        expect(run(check.egress, packet, 0, size).verdict).toBe(isTiny ? SHOT : ON),
      );
      expect(counts).toEqual(isTiny ? { 'tiny-segments': 1 } : { packets: 1, bytes });
    });
  });

  test('VXLAN: a MAC address that is like no VM is not taken for one', () => {
    const mappings = [mapping('10.0.0.0/8', '192.168.0.0/16')];
    const check = new SourceCheck({ mappings, local: address('192.168.16.32'), isVxlan: true, overhead: 50 });
    const to = (...mac: number[]) => framed(inner('10.16.32.91', '10.16.33.7'), 0x0800, mac);
    for (const [first, second] of [
      [0x03, 0],
      [0x02, 1],
      [0, 0],
      [0x01, 0],
      [0xff, 0xff],
    ] as const)
      expect(run(check.egress, to(first, second, 192, 168, 16, 33)).verdict).toBe(SHOT);
    expect(counted(check, OUTBOUND)).toEqual({ diverted: 5 });
    expect(run(check.egress, to(2, 0, 192, 168, 16, 33)).verdict).toBe(ON);
    check.close();
  });

  test('GRE, cut short', () => {
    const mappings = [mapping('10.0.0.0/8', '192.168.0.0/16')];
    const check = new SourceCheck({ mappings, local: address('192.168.16.32'), isVxlan: false, overhead: 24 });
    const whole = outerTo(VM, inner('10.16.32.91', '10.16.33.7'));
    // The kernel runs nothing on less than an Ethernet and an IPv4 header.
    for (let length = 34; length < 44; length++) {
      const counts = difference(check, OUTBOUND, () =>
        expect(run(check.egress, whole.subarray(0, length)).verdict).toBe(SHOT),
      );
      expect(counts).toEqual({ truncated: 1 });
    }
    expect(run(check.egress, whole.subarray(0, 44)).verdict).toBe(ON);
    check.close();
  });
});

/** The eBPF programs that check sources, run by the kernel itself on packets made here (BPF_PROG_TEST_RUN): what comes in, and what is counted. */
import { afterAll, describe, expect, test } from 'vitest';
import * as abi from '../../src/core/abi.ts';
import { INBOUND, OUTBOUND } from '../../src/dataplane/check/counts.ts';
import { BELIEVED, DOUBTED, loadMarkProgram, VERDICT } from '../../src/dataplane/check/mark.ts';
import { SourceCheck } from '../../src/dataplane/check/source-check.ts';
import { BPF_MAP_TYPE_ARRAY, BpfMap } from '../../src/linux/bpf/map.ts';
import * as native from '../../src/linux/native.ts';
import { skip } from '../net/require.ts';
import { greHeader, ipv4Around } from '../packet.ts';
import {
  address,
  counted,
  difference,
  framed,
  inner,
  mapping,
  number,
  ON,
  outerTo,
  run,
  SHOT,
  VNI,
  vxlan,
  why,
} from './test-run.ts';

const first = { mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')], local: '192.168.16.32' };

describe.skipIf(skip('source check', why()))('source check', () => {
  const opened: SourceCheck[] = [];
  afterAll(() => {
    for (const check of opened) check.close();
  });
  function open(plan: typeof first, isVxlan = true, overhead = 50): SourceCheck {
    const check = new SourceCheck({ ...plan, local: address(plan.local), isVxlan, overhead });
    opened.push(check);
    return check;
  }

  const B = number('192.168.16.33');
  const bytes = 40;

  describe('inbound, VXLAN', () => {
    const check = open(first);
    const program = loadMarkProgram({ ...first, local: address(first.local), port: 4789, vni: VNI, linkHeader: 14 });
    afterAll(() => native.close(program));
    /** The mark of a VXLAN packet from B around this frame. */
    const markOf = (frame: Uint8Array, mark = 0) =>
      run(program, framed(vxlan(B, number(first.local), frame)), mark).mark;
    const good = inner('10.16.33.91', '10.16.32.7');
    const cases: { name: string; frame: Uint8Array; mark?: number | undefined; counts: Record<string, number> }[] = [
      { name: 'good', frame: framed(good), counts: { packets: 1, bytes } },
      { name: 'from the VM itself', frame: framed(inner('10.16.33.1', '10.16.32.1')), counts: { packets: 1, bytes } },
      { name: 'spoofed', frame: framed(inner('10.16.34.91', '10.16.32.7')), counts: { 'spoofed-source': 1 } },
      {
        name: 'source in our slice',
        frame: framed(inner('10.16.32.91', '10.16.32.7')),
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'source outside the overlay',
        frame: framed(inner('11.16.33.91', '10.16.32.7')),
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'foreign destination',
        frame: framed(inner('10.16.33.91', '10.16.34.7')),
        counts: { 'foreign-destination': 1 },
      },
      {
        name: 'destination outside',
        frame: framed(inner('10.16.33.91', '11.16.32.7')),
        counts: { 'foreign-destination': 1 },
      },
      {
        name: 'from a slice itself',
        frame: framed(inner('10.16.33.0', '10.16.32.7')),
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'from the address kept free',
        frame: framed(inner('10.16.33.255', '10.16.32.7')),
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'to our slice itself',
        frame: framed(inner('10.16.33.91', '10.16.32.0')),
        counts: { 'reserved-address': 1 },
      },
      {
        name: 'to our address kept free',
        frame: framed(inner('10.16.33.91', '10.16.32.255')),
        counts: { 'reserved-address': 1 },
      },
      { name: 'no verdict', frame: framed(good), mark: 0, counts: { 'foreign-underlay': 1 } },
      { name: 'no verdict in a mark', frame: framed(good), mark: ~VERDICT >>> 0, counts: { 'foreign-underlay': 1 } },
      { name: 'a bit of others', frame: framed(good), mark: (BELIEVED | 0x8000) >>> 0, counts: { packets: 1, bytes } },
      {
        name: 'all bits of others',
        frame: framed(good),
        mark: (BELIEVED | ~VERDICT) >>> 0,
        counts: { packets: 1, bytes },
      },
      { name: 'doubted', frame: framed(good), mark: DOUBTED, counts: { 'spoofed-source': 1 } },
      { name: 'doubted, with bits of others', frame: framed(good), mark: 0xefffffff, counts: { 'spoofed-source': 1 } },
      { name: 'a verdict that nobody gives', frame: framed(good), mark: VERDICT, counts: { 'spoofed-source': 1 } },
      {
        name: 'doubted GRE',
        frame: framed(inner('10.16.33.91', '10.16.32.7', 47)),
        mark: DOUBTED,
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'GRE without a verdict',
        frame: framed(inner('10.16.33.91', '10.16.32.7', 47)),
        mark: 0,
        counts: { 'foreign-underlay': 1 },
      },
      {
        name: 'doubted, for another',
        frame: framed(inner('10.16.33.91', '10.16.34.7')),
        mark: DOUBTED,
        counts: { 'spoofed-source': 1 },
      },
      { name: 'doubted ARP', frame: framed(new Uint8Array(28), 0x0806), mark: DOUBTED, counts: { 'not-ipv4': 1 } },
      { name: 'ARP without a verdict', frame: framed(new Uint8Array(28), 0x0806), mark: 0, counts: { 'not-ipv4': 1 } },
      { name: 'ARP', frame: framed(new Uint8Array(28), 0x0806), counts: { 'not-ipv4': 1 } },
      { name: 'IPv6', frame: framed(new Uint8Array(40).fill(0x60, 0, 1), 0x86dd), counts: { 'not-ipv4': 1 } },
      { name: 'version 6 in an IPv4 frame', frame: framed([0x60, ...good.subarray(1)]), counts: { 'not-ipv4': 1 } },
      { name: 'nested GRE', frame: framed(inner('10.16.33.91', '10.16.32.7', 47)), counts: { 'nested-gre': 1 } },
    ];
    test.each(cases)('$name', ({ frame, mark = markOf(frame), counts }) => {
      const verdict = counts['packets'] ? ON : SHOT;
      const more = difference(check, INBOUND, () => {
        const after = run(check.ingress, frame, mark);
        expect(after.verdict).toBe(verdict);
        // What goes on has no verdict any more, and all that others have set.
        if (verdict === ON) expect(after.mark).toBe((mark & ~VERDICT) >>> 0);
      });
      expect(more).toEqual(counts);
      expect(counted(check, OUTBOUND)).toEqual({});
    });
    test('counts each VM', () => {
      const { inbound } = check.vm(B);
      run(check.ingress, framed(good), BELIEVED);
      expect(check.vm(B).inbound).toEqual({ packets: inbound.packets + 1, bytes: inbound.bytes + bytes });
      check.forget(B);
      expect(check.vm(B)).toEqual({ outbound: { packets: 0, bytes: 0 }, inbound: { packets: 0, bytes: 0 } });
    });
  });

  // A test run takes bytes 12 and 13 for the type of the frame: with an outer source in 8.0.0.0/16 they say IPv4.
  describe('inbound, GRE', () => {
    const plan = { mappings: [mapping('10.0.0.0/8', '8.0.0.0/16')], local: '8.0.16.32' };
    const check = open(plan, false, 24);
    const good = inner('10.16.33.91', '10.16.32.7');
    const outer = { source: number('8.0.16.33'), destination: number('8.0.16.32') };
    const gre = (header: number[], packet: Uint8Array = good, from = outer.source) =>
      ipv4Around({ ...outer, source: from }, [...header, ...packet]);
    const udp = (payload: Uint8Array) =>
      ipv4Around({ ...outer, protocol: 17 }, [0xc0, 0, 0x12, 0x92, 0, 8 + payload.length, 0, 0, ...payload]);
    const plain = greHeader({}, good);
    const withOptions = (packet: Uint8Array) =>
      Uint8Array.from([0x47, ...packet.subarray(1, 20), 1, 1, 1, 1, 1, 1, 1, 1, ...packet.subarray(20)]);
    const cases: { name: string; packet: Uint8Array; counts: Record<string, number> }[] = [
      { name: 'plain', packet: gre(plain), counts: { packets: 1, bytes } },
      { name: 'key', packet: gre(greHeader({ key: 5 }, good)), counts: { packets: 1, bytes } },
      { name: 'checksum', packet: gre(greHeader({ checksum: true }, good)), counts: { packets: 1, bytes } },
      { name: 'sequence', packet: gre(greHeader({ sequence: 5 }, good)), counts: { packets: 1, bytes } },
      {
        name: 'all',
        packet: gre(greHeader({ key: 5, checksum: true, sequence: 5 }, good)),
        counts: { packets: 1, bytes },
      },
      { name: 'in UDP', packet: udp(Uint8Array.from([...plain, ...good])), counts: { packets: 1, bytes } },
      {
        name: 'in UDP, with a key',
        packet: udp(Uint8Array.from([...greHeader({ key: 5 }, good), ...good])),
        counts: { packets: 1, bytes },
      },
      { name: 'outer options', packet: withOptions(gre(plain)), counts: { packets: 1, bytes } },
      { name: 'spoofed', packet: gre(plain, inner('10.16.34.91', '10.16.32.7')), counts: { 'spoofed-source': 1 } },
      { name: 'from another VM', packet: gre(plain, good, number('8.0.16.34')), counts: { 'spoofed-source': 1 } },
      {
        name: 'from a slice itself',
        packet: gre(plain, inner('10.16.33.0', '10.16.32.7')),
        counts: { 'spoofed-source': 1 },
      },
      {
        name: 'to our address kept free',
        packet: gre(plain, inner('10.16.33.91', '10.16.32.255')),
        counts: { 'reserved-address': 1 },
      },
      {
        name: "from the underlay's broadcast address",
        packet: gre(plain, inner('10.255.255.91', '10.16.32.7'), number('8.0.255.255')),
        counts: { 'foreign-underlay': 1 },
      },
      {
        name: 'foreign destination',
        packet: gre(plain, inner('10.16.33.91', '10.16.34.7')),
        counts: { 'foreign-destination': 1 },
      },
      {
        name: 'from ourselves',
        packet: gre(plain, inner('10.16.32.91', '10.16.32.7'), outer.destination),
        counts: { 'foreign-underlay': 1 },
      },
      { name: 'nested', packet: gre(plain, inner('10.16.33.91', '10.16.32.7', 47)), counts: { 'nested-gre': 1 } },
      {
        name: 'a flag that says more than there is',
        packet: gre([0x20, 0, 8, 0]).subarray(0, 44),
        counts: { truncated: 1 },
      },
      { name: 'no inner packet', packet: gre(plain).subarray(0, 40), counts: { truncated: 1 } },
    ];
    test.each(cases)('$name', ({ packet, counts }) => {
      const more = difference(check, INBOUND, () =>
        expect(run(check.ingress, packet).verdict).toBe(counts['packets'] ? ON : SHOT),
      );
      expect(more).toEqual(counts);
    });
  });

  test('what was dropped since the last look, each reason with a packet as its example', () => {
    const plan = { mappings: [mapping('10.0.0.0/8', '8.0.0.0/16')], local: '8.0.16.32' };
    const gre = (source: string, destination: string, from = '8.0.16.33') => {
      const packet = inner(source, destination);
      const outer = { source: number(from), destination: number('8.0.16.32') };
      return ipv4Around(outer, [...greHeader({}, packet), ...packet]);
    };
    const check = open(plan, false, 24);
    const drops = (direction: string, reason: number, packets: number, addresses: Record<string, string>) => [
      {
        ...{ direction, verdict: reason, packets },
        ...Object.fromEntries(Object.entries(addresses).map(([name, text]) => [name, number(text)])),
      },
    ];
    expect(check.newDrops()).toEqual([]);
    for (const innerSource of ['10.16.34.91', '10.16.35.91']) {
      run(check.ingress, gre(innerSource, '10.16.32.7'));
      const addresses = { innerSource, innerDestination: '10.16.32.7', outerSource: '8.0.16.33' };
      expect(check.newDrops()).toEqual(drops('inbound', abi.DROP_SPOOFED_SOURCE, 1, addresses));
    }
    const foreign = { innerSource: '10.16.33.91', innerDestination: '10.16.34.7' };
    for (let i = 0; i < 3; i++) run(check.ingress, gre('10.16.33.91', '10.16.34.7'));
    expect(check.newDrops()).toEqual(drops('inbound', abi.DROP_FOREIGN_DESTINATION, 3, foreign));
    run(check.ingress, gre('10.16.33.91', '10.16.34.7', plan.local));
    expect(check.newDrops()).toEqual(drops('inbound', abi.DROP_FOREIGN_UNDERLAY, 1, { outerSource: plan.local }));
    run(check.egress, outerTo(number('8.0.16.34'), inner('10.16.33.91', '10.16.34.7')));
    expect(check.newDrops()).toEqual(drops('outbound', abi.DROP_FOREIGN_SOURCE, 1, foreign));
    run(check.egress, outerTo(number('8.0.16.40'), inner('10.16.32.91', '10.16.34.7')));
    const led = { innerSource: '10.16.32.91', innerDestination: '10.16.34.7', outerDestination: '8.0.16.40' };
    expect(check.newDrops()).toEqual(drops('outbound', abi.DROP_DIVERTED, 1, led));
    expect(check.newDrops()).toEqual([]);
  });

  test('the program at the underlay notes who sent the last packet that it doubts', () => {
    const doubts = new BpfMap(BPF_MAP_TYPE_ARRAY, 8, 1);
    const local = address(first.local);
    const program = loadMarkProgram({ ...first, local, port: 4789, vni: VNI, linkHeader: 14, doubts: doubts.fd });
    const send = (outer: string, source: string) =>
      run(program, framed(vxlan(number(outer), number(first.local), framed(inner(source, '10.16.32.7'))))).mark;
    const noted = () => Array.from(doubts.get(0) ?? [], Number);
    expect([send('192.168.16.33', '10.16.33.91'), noted()]).toEqual([BELIEVED, [0]]);
    expect([send('192.168.16.99', '10.16.33.91'), noted()]).toEqual([DOUBTED, [number('192.168.16.99')]]);
    expect([send('192.168.16.34', '11.0.0.1'), noted()]).toEqual([DOUBTED, [number('192.168.16.34')]]);
    expect([send('192.168.16.33', '10.16.33.91'), noted()]).toEqual([BELIEVED, [number('192.168.16.34')]]);
    native.close(program);
    doubts.close();
  });

  test('with VXLAN the program does not know who sent a packet', () => {
    const check = open(first);
    run(check.ingress, framed(inner('10.16.34.91', '10.16.32.7')), DOUBTED);
    run(check.ingress, framed(new Uint8Array(28), 0x0806), DOUBTED);
    expect(check.newDrops()).toEqual([
      { direction: 'inbound', verdict: abi.DROP_NOT_IPV4, packets: 1 },
      {
        ...{ direction: 'inbound', verdict: abi.DROP_SPOOFED_SOURCE, packets: 1 },
        ...{ innerSource: number('10.16.34.91'), innerDestination: number('10.16.32.7') },
      },
    ]);
  });
});

/** The program at the underlay's ingress, run by the kernel itself: its verdict on VXLAN packets, in two bits of their mark. */
import { afterAll, describe, expect, test } from 'vitest';
import { BELIEVED, DOUBTED, loadMarkProgram, VERDICT } from '../../src/dataplane/check/mark.ts';
import * as native from '../../src/linux/native.ts';
import { skip } from '../net/require.ts';
import { fragmented, greHeader, ipv4Around, packetAround, packetOf } from '../packet.ts';
import { address, framed, inner, mapping, number, ON, run, VNI, vxlan, vxlanHeader, why } from './test-run.ts';

describe.skipIf(skip('mark', why()))('the mark', () => {
  const local = address('192.168.16.32');
  const mappings = [mapping('10.0.0.0/8', '192.168.0.0/16')];
  const program = loadMarkProgram({ mappings, local, port: 4789, vni: VNI, linkHeader: 14 });
  afterAll(() => native.close(program));
  const B = number('192.168.16.33');
  const [source, destination] = [B, Number(local.bits)];
  const frame = (from = '10.16.33.91', to = '10.16.32.7') => framed(inner(from, to));
  const udp = (parts: object = {}) => vxlan(source, destination, frame(), parts);
  const around = (bytes: ArrayLike<number>) => vxlan(source, destination, bytes);
  /** The first of its fragments that has so many bytes of payload; link-layer padding has the rest. */
  const firstOf = (packet: Uint8Array, payload: number, isPadded = false) => {
    const piece = fragmented(packet, 20 + payload)[0] as Uint8Array;
    return isPadded ? Uint8Array.of(...piece, ...packet.subarray(piece.length)) : piece;
  };
  const long = (from: string) =>
    vxlan(
      source,
      destination,
      framed(
        packetAround({ source: number(from), destination: number('10.16.32.7'), protocol: 17 }, new Uint8Array(3000)),
      ),
    );
  const pieces = fragmented(long('10.16.33.91'), 1500);
  /** A VLAN tag without a network in front of a packet from 10.16.34.91; where the mark program looks for the source, there is B's. */
  const tagged = framed([0, 0, 8, 0, ...inner('10.16.34.91', '10.16.32.7', 16)], 0x8100);
  const B_CONTAINER = [10, 16, 33, 91];
  tagged.set(B_CONTAINER, 14 + 12);
  // UDP and VXLAN, the inner Ethernet header and the inner IPv4 header.
  const NEEDED = 16 + 14 + 20;

  test.each([
    { name: 'VXLAN', packet: udp(), mark: BELIEVED },
    { name: 'with IPv4 options', packet: udp({ ipOptions: [1, 1, 1, 1, 1, 1, 1, 1] }), mark: BELIEVED },
    { name: 'from the VM itself', packet: around(frame('10.16.33.1')), mark: BELIEVED },
    { name: "another VM's source", packet: around(frame('10.16.34.91')), mark: DOUBTED },
    { name: 'our own source', packet: around(frame('10.16.32.91')), mark: DOUBTED },
    { name: 'a source outside the overlay', packet: around(frame('11.16.33.91')), mark: DOUBTED },
    { name: 'a source of the underlay', packet: around(frame('192.168.16.33')), mark: DOUBTED },
    { name: 'from another VM', packet: vxlan(B + 1, destination, frame()), mark: DOUBTED },
    { name: 'from outside the underlay', packet: vxlan(number('10.16.16.33'), destination, frame()), mark: DOUBTED },
    {
      name: 'from the same VM number outside the underlay',
      packet: vxlan(number('192.169.16.33'), destination, frame()),
      mark: DOUBTED,
    },
    { name: 'from our own address', packet: vxlan(destination, destination, frame('10.16.32.91')), mark: 0 },
    { name: 'ARP inside', packet: around(framed(new Uint8Array(28), 0x0806)), mark: DOUBTED },
    { name: 'a VLAN tag inside', packet: around(tagged), mark: DOUBTED },
    { name: 'the inner header cut short', packet: around(frame().subarray(0, 33)), mark: DOUBTED },
    { name: 'the inner header and no more', packet: around(frame().subarray(0, 34)), mark: BELIEVED },
    { name: 'nothing inside', packet: around([]), mark: DOUBTED },
    {
      name: 'another network on that port',
      packet: udp({ payload: [...vxlanHeader(6), ...frame()] }),
      mark: undefined,
    },
    { name: 'another port', packet: udp({ destinationPort: 4790 }), mark: undefined },
    { name: 'from that port', packet: udp({ sourcePort: 4789, destinationPort: 53 }), mark: undefined },
    { name: 'for another', packet: udp({ destination: destination + 1 }), mark: undefined },
    { name: 'TCP', packet: packetOf({ source, destination, destinationPort: 4789 }), mark: undefined },
    {
      name: 'GRE',
      packet: ipv4Around({ source, destination }, [...greHeader({}, udp()), ...udp()]),
      mark: undefined,
    },
    { name: 'the first fragment', packet: pieces[0] as Uint8Array, mark: BELIEVED },
    { name: 'the second fragment', packet: pieces[1] as Uint8Array, mark: undefined },
    { name: 'the first fragment, spoofed', packet: firstOf(long('10.16.34.91'), 1480), mark: DOUBTED },
    { name: 'a first fragment with the inner header', packet: firstOf(long('10.16.33.91'), 56), mark: BELIEVED },
    { name: 'a first fragment without all of it', packet: firstOf(long('10.16.33.91'), 48), mark: DOUBTED },
    // Behind its end the reassembled packet has what the second fragment brings.
    {
      name: 'a first fragment with it behind its end',
      packet: firstOf(long('10.16.33.91'), 48, true),
      mark: DOUBTED,
    },
    { name: 'without ports', packet: udp().subarray(0, 22), mark: undefined },
  ])('$name', ({ packet, mark }) => {
    expect(run(program, framed(packet))).toEqual({ verdict: ON, mark: mark ?? 0 });
    // Bits of others stay; a verdict from elsewhere only on what is not VXLAN for us.
    const all = 0xffffffff;
    expect(run(program, framed(packet), all).mark).toBe(mark === undefined ? all : ((all & ~VERDICT) | mark) >>> 0);
  });

  test('the inner header is where it says, to the byte', () => {
    const whole = around(frame());
    for (let end = 20 + NEEDED - 4; end < 20 + NEEDED + 4; end++) {
      const short = Uint8Array.from(whole);
      short.set([end >> 8, end & 255], 2); // Total length; the frame has more.
      expect(run(program, framed(short)).mark).toBe(end < 20 + NEEDED ? DOUBTED : BELIEVED);
    }
    // As BIG TCP has it; of other packets the kernel drops these.
    expect(run(program, framed(Uint8Array.from(whole).fill(0, 2, 4))).mark).toBe(BELIEVED);
  });

  test('what is not for us keeps its mark; not IPv4 too', () => {
    expect(run(program, framed(udp({ destinationPort: 53 })), 5)).toEqual({ verdict: ON, mark: 5 });
    expect(run(program, framed(udp(), 0x86dd), 5)).toEqual({ verdict: ON, mark: 5 });
    expect(run(program, framed(udp()), 5)).toEqual({ verdict: ON, mark: BELIEVED | 5 });
  });
});

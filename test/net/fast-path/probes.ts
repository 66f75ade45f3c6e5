/**
 * Packets of a container that are not like most, and what is to become of each, with the fast path and without:
 * which packets come to the other container, byte for byte, and which answer comes back.
 */
import { cut, fixed, forwarded, fragmented, ipv4Around, packetOf, partial, payloadOf } from '../../packet.ts';

/** Where packets go: to a container of another VM, to one of the same VM. */
export type Way = 'far' | 'near';

/** An ICMP message: type and code, who sent it, and the MTU that it tells. */
interface Answer {
  icmp: string;
  from: 'own VM' | 'other VM';
  mtu?: number;
}

/** What is known when a packet is made. */
export interface Ends {
  from: number;
  to: number;
  /** In the slice of the destination's VM, where nobody is. */
  nobody: number;
  /** Of the same VM. */
  neighbour: number;
  /** Bytes of the longest packet of the mesh. */
  mtu: number;
}

export interface Probe {
  name: string;
  ways?: readonly Way[];
  packets(ends: Ends): Uint8Array[];
  /** Those that come; none if it is not said. `hops` is how many routers there are on the way. */
  come?(packets: Uint8Array[], hops: number, ends: Ends): Uint8Array[];
  answer?(ends: Ends, way: Way): Answer | undefined;
  /** What differs in the frame. */
  frame?: { tag?: boolean; to?: 'nobody' | 'everybody' };
  /** Bytes behind the packet. */
  padding?: number;
}

export const PORT = 7777;
const [UDP, GRE, RESERVED] = [17, 47, 253] as const;
const same = (packets: Uint8Array[], hops: number) => packets.map((packet) => forwarded(packet, hops));
const cutAt = (mtu: number) => (packets: Uint8Array[], hops: number) =>
  packets.flatMap((packet) => fragmented(packet, mtu)).map((packet) => forwarded(packet, hops));

const udp = ({ from, to }: Ends, length: number, more: Parameters<typeof packetOf>[0] = {}) =>
  packetOf({
    ...{ protocol: UDP, source: from, destination: to, destinationPort: PORT, payload: payloadOf(length) },
    ...more,
  });
const IP_UDP = 28;

export const PROBES: readonly Probe[] = [
  { name: 'an ordinary datagram', packets: (ends) => [udp(ends, 100)], come: same },
  { name: 'an ordinary segment', packets: (ends) => [udp(ends, 100, { protocol: 6 })], come: same },
  { name: 'a datagram without data', packets: (ends) => [udp(ends, 0)], come: same },
  {
    name: 'a datagram without a checksum',
    packets: (ends) => [
      ipv4Around({ source: ends.from, destination: ends.to, protocol: UDP }, [0, 9, 0, 9, 0, 8, 0, 0]),
    ],
    come: same,
  },
  {
    name: 'a protocol that nobody knows, without data',
    packets: (ends) => [ipv4Around({ source: ends.from, destination: ends.to, protocol: RESERVED }, [])],
    come: same,
  },
  ...[0x01, 0x02, 0x03, 0xb8, 0xff].map((tos) => ({
    name: `DSCP and ECN ${tos.toString(16)}`,
    packets: (ends: Ends) => [udp(ends, 100, { tos })],
    come: same,
  })),
  {
    name: 'TTL 1',
    packets: (ends) => [udp(ends, 100, { ttl: 1 })],
    answer: () => ({ icmp: '11/0', from: 'own VM' }),
  },
  {
    name: 'TTL 2',
    ways: ['far'],
    packets: (ends) => [udp(ends, 100, { ttl: 2 })],
    answer: () => ({ icmp: '11/0', from: 'other VM' }),
  },
  { name: 'TTL 3', packets: (ends) => [udp(ends, 100, { ttl: 3 })], come: same },
  { name: 'as long as the mesh takes', packets: (ends) => [udp(ends, ends.mtu - IP_UDP)], come: same },
  {
    name: 'a byte too long, not to be cut',
    ways: ['far'],
    packets: (ends) => [udp(ends, ends.mtu - IP_UDP + 1)],
    answer: ({ mtu }) => ({ icmp: '3/4', from: 'own VM', mtu }),
  },
  {
    name: 'a byte too long, to be cut',
    ways: ['far'],
    packets: (ends) => [udp(ends, ends.mtu - IP_UDP + 1, { fragment: 0 })],
    come: (packets, hops, { mtu }) => cutAt(mtu)(packets, hops),
  },
  {
    name: 'two small fragments',
    packets: (ends) => fragmented(udp(ends, 100, { fragment: 0, id: 7 }), 100),
    come: same,
  },
  {
    name: 'the second fragment alone',
    packets: (ends) => fragmented(udp(ends, 100, { fragment: 0, id: 8 }), 100).slice(1),
    come: same,
  },
  {
    name: 'large fragments, too long to go on as they are',
    ways: ['far'],
    packets: (ends) => fragmented(udp(ends, 2600, { fragment: 0, id: 9 }), 1500),
    come: (packets, hops, { mtu }) => cutAt(mtu)(packets, hops),
  },
  ...[
    ['no operation', [1, 1, 1, 0]],
    ['router alert', [148, 4, 0, 0]],
  ].map(([name, ipOptions]) => ({
    name: `options: ${name}`,
    packets: (ends: Ends) => [udp(ends, 100, { ipOptions: ipOptions as number[] })],
    come: same,
  })),
  {
    name: 'to nobody',
    packets: (ends) => [udp({ ...ends, to: ends.nobody }, 100)],
    answer: (_, way) => ({ icmp: '3/1', from: way === 'far' ? 'other VM' : 'own VM' }),
  },
  {
    name: 'bytes behind the packet',
    packets: (ends) => [udp(ends, 10)],
    padding: 18,
    come: same,
  },
  { name: 'a priority tag', packets: (ends) => [udp(ends, 100)], frame: { tag: true }, come: same },
  { name: 'a frame to another host', packets: (ends) => [udp(ends, 100)], frame: { to: 'nobody' } },
  { name: 'a frame to everybody', packets: (ends) => [udp(ends, 100)], frame: { to: 'everybody' } },
  { name: 'the source of a neighbour', packets: (ends) => [udp({ ...ends, from: ends.neighbour }, 100)] },
  { name: 'the source of who gets it', packets: (ends) => [udp({ ...ends, from: ends.to }, 100)] },
  { name: 'a multicast source', packets: (ends) => [udp({ ...ends, from: 0xe0000001 }, 100)] },
  {
    name: 'GRE inside',
    ways: ['far'],
    packets: ({ from, to }) => [ipv4Around({ source: from, destination: to, protocol: GRE }, [0, 0, 8, 0, 0x45])],
  },
  {
    name: 'a wrong header checksum',
    packets: (ends) => [udp(ends, 100).with(10, 0x12) as Uint8Array],
  },
  {
    name: 'longer than the frame',
    packets: (ends) => [fixed(udp(ends, 100)).subarray(0, 110)],
  },
  {
    name: 'version 5',
    packets: (ends) => [udp(ends, 100).with(0, 0x55) as Uint8Array],
  },
];

export interface SuperProbe {
  name: string;
  protocol: 6 | 17;
  /** Bytes of payload, of all and of each segment. */
  length: number;
  size: number;
}

/** Super-packets, as containers send them by a device that could cut; each comes as if its sender had cut it. */
export const SUPER_PROBES: readonly SuperProbe[] = [
  { name: 'TCP, nearly 64 KiB', protocol: 6, length: 40 * 1400, size: 1400 },
  { name: 'TCP, two segments', protocol: 6, length: 1500, size: 1000 },
  { name: 'UDP, datagrams of 1,000 bytes', protocol: 17, length: 10_500, size: 1000 },
  { name: 'UDP, datagrams of 100 bytes', protocol: 17, length: 1_010, size: 100 },
];

/** The super-packet, with checksums that the device is to complete; and what comes of it after so many routers. */
export function superPacket({ protocol, length, size }: SuperProbe, { from, to }: Ends, hops: number) {
  const whole = packetOf({
    ...{ protocol, source: from, destination: to, destinationPort: PORT, payload: payloadOf(length) },
  });
  return { packet: partial(whole), segments: cut(whole, size).map((segment) => forwarded(segment, hops)) };
}

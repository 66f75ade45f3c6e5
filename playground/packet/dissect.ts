/** Takes a packet apart: IPv4 (RFC 791), GRE (RFC 2784, RFC 2890), GRE-in-UDP (RFC 8086), and what they carry. */
import { GRE_UDP_PORT } from '../../src/core/abi.ts';
import { ipv4Text } from '../../src/core/index.ts';
import { bitNames, hex, type Layer, type LayerKind, LayerReader } from './fields.ts';
import { icmp, tcp, udp } from './transport.ts';

const PROTOCOLS: Record<number, string> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 47: 'GRE', 50: 'ESP', 132: 'SCTP' };
const ECN = ['not ECN-capable', 'ECT(1)', 'ECT(0)', 'congestion experienced'];
const IPV4_LENGTH = 20;
const IPV4_FLAGS = [
  [0x8000, 'reserved'],
  [0x4000, "don't fragment"],
  [0x2000, 'more fragments'],
] as const;
const OFFSET_MASK = 0x1fff;
const MORE_FRAGMENTS = 0x2000;
const GRE_FLAGS = [
  [0x8000, 'checksum'],
  [0x4000, 'routing'],
  [0x2000, 'key'],
  [0x1000, 'sequence number'],
  [0x0800, 'strict source route'],
] as const;
/** Routing, strict source route and the version: behind these no IPv4 header can be told. */
const GRE_STRANGE = 0x4807;
const ETHERTYPE_IPV4 = 0x0800;
/** Packets in packets: nothing sensible goes deeper. */
const MOST_DEPTH = 6;

/** What is known of a packet before it is read. */
interface Place {
  kind: 'outer' | 'inner';
  depth: number;
  /** Whether it is the beginning of a packet that an ICMP message is about. */
  isQuoted: boolean;
}

/** The layers of a packet that begins with an IPv4 header, as far as its bytes go. `isOuter`: it is the underlay's. */
export function dissect(packet: Uint8Array, isOuter: boolean): Layer[] {
  // A copy of its own: what is given may be a part of something larger.
  const view = new DataView(Uint8Array.from(packet).buffer);
  const place: Place = { kind: isOuter ? 'outer' : 'inner', depth: 0, isQuoted: false };
  return ipv4(new LayerReader(view, 0, view.byteLength), place);
}

function ipv4(r: LayerReader, place: Place): Layer[] {
  if (place.depth === MOST_DEPTH || r.left() < IPV4_LENGTH) return rest(r, 'too short for an IPv4 header');
  const total = r.number(2, 2);
  const headerLength = (r.number(0, 1) & 15) * 4;
  header(r, place, headerLength, total);
  const title = place.isQuoted ? 'IPv4 of the packet it is about' : place.kind === 'outer' ? 'Outer IPv4' : 'IPv4';
  const isReadable = r.number(0, 1) >> 4 === 4 && headerLength >= IPV4_LENGTH;
  const body = isReadable ? r.part(headerLength, total) : r.part(Math.max(headerLength, IPV4_LENGTH));
  const behind = isReadable ? r.part(Math.max(total, headerLength)) : r.part(r.left());
  return [
    r.layer(place.kind, title),
    ...(isReadable ? carried(r, body, place, total - headerLength) : rest(body)),
    ...rest(behind, 'behind the end of the packet'),
  ];
}

/** The fields of an IPv4 header. */
function header(r: LayerReader, { isQuoted }: Place, headerLength: number, total: number): void {
  const version = r.number(0, 1) >> 4;
  r.add('Version', 0, 1, version, version === 4 ? '' : 'expected 4', version !== 4);
  const isShort = headerLength < IPV4_LENGTH;
  r.add('Header length', 0, 1, `${headerLength} bytes`, isShort ? 'expected 20 or more' : '', isShort);
  r.add('DSCP', 1, 1, r.number(1, 1) >> 2);
  r.add('ECN', 1, 1, r.number(1, 1) & 3, ECN[r.number(1, 1) & 3]);
  const missing = total > r.left() && !isQuoted ? `only ${r.left()} are there` : '';
  const wrong = total < headerLength ? 'less than the header' : missing;
  r.add('Total length', 2, 2, `${total} bytes`, wrong, wrong !== '');
  r.add('Identification', 4, 2, hex(r.number(4, 2), 4));
  const fragment = r.number(6, 2);
  r.add('Flags', 6, 1, bitNames(fragment, IPV4_FLAGS));
  r.add('Fragment offset', 6, 2, `${(fragment & OFFSET_MASK) * 8} bytes`);
  r.add('Time to live', 8, 1, r.number(8, 1));
  r.add('Protocol', 9, 1, r.number(9, 1), PROTOCOLS[r.number(9, 1)]);
  r.checksum('Header checksum', 10, Math.max(headerLength, IPV4_LENGTH));
  r.add('Source', 12, 4, ipv4Text(r.number(12, 4)));
  r.add('Destination', 16, 4, ipv4Text(r.number(16, 4)));
  const options = Math.min(headerLength, r.left()) - IPV4_LENGTH;
  if (options > 0) r.add('Options', IPV4_LENGTH, options, `${options} bytes`);
}

/** What an IPv4 packet carries, `length` bytes by its header. */
function carried(ip: LayerReader, r: LayerReader, place: Place, length: number): Layer[] {
  const fragment = ip.number(6, 2);
  const protocol = ip.number(9, 1);
  if ((fragment & OFFSET_MASK) !== 0) return rest(r, 'a later part of a packet that was fragmented');
  if (protocol === 47 && r.left() >= 4) return gre(r, place);
  // A part of a message has no checksum of its own.
  const isWhole = (fragment & MORE_FRAGMENTS) === 0 && !place.isQuoted;
  // TCP and UDP check both addresses, the protocol and the length as well.
  const pseudo = [12, 14, 16, 18].reduce((sum, at) => sum + ip.number(at, 2), protocol + length);
  if (protocol === 6 && r.left() >= 20) return followed(r, tcp(r, isWhole ? pseudo : undefined));
  if (protocol === 17 && r.left() >= 8) {
    const isTunnel = r.number(2, 2) === GRE_UDP_PORT && place.kind === 'outer';
    const layer = udp(r, isTunnel, isWhole ? pseudo : undefined);
    return isTunnel && r.left(8) >= 4 ? [layer, ...gre(r.part(8), place)] : followed(r, layer);
  }
  if (protocol === 1 && r.left() >= 8) {
    const { layer, isAboutPacket } = icmp(r, isWhole);
    if (!isAboutPacket) return followed(r, layer);
    return [layer, ...ipv4(r.part(8), { ...place, depth: place.depth + 1, isQuoted: true })];
  }
  return rest(r);
}

function gre(r: LayerReader, place: Place): Layer[] {
  const [flags, type] = [r.number(0, 2), r.number(2, 2)];
  r.add('Flags', 0, 2, hex(flags, 4), bitNames(flags, GRE_FLAGS));
  r.add('Version', 1, 1, flags & 7, (flags & 7) === 0 ? '' : 'expected 0', (flags & 7) !== 0);
  r.add('Protocol type', 2, 2, hex(type, 4), type === ETHERTYPE_IPV4 ? 'IPv4' : 'not IPv4', type !== ETHERTYPE_IPV4);
  let at = 4;
  const has = (bit: number) => (flags & bit) !== 0 && r.left(at) >= 4;
  if (has(0x8000)) {
    r.checksum('Checksum', at, r.left());
    r.add('Reserved', at + 2, 2, r.number(at + 2, 2));
    at += 4;
  }
  for (const [bit, name] of [
    [0x2000, 'Key'],
    [0x1000, 'Sequence number'],
  ] as const) {
    if (!has(bit)) continue;
    r.add(name, at, 4, r.number(at, 4));
    at += 4;
  }
  const isIpv4 = type === ETHERTYPE_IPV4 && (flags & GRE_STRANGE) === 0;
  const inner: Place = { kind: 'inner', depth: place.depth + 1, isQuoted: place.isQuoted };
  return [r.layer('gre', 'GRE'), ...(isIpv4 ? ipv4(r.part(at), inner) : rest(r.part(at)))];
}

/** A layer, and what comes behind it. */
function followed(r: LayerReader, layer: Layer): Layer[] {
  return [layer, ...rest(r.part(layer.end - r.start))];
}

/** What is left as a layer of its own, if anything is. */
function rest(r: LayerReader, note?: string): Layer[] {
  if (r.left() === 0) return [];
  const kind: LayerKind = 'payload';
  r.add('Data', 0, r.left(), r.left() === 1 ? '1 byte' : `${r.left()} bytes`, note);
  return [r.layer(kind, 'Payload')];
}

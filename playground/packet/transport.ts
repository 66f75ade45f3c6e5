/** The headers of what IPv4 carries: TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792). */
import { bitNames, hex, type Layer, type LayerReader } from './fields.ts';

/** TCP's flags, the highest bit first. */
const TCP_FLAGS = [
  [0x80, 'CWR'],
  [0x40, 'ECE'],
  [0x20, 'URG'],
  [0x10, 'ACK'],
  [0x08, 'PSH'],
  [0x04, 'RST'],
  [0x02, 'SYN'],
  [0x01, 'FIN'],
] as const;
const ICMP_TYPES: Record<number, string> = {
  0: 'echo reply',
  3: 'destination unreachable',
  5: 'redirect',
  8: 'echo request',
  11: 'time exceeded',
  12: 'parameter problem',
};
const UNREACHABLE: Record<number, string> = {
  0: 'network unreachable',
  1: 'host unreachable',
  2: 'protocol unreachable',
  3: 'port unreachable',
  4: 'fragmentation needed',
  13: 'administratively prohibited',
};

/** A UDP header; `pseudo` is undefined where its checksum cannot be checked. */
export function udp(r: LayerReader, isTunnel: boolean, pseudo: number | undefined): Layer {
  r.add('Source port', 0, 2, r.number(0, 2));
  r.add('Destination port', 2, 2, r.number(2, 2), isTunnel ? 'GRE in UDP (RFC 8086)' : undefined);
  const length = r.number(4, 2);
  const isShort = length < 8 || (pseudo !== undefined && length > r.left());
  r.add('Length', 4, 2, `${length} bytes`, isShort ? 'does not fit the packet' : undefined, isShort);
  const check = r.number(6, 2);
  if (check === 0) r.add('Checksum', 6, 2, hex(0, 4), 'none');
  else if (pseudo === undefined || isShort) r.add('Checksum', 6, 2, hex(check, 4));
  else r.checksum('Checksum', 6, length, pseudo);
  return r.layer(isTunnel ? 'udp' : 'transport', 'UDP');
}

/** A TCP header of at least 20 bytes. */
export function tcp(r: LayerReader, pseudo: number | undefined): Layer {
  r.add('Source port', 0, 2, r.number(0, 2));
  r.add('Destination port', 2, 2, r.number(2, 2));
  r.add('Sequence number', 4, 4, r.number(4, 4));
  r.add('Acknowledgement', 8, 4, r.number(8, 4));
  const length = (r.number(12, 1) >> 4) * 4;
  const isWrong = length < 20 || length > r.left();
  r.add('Header length', 12, 1, `${length} bytes`, isWrong ? 'does not fit the packet' : undefined, isWrong);
  r.add('Flags', 13, 1, hex(r.number(13, 1), 2), bitNames(r.number(13, 1), TCP_FLAGS));
  r.add('Window', 14, 2, r.number(14, 2));
  if (pseudo === undefined) r.add('Checksum', 16, 2, hex(r.number(16, 2), 4));
  else r.checksum('Checksum', 16, r.left(), pseudo);
  r.add('Urgent pointer', 18, 2, r.number(18, 2));
  const header = Math.min(Math.max(length, 20), r.left());
  if (header > 20) r.add('Options', 20, header - 20, `${header - 20} bytes`, tcpOptions(r, header));
  return r.layer('transport', 'TCP', header);
}

/** The maximum segment size among TCP's options, which is what a tunnel clamps. */
function tcpOptions(r: LayerReader, header: number): string | undefined {
  for (let at = 20; at < header; ) {
    const kind = r.number(at, 1);
    if (kind === 0) return undefined;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = at + 1 < header ? r.number(at + 1, 1) : 0;
    if (kind === 2 && length === 4 && at + 4 <= header) return `maximum segment size ${r.number(at + 2, 2)}`;
    if (length < 2) return undefined;
    at += length;
  }
  return undefined;
}

/** An ICMP header of 8 bytes, and whether a packet follows that it is about. */
export function icmp(r: LayerReader, isWhole: boolean): { layer: Layer; isAboutPacket: boolean } {
  const [type, code] = [r.number(0, 1), r.number(1, 1)];
  r.add('Type', 0, 1, type, ICMP_TYPES[type]);
  r.add('Code', 1, 1, code, type === 3 ? UNREACHABLE[code] : undefined);
  if (isWhole) r.checksum('Checksum', 2, r.left());
  else r.add('Checksum', 2, 2, hex(r.number(2, 2), 4));
  if (type === 3 && code === 4) {
    r.add('Unused', 4, 2, r.number(4, 2));
    r.add('Next-hop MTU', 6, 2, `${r.number(6, 2)} bytes`);
  } else if (type === 0 || type === 8) {
    r.add('Identifier', 4, 2, r.number(4, 2));
    r.add('Sequence number', 6, 2, r.number(6, 2));
  } else {
    r.add('Rest of header', 4, 4, hex(r.number(4, 4), 8));
  }
  return { layer: r.layer('transport', 'ICMP'), isAboutPacket: [3, 5, 11, 12].includes(type) };
}

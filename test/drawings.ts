/** The drawings of docs/embedding.md: what the core makes of one packet, on the way out and on the way in, byte by byte. */
import { abi, ipv4Text, type PacketCore } from '../src/core/index.ts';
import { config, cores } from './core.ts';

/** An empty IPv4 packet from 10.16.32.91 to 10.16.33.7, as in README.md. */
const PACKET = Buffer.from('4500001400000000400125680a10205b0a102107', 'hex');
const NOW = 1000.5;

interface Field {
  /** Its offset in a record, or its address. */
  at: number;
  bytes: number;
  name: string;
  says: string;
}

const spaced = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex').replace(/..\B/g, '$& ');
const count = (n: number) => n.toLocaleString('en');

/** Rows of columns, the first to the right, as wide as they have to be. */
function columns(rows: string[][]): string {
  const widths = (rows[0] as string[]).map((_, i) => Math.max(...rows.map((row) => (row[i] as string).length)));
  const lines = rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number))).join('   '),
  );
  return lines.map((line) => `${line.trimEnd()}\n`).join('');
}

/** A record of which `before` and `after` are copies. */
function record(base: string, fields: Field[], before: Uint8Array, after: Uint8Array): string {
  const rows = fields.map(({ at, bytes, name, says }) => [
    String(at),
    name,
    spaced(before.subarray(at, at + bytes)),
    spaced(after.subarray(at, at + bytes)),
    says,
  ]);
  return columns([[base, '', 'before', 'after', ''], ...rows]);
}

/** Bytes of memory, field by field. */
function bytesAt(core: PacketCore, fields: Field[]): string {
  return columns(
    fields.map(({ at, bytes, name, says }) => [
      count(at),
      spaced(core.bytes.subarray(at, at + bytes)),
      ...[name, says],
    ]),
  );
}

const ipv4Fields = (at: number, says: [string, string, string, string, string]): Field[] =>
  ['version, header length, TOS, total length', 'identification, flags, offset', 'TTL, protocol, checksum']
    .concat('source', 'destination')
    .map((name, i) => ({ at: at + 4 * i, bytes: 4, name, says: says[i] as string }));

const INNER: [string, string, string, string, string] = [
  ...(['IPv4, 20 bytes of header, 20 bytes in all', '', 'TTL 64, ICMP'] as const),
  ...(['10.16.32.91', '10.16.33.7'] as const),
];
const OUTER: [string, string, string, string, string] = [
  ...(['44 bytes in all', "don't fragment", 'TTL 64, 47: GRE'] as const),
  ...(['192.168.16.32, this VM', '192.168.16.33, the VM of 10.16.33.7'] as const),
];

const descriptorFields = (core: PacketCore): Field[] => [
  { at: abi.DESCRIPTOR_ADDRESS, bytes: 4, name: 'address', says: count(core.slot(0)) },
  { at: abi.DESCRIPTOR_LENGTH, bytes: 4, name: 'length', says: `${core.packet(0).length} bytes` },
  { at: abi.DESCRIPTOR_VERDICT, bytes: 4, name: 'verdict', says: core.verdict(0) === 0 ? 'forward' : 'drop' },
  { at: abi.DESCRIPTOR_PEER, bytes: 4, name: 'peer', says: ipv4Text(core.peer(0)) },
  { at: abi.DESCRIPTOR_SEGMENT, bytes: 4, name: 'segment', says: 'one packet' },
  { at: abi.DESCRIPTOR_TOS, bytes: 4, name: 'tos', says: 'not used' },
  { at: abi.DESCRIPTOR_MERGED, bytes: 4, name: 'merged', says: 'not known' },
];

/** What each drawing shows, in the order of the guide. */
export function drawings(): Record<string, string> {
  const make = cores[0]?.make as () => PacketCore;
  const [a, b] = [make(), make()];
  a.configure(config);
  b.configure({ ...config, local: config.local + 1 });
  const descriptor = (core: PacketCore) => core.bytes.slice(abi.DESCRIPTORS, abi.DESCRIPTORS + abi.DESCRIPTOR_SIZE);

  a.put(0, PACKET);
  const place = a.slot(0);
  const packet = bytesAt(a, ipv4Fields(place, INNER));
  const before = descriptor(a);
  a.encapsulate(0, 1, NOW);
  const sent = a.messages.bytes(0);
  const start = place - (sent.length - PACKET.length);
  b.put(0, sent);
  const arrived = descriptor(b);
  b.decapsulate(0, 1, NOW);
  const inner = new DataView(b.memory).getUint32(abi.IOVS, true);
  return {
    packet,
    descriptor: record('at', descriptorFields(a), before, descriptor(a)),
    message: bytesAt(a, [
      { at: abi.MESSAGE_COUNTS, bytes: 4, name: 'messages of port 0', says: '1' },
      { at: abi.MESSAGE_TABLE, bytes: 8, name: 'name', says: count(abi.NAMES) },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_NAME_LENGTH, bytes: 4, name: 'name length', says: '16' },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_IOV, bytes: 8, name: 'iov', says: count(abi.IOVS) },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_IOV_COUNT, bytes: 8, name: 'iov count', says: '1 piece' },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL, bytes: 8, name: 'control', says: count(abi.CONTROLS) },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH, bytes: 8, name: 'control length', says: 'none' },
      { at: abi.MESSAGE_TABLE + abi.MESSAGE_LENGTH, bytes: 4, name: 'length', says: `${sent.length} bytes` },
      { at: abi.IOVS, bytes: 8, name: 'iovec 0: base', says: count(start) },
      { at: abi.IOVS + abi.IOV_LENGTH, bytes: 8, name: 'iovec 0: length', says: `${sent.length} bytes` },
      { at: abi.NAMES, bytes: 2, name: 'name 0: family', says: 'AF_INET' },
      { at: abi.NAMES + abi.NAME_PORT, bytes: 2, name: 'name 0: port', says: 'none' },
      { at: abi.NAMES + abi.NAME_ADDRESS, bytes: 4, name: 'name 0: address', says: '192.168.16.33' },
      { at: abi.CONTENTS + abi.CONTENT_PACKETS, bytes: 4, name: 'content 0: packets', says: '1' },
      { at: abi.CONTENTS + abi.CONTENT_BYTES, bytes: 4, name: 'content 0: bytes', says: `${PACKET.length}` },
      { at: abi.CONTENTS + abi.CONTENT_FLAGS, bytes: 4, name: 'content 0: flags', says: 'FLAG_UNHEARD' },
      { at: abi.CONTENTS + abi.CONTENT_PACKET, bytes: 4, name: 'content 0: packet', says: count(place) },
    ]),
    outer: bytesAt(a, [
      ...ipv4Fields(start, OUTER),
      { at: start + 20, bytes: 4, name: 'GRE: flags, protocol type', says: 'no options, IPv4' },
      ...ipv4Fields(place, INNER),
    ]),
    inbound: `${record('at', descriptorFields(b), arrived, descriptor(b))}\n${bytesAt(b, [
      { at: abi.IOVS, bytes: 8, name: 'iovec 0: base', says: `${count(inner)}, 24 bytes into what came` },
      { at: abi.IOVS + abi.IOV_LENGTH, bytes: 8, name: 'iovec 0: length', says: `${PACKET.length} bytes` },
      { at: abi.CONTENTS + abi.CONTENT_FLAGS, bytes: 4, name: 'content 0: flags', says: 'none' },
    ])}`,
  };
}

/** Capture files: classic pcap (libpcap's savefile format), read in either byte order and written little-endian. */

/** One packet of a capture, without what its link had before the IPv4 header. */
export interface Captured {
  seconds: number;
  microseconds: number;
  bytes: Uint8Array<ArrayBuffer>;
  /** Bytes that the packet had on its link, where the capture has only its beginning. */
  cutFrom?: number;
}

export interface Capture {
  packets: Captured[];
  /** Packets that are not IPv4 and were passed over. */
  others: number;
  /** Why there is not all of it: the end of the file is wrong, or it has more than was asked for. */
  remark?: string;
}

const MICROSECONDS = 0xa1b2c3d4;
const NANOSECONDS = 0xa1b23c4d;
const PCAPNG = 0x0a0d0d0a;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const SNAP_LENGTH = 65535;
/** No IPv4 packet is longer. */
const MOST_BYTES = 65535;
const ETHERTYPE_IPV4 = 0x0800;
const LINKTYPE_RAW = 101;

/** What a link puts before an IPv4 packet: bytes, and where among them is the EtherType. */
const LINKS: Record<number, { name: string; length: number; type?: number }> = {
  1: { name: 'Ethernet', length: 14, type: 12 },
  [LINKTYPE_RAW]: { name: 'raw IP', length: 0 },
  113: { name: 'Linux cooked', length: 16, type: 14 },
  228: { name: 'raw IPv4', length: 0 },
  276: { name: 'Linux cooked v2', length: 20, type: 0 },
};

/** Reads a capture, at most `most` IPv4 packets of it. Throws a RangeError that says why it is none. */
export function readPcap(file: ArrayBuffer, most = Number.POSITIVE_INFINITY): Capture {
  const view = new DataView(file);
  const order = byteOrder(view);
  const linkType = view.getUint32(20, order.little) & 0xffff;
  const link = LINKS[linkType];
  if (!link) {
    const known = Object.entries(LINKS).map(([number, { name }]) => `${number} (${name})`);
    throw new RangeError(`link type ${linkType}: expected one of ${known.join(', ')}`);
  }
  const capture: Capture = { packets: [], others: 0 };
  for (let at = FILE_HEADER; at < file.byteLength; ) {
    if (file.byteLength - at < RECORD_HEADER) return { ...capture, remark: 'the file ends inside a packet' };
    const [captured, length] = [view.getUint32(at + 8, order.little), view.getUint32(at + 12, order.little)];
    if (captured > file.byteLength - at - RECORD_HEADER) return { ...capture, remark: 'the file ends inside a packet' };
    const fraction = view.getUint32(at + 4, order.little);
    const frame = new Uint8Array(file, at + RECORD_HEADER, captured);
    const bytes = withoutLink(frame, link);
    if (bytes && capture.packets.length === most)
      return { ...capture, remark: 'the file has more packets, which were not read' };
    if (!bytes) capture.others++;
    else {
      capture.packets.push({
        seconds: view.getUint32(at, order.little),
        microseconds: order.nanoseconds ? Math.floor(fraction / 1000) : fraction,
        bytes,
        ...(captured < length && { cutFrom: length - link.length }),
      });
    }
    at += RECORD_HEADER + captured;
  }
  return capture;
}

/** Writes packets that begin with their IPv4 header. */
export function writePcap(packets: readonly Captured[]): Uint8Array<ArrayBuffer> {
  const length = packets.reduce((sum, { bytes }) => sum + RECORD_HEADER + bytes.length, FILE_HEADER);
  const file = new Uint8Array(length);
  const view = new DataView(file.buffer);
  view.setUint32(0, MICROSECONDS, true);
  view.setUint16(4, 2, true); // version 2.4
  view.setUint16(6, 4, true);
  view.setUint32(16, SNAP_LENGTH, true);
  view.setUint32(20, LINKTYPE_RAW, true);
  let at = FILE_HEADER;
  for (const { seconds, microseconds, bytes, cutFrom } of packets) {
    view.setUint32(at, seconds, true);
    view.setUint32(at + 4, microseconds, true);
    view.setUint32(at + 8, bytes.length, true);
    view.setUint32(at + 12, cutFrom ?? bytes.length, true);
    file.set(bytes, at + RECORD_HEADER);
    at += RECORD_HEADER + bytes.length;
  }
  return file;
}

function byteOrder(view: DataView): { little: boolean; nanoseconds: boolean } {
  if (view.byteLength < FILE_HEADER)
    throw new RangeError(`${view.byteLength} bytes: a pcap file has at least ${FILE_HEADER}`);
  for (const little of [true, false]) {
    const magic = view.getUint32(0, little);
    if (magic === MICROSECONDS || magic === NANOSECONDS) return { little, nanoseconds: magic === NANOSECONDS };
  }
  if (view.getUint32(0) === PCAPNG) {
    throw new RangeError('this is pcapng: tshark -F pcap -r FILE -w OTHER, or editcap -F pcap, makes a pcap of it');
  }
  throw new RangeError('this is no pcap file: it does not begin with a1b2c3d4 or a1b23c4d');
}

/** A copy of the IPv4 packet in a frame; undefined if it holds something else. */
function withoutLink(
  frame: Uint8Array<ArrayBuffer>,
  link: { length: number; type?: number },
): Captured['bytes'] | undefined {
  if (frame.length < link.length) return undefined;
  if (link.type !== undefined) {
    const type = ((frame[link.type] as number) << 8) | (frame[link.type + 1] as number);
    if (type !== ETHERTYPE_IPV4) return undefined;
  }
  const bytes = frame.slice(link.length, link.length + MOST_BYTES);
  // Ethernet fills short frames up: what lies behind the packet's own length is not the packet's.
  const total = bytes.length >= 4 ? ((bytes[2] as number) << 8) | (bytes[3] as number) : 0;
  return total >= 20 && total < bytes.length ? bytes.slice(0, total) : bytes;
}

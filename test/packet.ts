/** Packets for tests: made, taken apart, and cut as Linux cuts them, none of it with the core's own code. */

/** A UDP packet, more or less, of 28 + `size` bytes, all behind the IPv4 header counting up, with a right IPv4 header checksum. */
export function ipv4Packet(source: number, destination: number, size: number): Uint8Array {
  const packet = new Uint8Array(28 + size);
  const view = new DataView(packet.buffer);
  view.setUint16(0, 0x4500);
  view.setUint16(2, packet.length);
  view.setUint16(8, 0x4011); // TTL 64, UDP
  view.setUint32(12, source);
  view.setUint32(16, destination);
  for (let i = 20; i < packet.length; i++) packet[i] = i;
  view.setUint16(10, ~sum(packet.subarray(0, 20)) & 0xffff);
  return packet;
}

/** The ones-complement sum of 16-bit words (RFC 1071), not complemented. */
export function sum(bytes: Uint8Array, start = 0): number {
  let total = start;
  for (let i = 0; i < bytes.length; i++) total += (bytes[i] as number) << (i & 1 ? 0 : 8);
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const [FIN, SYN, RST, PSH, ACK, URG, ECE, CWR] = [1, 2, 4, 8, 16, 32, 64, 128] as const;
const [TCP, UDP] = [6, 17];

/** What a TCP or UDP packet is made of. What is not given is that of a plain packet from container 10.16.32.91 to 10.16.33.7. */
export interface Parts {
  protocol?: 6 | 17;
  source?: number;
  destination?: number;
  tos?: number;
  ttl?: number;
  id?: number;
  /** Flags and fragment offset. */
  fragment?: number;
  ipOptions?: readonly number[];
  sourcePort?: number;
  destinationPort?: number;
  sequence?: number;
  acknowledgement?: number;
  flags?: number;
  /** The four bits between data offset and flags. */
  reserved?: number;
  window?: number;
  urgent?: number;
  tcpOptions?: readonly number[];
  payload?: Uint8Array;
}

/** Bytes for a payload, of any length; `seed` makes them differ. */
export function payloadOf(length: number, seed = 0): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8) * 7 + seed * 101) & 255);
}

/** A packet with right lengths and checksums. Options are padded to whole words with zeros. */
export function packetOf(parts: Parts): Uint8Array<ArrayBuffer> {
  const protocol = parts.protocol ?? TCP;
  const words = (options: readonly number[] = []) => Math.ceil(options.length / 4) * 4;
  const [ip, transport] = [20 + words(parts.ipOptions), protocol === TCP ? 20 + words(parts.tcpOptions) : 8];
  const payload = parts.payload ?? payloadOf(100);
  const packet = new Uint8Array(ip + transport + payload.length);
  const view = new DataView(packet.buffer);
  packet.set([0x40 | (ip / 4), parts.tos ?? 0]);
  view.setUint16(2, packet.length);
  view.setUint16(4, parts.id ?? 1);
  view.setUint16(6, parts.fragment ?? DONT_FRAGMENT);
  packet.set([parts.ttl ?? 64, protocol], 8);
  view.setUint32(12, parts.source ?? 0x0a10205b);
  view.setUint32(16, parts.destination ?? 0x0a102107);
  packet.set(parts.ipOptions ?? [], 20);
  view.setUint16(ip, parts.sourcePort ?? 40000);
  view.setUint16(ip + 2, parts.destinationPort ?? 443);
  if (protocol === TCP) {
    view.setUint32(ip + 4, parts.sequence ?? 1);
    view.setUint32(ip + 8, parts.acknowledgement ?? 1);
    packet.set([((transport / 4) << 4) | (parts.reserved ?? 0), parts.flags ?? ACK], ip + 12);
    view.setUint16(ip + 14, parts.window ?? 500);
    view.setUint16(ip + 18, parts.urgent ?? 0);
    packet.set(parts.tcpOptions ?? [], ip + 20);
  } else {
    view.setUint16(ip + 4, 8 + payload.length);
  }
  packet.set(payload, ip + transport);
  return fixed(packet);
}

const headerLength = (packet: Uint8Array) => ((packet[0] as number) & 15) * 4;
const viewOf = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset, packet.length);
/** Where the checksum of the packet's protocol lies behind the IPv4 header. */
const checksumOffset = (packet: Uint8Array) => (packet[9] === TCP ? 16 : 6);

/** The sum of the pseudo header of a packet that ends with the IPv4 total length. */
export function pseudoSum(packet: Uint8Array): number {
  return sum(packet.subarray(12, 20), (packet[9] as number) + packet.length - headerLength(packet));
}

/** Puts the IPv4 and the TCP or UDP checksum right, in place. */
export function fixed<P extends Uint8Array>(packet: P): P {
  const [ip, view] = [headerLength(packet), viewOf(packet)];
  const at = ip + checksumOffset(packet);
  view.setUint16(10, 0);
  view.setUint16(10, ~sum(packet.subarray(0, ip)) & 0xffff);
  view.setUint16(at, 0);
  const check = ~sum(packet.subarray(ip), pseudoSum(packet)) & 0xffff;
  view.setUint16(at, packet[9] === UDP && check === 0 ? 0xffff : check);
  return packet;
}

/** The packet's transport checksum is right. */
export function verified(packet: Uint8Array): boolean {
  return sum(packet.subarray(headerLength(packet)), pseudoSum(packet)) === 0xffff;
}

/** A copy that has passed `hops` routers. */
export function forwarded(packet: Uint8Array, hops = 1): Uint8Array {
  const copy = packet.slice();
  copy[8] = (copy[8] as number) - hops;
  const view = viewOf(copy);
  view.setUint16(10, 0);
  view.setUint16(10, ~sum(copy.subarray(0, headerLength(copy))) & 0xffff);
  return copy;
}

export const VIRTIO_TCPV4 = 1;
export const VIRTIO_UDP_L4 = 5;
const VIRTIO_ECN = 0x80;

/** `struct virtio_net_hdr`; what is not given is 0. */
export interface Virtio {
  flags?: number;
  type?: number;
  headerLength?: number;
  size?: number;
  start?: number;
  offset?: number;
}

/** A virtio header and the packet behind it: what a TUN device with IFF_VNET_HDR reads and writes. */
export function frameOf(packet: Uint8Array, virtio: Virtio = {}): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(10 + packet.length);
  const view = new DataView(frame.buffer);
  frame.set([virtio.flags ?? 0, virtio.type ?? 0]);
  view.setUint16(2, virtio.headerLength ?? 0, true);
  view.setUint16(4, virtio.size ?? 0, true);
  view.setUint16(6, virtio.start ?? 0, true);
  view.setUint16(8, virtio.offset ?? 0, true);
  frame.set(packet, 10);
  return frame;
}

/** The packet as Linux gives it where the device is to make the checksum: the sum of the pseudo header in its field. */
export function partial(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  viewOf(copy).setUint16(headerLength(copy) + checksumOffset(copy), pseudoSum(copy));
  return copy;
}

/** Bytes of IPv4 and transport header. */
export function headersLength(packet: Uint8Array): number {
  const ip = headerLength(packet);
  return ip + (packet[9] === TCP ? ((packet[ip + 12] as number) >> 4) * 4 : 8);
}

/** The super-packet that a sender with segmentation offload hands to the device: to be cut every `size` bytes of payload. */
export function superFrame(parts: Parts, size: number): Uint8Array<ArrayBuffer> {
  const packet = partial(packetOf(parts));
  return frameOf(packet, {
    flags: 1,
    type:
      packet[9] === TCP
        ? VIRTIO_TCPV4 | (parts.flags !== undefined && parts.flags & CWR ? VIRTIO_ECN : 0)
        : VIRTIO_UDP_L4,
    headerLength: headersLength(packet),
    size,
    start: headerLength(packet),
    offset: checksumOffset(packet),
  });
}

/** What a super-packet is on the wire: inet_gso_segment, tcp_gso_segment and __udp_gso_segment in a few plain lines. */
export function cut(packet: Uint8Array, size: number): Uint8Array[] {
  const [ip, headers] = [headerLength(packet), headersLength(packet)];
  const whole = viewOf(packet);
  const segments: Uint8Array[] = [];
  for (let at = headers; at < packet.length; at += size) {
    const segment = Uint8Array.from([...packet.subarray(0, headers), ...packet.subarray(at, at + size)]);
    const view = viewOf(segment);
    view.setUint16(2, segment.length);
    view.setUint16(4, whole.getUint16(4) + segments.length);
    if (packet[9] === TCP) {
      view.setUint32(ip + 4, whole.getUint32(ip + 4) + at - headers);
      const flags = whole.getUint8(ip + 13);
      const last = at + size >= packet.length ? 0 : FIN | PSH;
      view.setUint8(ip + 13, flags & ~last & ~(segments.length > 0 ? CWR : 0));
    } else {
      view.setUint16(ip + 4, segment.length - ip);
    }
    segments.push(fixed(segment));
  }
  // Only one is not cut at all: skb_checksum_help, which knows no checksum of zero, completes it.
  const [only] = segments;
  const field = ip + checksumOffset(packet);
  if (only && segments.length === 1 && viewOf(only).getUint16(field) === 0) viewOf(only).setUint16(field, 0xffff);
  return segments;
}

/** `n` packets of a flow that follow each other, of `size` bytes of payload each. */
export const burst = (n: number, parts: Parts = {}, size = 100) =>
  cut(packetOf({ payload: payloadOf(n * size), ...parts }), size);

/** An underlay packet with GRE around `inner`, from one VM to another. `header` is the GRE header. */
export function grePacket(
  source: number,
  destination: number,
  inner: Uint8Array,
  header = [0, 0, 8, 0],
): Uint8Array<ArrayBuffer> {
  const packet = Uint8Array.from([...new Uint8Array(20), ...header, ...inner]);
  const view = new DataView(packet.buffer);
  packet.set([0x45, 0]);
  view.setUint16(2, packet.length);
  view.setUint16(6, DONT_FRAGMENT);
  packet.set([64, 47], 8);
  view.setUint32(12, source);
  view.setUint32(16, destination);
  view.setUint16(10, ~sum(packet.subarray(0, 20)) & 0xffff);
  return packet;
}

/** A change to the bytes of a packet or frame. */
export function edited(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

/** Edits what the IPv4 header's checksum covers and puts that right. */
export const editedHeader = (packet: Uint8Array, at: number, ...values: number[]) =>
  forwarded(edited(packet, at, ...values), 0);

// Fragments.

/** The length of the option at `at` in a header that ends at `end`; 0 if the list ends there. */
function optionLength(bytes: Uint8Array, at: number, end: number): number {
  const kind = bytes[at] as number;
  if (kind < 2) return kind;
  const length = at + 1 < end ? (bytes[at + 1] as number) : 0;
  return length >= 2 && at + length <= end ? length : 0;
}

/** The header of all fragments but the first: options that are not to be copied are no operations. */
function withoutOptions(header: Uint8Array): Uint8Array {
  const copy = header.slice();
  for (let at = 20, length = 0; at < copy.length; at += length) {
    length = optionLength(copy, at, copy.length);
    if (length === 0) break;
    if ((copy[at] as number) < 128) copy.fill(1, at, at + length);
  }
  return copy;
}

/** What a router makes of a packet without DF for a link of `mtu` bytes (RFC 791 §3.2, "an example fragmentation procedure"); itself, if it fits. */
export function fragmented(packet: Uint8Array, mtu: number): Uint8Array[] {
  const header = headerLength(packet);
  const flags = viewOf(packet).getUint16(6);
  const fragments: Uint8Array[] = [];
  for (let at = header, size = 0; at < packet.length; at += size) {
    const rest = packet.length - at;
    size = header + rest <= mtu ? rest : Math.floor((mtu - header) / 8) * 8;
    const own = at === header ? packet.subarray(0, header) : withoutOptions(packet.subarray(0, header));
    const fragment = Uint8Array.from([...own, ...packet.subarray(at, at + size)]);
    const more = at + size < packet.length ? MORE_FRAGMENTS : flags & MORE_FRAGMENTS;
    const view = viewOf(fragment);
    view.setUint16(2, fragment.length);
    view.setUint16(6, (flags & 0x8000) | more | (((flags & 0x1fff) + (at - header) / 8) & 0x1fff));
    fragments.push(forwarded(fragment, 0));
  }
  return fragments;
}

/** The packet that fragments are put together to, in any order (RFC 791 §3.2); undefined if something is missing, or twice there. */
export function reassembled(fragments: readonly Uint8Array[]): Uint8Array<ArrayBuffer> | undefined {
  const offset = (fragment: Uint8Array) => (viewOf(fragment).getUint16(6) & 0x1fff) * 8;
  const sorted = [...fragments].sort((a, b) => offset(a) - offset(b));
  const [first] = sorted;
  if (!first) return undefined;
  let data = 0;
  for (const [i, fragment] of sorted.entries()) {
    const isLast = (viewOf(fragment).getUint16(6) & MORE_FRAGMENTS) === 0;
    if (offset(fragment) !== data || isLast !== (i === sorted.length - 1)) return undefined;
    data += fragment.length - headerLength(fragment);
  }
  const packet = Uint8Array.from([
    ...first.subarray(0, headerLength(first)),
    ...sorted.flatMap((fragment) => [...fragment.subarray(headerLength(fragment))]),
  ]);
  viewOf(packet).setUint16(2, packet.length);
  viewOf(packet).setUint16(6, viewOf(packet).getUint16(6) & 0x8000);
  return forwarded(packet, 0) as Uint8Array<ArrayBuffer>;
}

// Outer headers and ICMP.

export interface Gre {
  key?: number | undefined;
  checksum?: boolean;
  sequence?: number | undefined;
}

const bytesOf = (number: number) => [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];

/** A GRE header (RFC 2784 §2.1, RFC 2890 §2) for the inner packet, its checksum right. */
export function greHeader({ key, checksum, sequence }: Gre, inner: Uint8Array): number[] {
  const flags = (checksum ? 0x80 : 0) | (key === undefined ? 0 : 0x20) | (sequence === undefined ? 0 : 0x10);
  const header = [flags, 0, 8, 0];
  if (checksum) header.push(0, 0, 0, 0);
  if (key !== undefined) header.push(...bytesOf(key));
  if (sequence !== undefined) header.push(...bytesOf(sequence));
  if (checksum) {
    const sum16 = ~sum(Uint8Array.from([...header, ...inner])) & 0xffff;
    header.splice(4, 2, sum16 >> 8, sum16 & 255);
  }
  return header;
}

/** What differs from an IPv4 header of 20 bytes with DF, TTL 64 and nothing else. */
export interface Outer {
  source: number;
  destination: number;
  tos?: number;
  id?: number;
  /** Flags and fragment offset. */
  flags?: number;
  ttl?: number;
  protocol?: number;
}

/** An IPv4 packet that carries `payload`, its header checksum right. */
export function ipv4Around(outer: Outer, payload: ArrayLike<number>): Uint8Array<ArrayBuffer> {
  const packet = new Uint8Array(20 + payload.length);
  const view = viewOf(packet);
  packet.set([0x45, outer.tos ?? 0]);
  view.setUint16(2, packet.length);
  view.setUint16(4, outer.id ?? 0);
  view.setUint16(6, outer.flags ?? DONT_FRAGMENT);
  packet.set([outer.ttl ?? 64, outer.protocol ?? 47], 8);
  view.setUint32(12, outer.source);
  view.setUint32(16, outer.destination);
  packet.set(payload, 20);
  view.setUint16(10, ~sum(packet.subarray(0, 20)) & 0xffff);
  return packet;
}

/** An ICMP message (RFC 792) of this type and code; `rest` are the 16 bits before what is quoted, the next hop's MTU. */
export function icmpMessage(
  type: number,
  code: number,
  rest: number,
  quoted: ArrayLike<number>,
): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(8 + quoted.length);
  message.set([type, code]);
  viewOf(message).setUint16(6, rest);
  message.set(quoted, 8);
  viewOf(message).setUint16(2, ~sum(message) & 0xffff);
  return message;
}

/** A packet of any protocol, from container 10.16.32.91 to 10.16.33.7, unless said otherwise; the payload is as it is given. */
export const packetAround = (outer: Partial<Outer>, payload: ArrayLike<number>) =>
  ipv4Around({ source: 0x0a10205b, destination: 0x0a102107, protocol: 17, ...outer }, payload);

/** Packets in place: made, mutated field by field, put right again, and wrapped in outer headers. None of it is the core's own code. */

export const [ICMP, TCP] = [1, 6];
const [UDP, GRE] = [17, 47];

/** Fields of each header: offset and bytes. */
const IPV4_FIELDS = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 2],
  [6, 2],
  [8, 1],
  [9, 1],
  [10, 2],
  [12, 4],
  [16, 4],
  [20, 1],
  [21, 1],
];
const TCP_FIELDS = [
  [0, 2],
  [2, 2],
  [4, 4],
  [8, 4],
  [12, 1],
  [13, 1],
  [14, 2],
  [16, 2],
  [18, 2],
  [20, 1],
  [21, 1],
];
const UDP_FIELDS = [
  [0, 2],
  [2, 2],
  [4, 2],
  [6, 2],
];
const OTHER_FIELDS = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 4],
];
export const GRE_FIELDS = [
  [0, 1],
  [0, 2],
  [1, 1],
  [2, 2],
  [4, 2],
  [4, 4],
  [6, 2],
  [8, 4],
  [12, 4],
];
export const VIRTIO_FIELDS = [
  [0, 1],
  [1, 1],
  [1, 1],
  [2, 2],
  [4, 2],
  [6, 2],
  [8, 2],
];

/** Where the field for the transport checksum is. */
const CHECKSUM = { [TCP]: 16, [UDP]: 6, [ICMP]: 2 };

const u16 = (bytes, at) => (bytes[at] << 8) | bytes[at + 1];

function put16(bytes, at, value) {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes, at, value) {
  put16(bytes, at, value >>> 16);
  put16(bytes, at + 2, value);
}

/** The ones-complement sum of 16-bit words (RFC 1071), not complemented. */
function sum(bytes, start, end, initial = 0) {
  let total = initial;
  let i = start;
  for (; i + 1 < end; i += 2) total += (bytes[i] << 8) | bytes[i + 1];
  if (i < end) total += bytes[i] << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

const pseudoSum = (bytes, at, length) => sum(bytes, at + 12, at + 20, bytes[at + 9] + length);

/** What a flow of packets is made of. One that is drawn anew is as good as a new one. */
export class Flow {
  draw(random, source, destination) {
    this.source = source;
    this.destination = destination;
    this.protocol = random.pick([TCP, TCP, TCP, UDP, UDP, ICMP]);
    this.sourcePort = random.pick([1, 2, 40000, 65535, random.below(65536)]);
    this.destinationPort = random.pick([80, 443, 4754]);
    this.id = random.pick([0, 1, 65500, 65534, random.below(65536)]);
    this.fragment = random.pick([0, 0x4000, 0x4000]);
    this.tos = random.chance(80) ? 0 : random.below(256);
    this.ttl = random.chance(80) ? 64 : random.pick([0, 1, 255]);
    this.sequence = random.pick([1, 0xffffff00, 0xffffffff, 0x7ffffffe, random.u32()]);
    this.acknowledgement = random.u32();
    this.flags = random.pick([0x10, 0x10, 0x10, 0x50]);
    this.ipOptions = random.chance(94) ? 0 : 4 * random.between(1, 10);
    this.tcpOptions = random.chance(70) ? 0 : random.chance(70) ? 12 : 4 * random.between(1, 10);
    this.option = random.below(256);
    this.window = random.below(65536);
    this.size = random.pick([1, 2, 7, 8, 40, 40, 99, 100, 100, 333, 333, 1000, 1400]);
    return this;
  }

  get headers() {
    return 20 + this.ipOptions + (this.protocol === TCP ? 20 + this.tcpOptions : 8);
  }
}

/** Puts the flow's next packet, with `size` bytes of payload, at `at`; all of it right. Returns its end. */
export function putPacket(bytes, at, flow, size, random) {
  const transport = at + 20 + flow.ipOptions;
  const payload = at + flow.headers;
  const end = payload + size;
  bytes[at] = 0x40 | (5 + flow.ipOptions / 4);
  bytes[at + 1] = flow.tos;
  put16(bytes, at + 2, end - at);
  put16(bytes, at + 4, flow.id);
  put16(bytes, at + 6, flow.fragment);
  bytes[at + 8] = flow.ttl;
  bytes[at + 9] = flow.protocol;
  put32(bytes, at + 12, flow.source);
  put32(bytes, at + 16, flow.destination);
  bytes.fill(flow.option, at + 20, payload);
  if (flow.protocol === ICMP) {
    put16(bytes, transport, 0x0800);
    put32(bytes, transport + 4, flow.sequence);
  } else {
    put16(bytes, transport, flow.sourcePort);
    put16(bytes, transport + 2, flow.destinationPort);
    put16(bytes, transport + 4, 8 + size);
  }
  if (flow.protocol === TCP) {
    put32(bytes, transport + 4, flow.sequence);
    put32(bytes, transport + 8, flow.acknowledgement);
    bytes[transport + 12] = (5 + flow.tcpOptions / 4) << 4;
    bytes[transport + 13] = flow.flags;
    put16(bytes, transport + 14, flow.window);
    put32(bytes, transport + 16, 0);
  }
  random.fill(bytes, payload, end);
  flow.id = (flow.id + 1) & 0xffff;
  flow.sequence = (flow.sequence + size) >>> 0;
  putRight(bytes, at, end);
  return end;
}

/** Where the header ends, as far as that makes sense. */
function headerEnd(bytes, at, end) {
  return Math.min(at + Math.max((bytes[at] & 15) * 4, 20), end);
}

/** The IPv4 header checksum put right. */
function putHeaderRight(bytes, at, end) {
  if (end - at < 20) return;
  put16(bytes, at + 10, 0);
  put16(bytes, at + 10, ~sum(bytes, at, headerEnd(bytes, at, end)));
}

/** Where the transport checksum of the packet is, if it has one; else 0. */
function checksumField(bytes, at, end) {
  if (end - at < 20) return 0;
  const field = headerEnd(bytes, at, end) + (CHECKSUM[bytes[at + 9]] ?? end);
  return field + 2 <= end ? field : 0;
}

/** All checksums put right; lengths are taken as they are. */
export function putRight(bytes, at, limit) {
  putHeaderRight(bytes, at, limit);
  const end = Math.min(at + u16(bytes, at + 2), limit);
  const field = checksumField(bytes, at, end);
  if (field === 0) return;
  const transport = headerEnd(bytes, at, end);
  put16(bytes, field, 0);
  const pseudo = bytes[at + 9] === ICMP ? 0 : pseudoSum(bytes, at, end - transport);
  const checksum = ~sum(bytes, transport, end, pseudo) & 0xffff;
  put16(bytes, field, checksum === 0 && bytes[at + 9] === UDP ? 0xffff : checksum);
}

/** The transport checksum left to the device: in its field, the sum of the pseudo header (CHECKSUM_PARTIAL). */
export function leaveOpen(bytes, at, limit) {
  const end = Math.min(at + u16(bytes, at + 2), limit);
  const field = checksumField(bytes, at, end);
  if (field !== 0) put16(bytes, field, pseudoSum(bytes, at, end - headerEnd(bytes, at, end)));
}

/** The last two bytes such that the transport checksum, or the identification such that the header's, comes out as 0, which has two forms. */
export function putZero(bytes, at, end, random) {
  if (random.chance(50)) {
    put16(bytes, at + 4, 0);
    putHeaderRight(bytes, at, end);
    put16(bytes, at + 4, u16(bytes, at + 10));
    putHeaderRight(bytes, at, end);
    if (random.chance(30)) put16(bytes, at + 10, 0xffff);
    return;
  }
  const field = checksumField(bytes, at, end);
  const last = end - 2 - ((end - headerEnd(bytes, at, end)) & 1);
  if (field === 0 || last < field + 2) return;
  put16(bytes, last, 0);
  putRight(bytes, at, end);
  put16(bytes, last, u16(bytes, field));
  putRight(bytes, at, end);
  if (random.chance(30)) put16(bytes, field, 0xffff ^ u16(bytes, field));
}

/** Sets one of the fields of a header at `at` to a value on the edge of something. `length`: bytes of what the header is about. */
export function mutateField(bytes, at, end, fields, random, length, littleEndian = false) {
  const [offset, size] = random.pick(fields);
  const place = at + offset;
  if (place + size > end) return;
  let value = 0;
  for (let i = 0; i < size; i++) value = ((value << 8) | bytes[place + (littleEndian ? size - 1 - i : i)]) >>> 0;
  value = edge(random, value, size, length);
  for (let i = 0; i < size; i++) bytes[place + (littleEndian ? i : size - 1 - i)] = value >>> (8 * i);
}

function edge(random, value, size, length) {
  const half = 2 ** (8 * size - 1);
  switch (random.below(9)) {
    case 0:
      return 0;
    case 1:
      return 2 * half - 1 - random.below(2);
    case 2:
      return half - random.below(2);
    case 3:
      return value + random.pick([1, -1, 4, -4, 8, -8]);
    case 4:
    case 5:
      return value ^ (1 << random.below(8 * size));
    case 6:
      return length + random.pick([0, 0, 1, -1, 8, -8, 20, -20]);
    case 7:
      return random.below(32);
    default:
      return random.u32();
  }
}

/** Changes a field or two of the IPv4 or the transport header. */
export function mutatePacket(bytes, at, end, random) {
  for (let n = random.chance(70) ? 1 : 3; n > 0; n--) {
    const transport = headerEnd(bytes, at, end);
    if (random.chance(50)) mutateField(bytes, at, end, IPV4_FIELDS, random, end - at);
    else {
      const protocol = bytes[at + 9];
      const fields = protocol === TCP ? TCP_FIELDS : protocol === UDP ? UDP_FIELDS : OTHER_FIELDS;
      mutateField(bytes, transport, end, fields, random, end - transport);
    }
  }
}

/** Puts IP options into a packet, behind its header. Returns its end. */
export function insertOptions(bytes, at, end, random) {
  const header = (bytes[at] & 15) * 4;
  const length = 4 * random.between(1, 3);
  if (end - at < 20 || header < 20 || header + length > 60 || at + header > end) return end;
  bytes.copyWithin(at + header + length, at + header, end);
  random.fill(bytes, at + header, at + header + length);
  bytes[at] += length / 4;
  put16(bytes, at + 2, u16(bytes, at + 2) + length);
  return end + length;
}

/** GRE before a packet, now and then with optional fields and not quite right. Returns where it starts. */
export function putGre(bytes, at, end, random, key) {
  const checksum = random.chance(8);
  const keyed = (key !== undefined) === random.chance(98);
  const sequence = random.chance(6);
  const start = at - 4 - 4 * (checksum + keyed + sequence);
  let next = start + 4;
  put16(bytes, start, checksum * 0x8000 + keyed * 0x2000 + sequence * 0x1000);
  put16(bytes, start + 2, 0x0800);
  if (checksum) {
    put32(bytes, next, 0);
    next += 4;
  }
  if (keyed) {
    put32(bytes, next, key ?? 0);
    next += 4;
  }
  if (sequence) put32(bytes, next, random.next());
  if (random.chance(6)) mutateField(bytes, start, at, GRE_FIELDS, random, end - start);
  if (random.chance(95)) putGreRight(bytes, start, end);
  return start;
}

/** The GRE checksum put right, if there is one. */
export function putGreRight(bytes, start, end) {
  if ((bytes[start] & 0x80) === 0 || end - start < 6) return;
  put16(bytes, start + 4, 0);
  put16(bytes, start + 4, ~sum(bytes, start, end));
}

/** An outer IPv4 header before GRE. Returns where it starts. */
export function putOuter(bytes, at, end, random, source, destination) {
  const options = random.chance(96) ? 0 : 4 * random.between(1, 10);
  const start = at - 20 - options;
  bytes.fill(1, start, at);
  bytes[start] = 0x45 + options / 4;
  bytes[start + 1] = random.chance(80) ? 0 : random.below(256);
  put16(bytes, start + 2, end - start);
  put32(bytes, start + 4, 0x4000);
  bytes[start + 8] = 64;
  bytes[start + 9] = GRE;
  put32(bytes, start + 12, source);
  put32(bytes, start + 16, destination);
  if (random.chance(8)) mutateField(bytes, start, at, IPV4_FIELDS, random, end - start);
  if (random.chance(98)) putHeaderRight(bytes, start, end);
  return start;
}

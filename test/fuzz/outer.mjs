/** What goes before packets on the underlay: GRE, UDP, IPv4, and the ICMP messages that quote all this. */
import { put16, put32, sum } from './bytes.mjs';
import { GRE_FIELDS, IPV4_FIELDS, mutateField } from './mutate.mjs';
import { GRE, ICMP, putHeaderRight } from './packets.mjs';

const GRE_UDP_PORT = 4754;
const FIRST_SOURCE_PORT = 49152;
/** Bytes of UDP's header, and of ICMP's. */
const SHORT = 8;

/** GRE before a packet, as the configuration wants it, now and then with other fields and not quite right. Returns where it starts. */
export function putGre(bytes, at, end, random, config, number) {
  const checksum = random.chance(8);
  const keyed = (config.key !== undefined) === random.chance(98);
  const sequence = random.chance(config.greSequence ? 95 : 6);
  const start = at - 4 - 4 * (checksum + keyed + sequence);
  let next = start + 4;
  put16(bytes, start, checksum * 0x8000 + keyed * 0x2000 + sequence * 0x1000);
  put16(bytes, start + 2, 0x0800);
  if (checksum) {
    put32(bytes, next, 0);
    next += 4;
  }
  if (keyed) {
    put32(bytes, next, config.key ?? 0);
    next += 4;
  }
  if (sequence) put32(bytes, next, number);
  if (random.chance(6)) mutateField(bytes, start, at, GRE_FIELDS, random, end - start);
  if (random.chance(95)) putGreRight(bytes, start, end);
  return start;
}

/** The GRE header that a core puts before a packet, but for what it counts. Returns where it starts. */
export function putOwnGre(bytes, at, end, { key, greChecksum: checksum = false, greSequence: sequence = false }) {
  const keyed = key !== undefined;
  const start = at - 4 - 4 * (checksum + keyed + sequence);
  put16(bytes, start, checksum * 0x8000 + keyed * 0x2000 + sequence * 0x1000);
  put16(bytes, start + 2, 0x0800);
  bytes.fill(0, start + 4, at);
  if (keyed) put32(bytes, start + 4 + 4 * checksum, key);
  putGreRight(bytes, start, end);
  return start;
}

/** The GRE checksum put right, if there is one. */
export function putGreRight(bytes, start, end) {
  if ((bytes[start] & 0x80) === 0 || end - start < 6) return;
  put16(bytes, start + 4, 0);
  put16(bytes, start + 4, ~sum(bytes, start, end));
}

/** UDP before GRE, as a kernel would put it for one of the core's ports. `length`: bytes of GRE and packet. Returns where it starts. */
export function putUdp(bytes, at, length, port) {
  const start = at - SHORT;
  put16(bytes, start, FIRST_SOURCE_PORT + port);
  put16(bytes, start + 2, GRE_UDP_PORT);
  put16(bytes, start + 4, SHORT + length);
  put16(bytes, start + 6, 0);
  return start;
}

/** An IPv4 header without options for `length` bytes behind it. Returns where it starts. */
export function putIpv4(bytes, at, length, { source, destination, protocol, tos = 0 }) {
  const start = at - 20;
  bytes[start] = 0x45;
  bytes[start + 1] = tos;
  put16(bytes, start + 2, 20 + length);
  put32(bytes, start + 4, 0x4000);
  bytes[start + 8] = 64;
  bytes[start + 9] = protocol;
  put32(bytes, start + 12, source);
  put32(bytes, start + 16, destination);
  putHeaderRight(bytes, start, at);
  return start;
}

/** The outer IPv4 header before GRE or ICMP, now and then with options or not quite right. Returns where it starts. */
export function putOuter(bytes, at, end, random, fields) {
  let start = putIpv4(bytes, at, end - at, { protocol: GRE, ...fields });
  if (random.chance(4)) {
    const options = 4 * random.between(1, 10);
    bytes.copyWithin(start - options, start, at);
    bytes.fill(1, at - options, at);
    start -= options;
    bytes[start] += options / 4;
    put16(bytes, start + 2, end - start);
    putHeaderRight(bytes, start, end);
  }
  if (random.chance(8)) {
    mutateField(bytes, start, at, IPV4_FIELDS, random, end - start);
    if (random.chance(80)) putHeaderRight(bytes, start, end);
  }
  return start;
}

/** An ICMP message about the packet that begins at `quote`. Returns where its IPv4 header starts. */
export function putUnreachable(bytes, quote, end, random, { type, code, mtu, source, destination }) {
  const icmp = quote - SHORT;
  put16(bytes, icmp, (type << 8) | code);
  put16(bytes, icmp + 2, 0);
  put16(bytes, icmp + 4, random.chance(90) ? 0 : random.below(65536));
  put16(bytes, icmp + 6, mtu);
  if (random.chance(97)) put16(bytes, icmp + 2, ~sum(bytes, icmp, end));
  return putOuter(bytes, icmp, end, random, { source, destination, protocol: ICMP });
}

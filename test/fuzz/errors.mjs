/** ICMP messages from the underlay: mostly about packets that the core did send, some about others. */
import { GRE_FIELDS, IPV4_FIELDS, mutateField, UDP_FIELDS } from './mutate.mjs';
import { putIpv4, putOwnGre, putUdp, putUnreachable } from './outer.mjs';
import { GRE, UDP } from './packets.mjs';

const FRAGMENTATION_NEEDED = 4;
const TYPES = [0, 4, 5, 8, 11, 12];
export const MTUS = [
  0, 0, 0, 1, 67, 68, 69, 92, 100, 296, 508, 551, 552, 553, 576, 600, 1006, 1300, 1300, 1400, 1492, 65535,
];
/** What routers quote at least, with IPv4 options or without: the header, and 8 bytes. */
const LEAST_QUOTE = 28;

/** Puts what is quoted of a packet at `at`, as the core sent it. Returns its end. */
export function putQuote(bytes, at, random, sent) {
  bytes.set(sent, at);
  const rest = sent.length;
  if (random.chance(45)) return at + rest;
  return at + Math.min(random.chance(50) ? LEAST_QUOTE : random.below(rest + 1), rest);
}

/** Puts what a core would put before the packet at `at`. Returns where that starts. */
export function putOwn(bytes, at, end, random, { config, local }, peer) {
  let start = putOwnGre(bytes, at, end, config);
  const isUdp = config.encapsulation === 'gre-udp';
  if (isUdp) start = putUdp(bytes, start, end - start, random.below(8));
  return putIpv4(bytes, start, end - start, { source: local, destination: peer, protocol: isUdp ? UDP : GRE });
}

/** Puts an ICMP message before the quote; its packet, now and then, is not quite ours. Returns where it starts. */
export function putError(bytes, quote, end, random, { local }) {
  const length = end - quote;
  const total = (bytes[quote + 2] << 8) | bytes[quote + 3];
  const vm =
    ((bytes[quote + 16] << 24) | (bytes[quote + 17] << 16) | (bytes[quote + 18] << 8) | bytes[quote + 19]) >>> 0;
  if (random.chance(20)) mutateQuote(bytes, quote, end, random);
  const mtu = random.chance(85) ? random.pick(MTUS) : total + random.pick([-1, 0, 1, -100]);
  return putUnreachable(bytes, quote, end, random, {
    type: random.chance(97) ? 3 : random.pick(TYPES),
    code: random.chance(60) ? FRAGMENTATION_NEEDED : random.chance(80) ? random.below(16) : random.below(256),
    mtu: random.chance(95) ? mtu & 0xffff : random.below(65536),
    source: length >= 20 && random.chance(60) ? vm : random.pick([0x0a0000fe, local, random.u32()]),
    destination: random.chance(97) ? local : random.u32(),
  });
}

/** Changes a field of one of the headers that are quoted. */
function mutateQuote(bytes, quote, end, random) {
  const outer = quote + 20;
  const [at, fields] = random.pick([
    [quote, IPV4_FIELDS],
    [outer, GRE_FIELDS],
    [outer, UDP_FIELDS],
    [outer + 8, GRE_FIELDS],
    [outer + random.pick([4, 8, 12, 16, 20, 24]), IPV4_FIELDS],
  ]);
  mutateField(bytes, at, end, fields, random, end - at);
}

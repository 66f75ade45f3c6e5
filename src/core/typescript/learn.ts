/**
 * Learning: ICMP messages from the underlay tell what became of outer packets (RFC 792; path MTU discovery, RFC 1191).
 * Anybody can send such, so only those are believed that quote what this VM may have sent (compare RFC 5927 §4).
 */
import * as abi from '../abi.ts';
import { getU16, getU32, loadU8, type Memory } from './bytes.ts';
import { verifies } from './checksum.ts';
import * as config from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import * as descriptor from './descriptor.ts';
import { firstWord, greLength, keyOffset, PROTOCOL_GRE } from './gre.ts';
import * as icmp from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isUnderlay, senderOf } from './mapping.ts';
import { limitOf, lowerPathMtu, markUnreachable } from './paths.ts';
import { relay } from './replies.ts';
import { PROTOCOL_UDP, UDP_LENGTH } from './transport.ts';
import { findTunnel } from './tunnels.ts';

/** "the internet header plus the first 64 bits of the original datagram's data" are quoted at least (RFC 792), in bytes. */
const MIN_QUOTED_DATA = 8;
/** The dynamic ports, of which the source ports of GRE-in-UDP are (RFC 8086 §3.2). */
const FIRST_DYNAMIC_PORT = 49152;
/** What the next smaller MTU may be, where a router does not tell (RFC 1191 §7.1), in bytes. */
const PLATEAUS = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/** Reads one message and counts it. Returns the verdict. */
export function learnFrom(memory: Memory, d: number, now: number): number {
  const verdict = listen(memory, d, now);
  if (verdict < 0) return countDropped(memory, abi.ICMP_COUNTERS, verdict);
  countForwarded(memory, abi.ICMP_COUNTERS, 1, ipv4.totalLength(memory, descriptor.address(memory, d)));
  return verdict;
}

/** What happens to a message, in order. */
function listen(memory: Memory, d: number, now: number): number {
  if (!descriptor.isInside(memory, d)) return abi.DROP_BAD_DESCRIPTOR;
  const outer = descriptor.address(memory, d);
  const check = ipv4.checkIpv4(memory, outer, descriptor.bytes(memory, d));
  if (check !== abi.FORWARD) return check;
  if (ipv4.protocol(memory, outer) !== icmp.PROTOCOL_ICMP) return abi.DROP_FOREIGN_ICMP;
  if (ipv4.isFragment(memory, outer)) return abi.DROP_FRAGMENT;
  if (ipv4.destination(memory, outer) !== config.local(memory)) return abi.DROP_NOT_FOR_US;
  // Containers are not asked about the underlay.
  const isContainer = findMapping(memory, ipv4.source(memory, outer)) !== 0;
  if (isContainer) return abi.DROP_FOREIGN_ICMP;

  const p = outer + ipv4.headerLength(memory, outer);
  const end = outer + ipv4.totalLength(memory, outer);
  if (end - p < icmp.ICMP_LENGTH) return abi.DROP_TRUNCATED;
  if (!verifies(memory, p, end - p)) return abi.DROP_ICMP_CHECKSUM;
  const code = icmp.icmpCode(memory, p);
  if (icmp.icmpType(memory, p) !== icmp.DESTINATION_UNREACHABLE || code > icmp.LAST_CODE) return abi.DROP_FOREIGN_ICMP;

  const quote = p + icmp.ICMP_LENGTH;
  const tunnel = tunnelOf(memory, quote, end);
  if (tunnel === 0) return abi.DROP_FOREIGN_ICMP;
  const vm = ipv4.destination(memory, quote);
  // Of protocols and ports only a host itself knows.
  const isOfHost = code === icmp.PROTOCOL_UNREACHABLE || code === icmp.PORT_UNREACHABLE;
  if (isOfHost && ipv4.source(memory, outer) !== vm) return abi.DROP_FOREIGN_ICMP;

  if (code === icmp.FRAGMENTATION_NEEDED) {
    // Who said that, if we let packets be fragmented?
    const isAsked = !config.hasOption(memory, abi.OPTION_MAY_FRAGMENT);
    if (!isAsked || !ipv4.isDontFragment(memory, quote)) return abi.DROP_FOREIGN_ICMP;
    const mtu = mtuOf(memory, p, ipv4.totalLength(memory, quote));
    if (mtu === 0) return abi.DROP_FOREIGN_ICMP;
    lowerPathMtu(memory, tunnel, vm, mtu, now);
    tell(memory, quote, end, vm, code, limitOf(memory, tunnel, vm, now), now);
  } else {
    markUnreachable(memory, tunnel, vm, code, now);
    tell(memory, quote, end, vm, icmp.HOST_UNREACHABLE, 0, now);
  }
  descriptor.setPeer(memory, d, vm);
  return abi.FORWARD;
}

/** Takes it from the host that outer packets to `vm`, if there is a tunnel to it, have at most `mtu` bytes. */
export function narrowTunnel(memory: Memory, vm: number, mtu: number, now: number): void {
  const tunnel = findTunnel(memory, vm);
  if (tunnel !== 0) lowerPathMtu(memory, tunnel, vm, mtu, now);
}

/**
 * Tells the container whose packet the outer packet at `quote` carried to `vm`, if enough of it is quoted before `end` (RFC
 * 2003 §4: the encapsulator relays what it is told).
 */
function tell(memory: Memory, quote: number, end: number, vm: number, code: number, mtu: number, now: number): void {
  const gre = quote + ipv4.headerLength(memory, quote) + (config.isGreUdp(memory) ? UDP_LENGTH : 0);
  const inner = gre + greLength(memory);
  const quoted = end - inner;
  if (quoted < ipv4.IPV4_LENGTH + MIN_QUOTED_DATA || !ipv4.isIpv4(memory, inner)) return;
  const header = ipv4.headerLength(memory, inner);
  const total = ipv4.totalLength(memory, inner);
  if (header < ipv4.IPV4_LENGTH || total < header || quoted < header + MIN_QUOTED_DATA) return;
  if (senderOf(memory, ipv4.source(memory, inner)) !== config.local(memory)) return;
  if (senderOf(memory, ipv4.destination(memory, inner)) !== vm) return;
  if (code === icmp.FRAGMENTATION_NEEDED && !ipv4.isDontFragment(memory, inner)) return;
  relay(memory, inner, Math.min(quoted, total), code, mtu, now);
}

/** The tunnel of the packet of which the bytes from `quote` to `end` are the beginning; 0 if this VM has not sent it. */
function tunnelOf(memory: Memory, quote: number, end: number): number {
  if (end - quote < ipv4.IPV4_LENGTH || !ipv4.isIpv4(memory, quote)) return 0;
  const header = ipv4.headerLength(memory, quote);
  if (header < ipv4.IPV4_LENGTH || end - quote < header + MIN_QUOTED_DATA) return 0;
  const local = config.local(memory);
  if (ipv4.source(memory, quote) !== local || ipv4.isLaterFragment(memory, quote)) return 0;
  const vm = ipv4.destination(memory, quote);
  if (vm === 0 || vm === local || !isUnderlay(memory, vm)) return 0;
  return isOurs(memory, quote, quote + header, end) ? findTunnel(memory, vm) : 0;
}

/** Whether the bytes from `p` to `end`, behind the IPv4 header at `quote`, are such as this VM sends. */
function isOurs(memory: Memory, quote: number, p: number, end: number): boolean {
  const protocol = ipv4.protocol(memory, quote);
  if (!config.isGreUdp(memory)) return protocol === PROTOCOL_GRE && isOurGre(memory, p, end);
  return (
    protocol === PROTOCOL_UDP &&
    getU16(memory, p) >= FIRST_DYNAMIC_PORT &&
    getU16(memory, p + 2) === abi.GRE_UDP_PORT &&
    isOurGre(memory, p + UDP_LENGTH, end)
  );
}

/** Whether the GRE header at `p`, as far as it is there, is one that this VM sends. */
function isOurGre(memory: Memory, p: number, end: number): boolean {
  if (!isWord(memory, p, end, firstWord(memory))) return false;
  const isKeyed = config.hasOption(memory, abi.OPTION_KEY);
  return !isKeyed || isWord(memory, p + keyOffset(memory), end, config.key(memory));
}

/** Whether the 32 bits at `p`, in network order, are `word`, as far as they lie before `end`. */
function isWord(memory: Memory, p: number, end: number, word: number): boolean {
  if (end - p >= 4) return getU32(memory, p) === word;
  for (let i = 0; i < end - p; i++) {
    if (loadU8(memory, p + i) !== ((word >>> (24 - 8 * i)) & 0xff)) return false;
  }
  return true;
}

/** The MTU that the message at `p` tells about a packet of `total` bytes; 0 if it makes no sense. */
function mtuOf(memory: Memory, p: number, total: number): number {
  const told = icmp.nextHopMtu(memory, p);
  const mtu = told === 0 ? plateauBelow(total) : told;
  return mtu >= ipv4.MIN_MTU && mtu < total ? mtu : 0;
}

function plateauBelow(total: number): number {
  return PLATEAUS.find((plateau) => plateau < total) ?? 0;
}

/**
 * What ICMP messages from the underlay say of tunnels: that packets are too long for the path (RFC 1191), or that a VM cannot be reached. They are believed
 * only if the packet that they quote is one of ours (compare RFC 5927 §4), and passed on to the container whose packet it was (RFC 2003 §4).
 */
import {
  DROP_BAD_DESCRIPTOR,
  DROP_FOREIGN_ICMP,
  DROP_FRAGMENT,
  DROP_ICMP_CHECKSUM,
  DROP_NOT_FOR_US,
  DROP_TRUNCATED,
  FORWARD,
  GRE_UDP_PORT,
  ICMP_COUNTERS,
  OPTION_KEY,
  OPTION_MAY_FRAGMENT,
} from '../src/core/abi';
import { getU16 } from './bytes';
import { verifies } from './checksum';
import { hasOption, isGreUdp, key, local } from './config';
import { countDropped, countForwarded } from './counters';
import { address, bytes, isInside, setPeer } from './descriptor';
import { firstWord, greLength, keyOffset, PROTOCOL_GRE } from './gre';
import {
  DESTINATION_UNREACHABLE,
  FRAGMENTATION_NEEDED,
  HOST_UNREACHABLE,
  ICMP_LENGTH,
  icmpCode,
  icmpType,
  LAST_CODE,
  nextHopMtu,
  PORT_UNREACHABLE,
  PROTOCOL_ICMP,
  PROTOCOL_UNREACHABLE,
} from './icmp';
import {
  checkIpv4,
  destination,
  headerLength,
  IPV4_LENGTH,
  isDontFragment,
  isFragment,
  isIpv4,
  isLaterFragment,
  MIN_MTU,
  protocol,
  source,
  totalLength,
} from './ipv4';
import { findMapping, isUnderlay, senderOf } from './mapping';
import { limitOf, lowerPathMtu, markUnreachable } from './paths';
import { relay } from './replies';
import { PROTOCOL_UDP, UDP_LENGTH } from './transport';
import { findTunnel } from './tunnels';

// From the specifications.
/** What every router quotes behind the IPv4 header (RFC 792). */
const MIN_QUOTE: i32 = 8;
/** "it is RECOMMENDED that the source port be in the ephemeral port range" (RFC 8086 §3.2.1). */
const FIRST_SOURCE_PORT: u32 = 49152;

/** Reads the ICMP message of descriptor `d`, and counts it; answers the verdict. */
export function learnFrom(d: usize, now: f64): i32 {
  if (!isInside(d)) return drop(DROP_BAD_DESCRIPTOR);
  const p = <usize>address(d);
  const bad = checkIpv4(p, <i32>bytes(d));
  if (bad !== FORWARD) return drop(bad);
  if (protocol(p) !== PROTOCOL_ICMP) return drop(DROP_FOREIGN_ICMP);
  if (isFragment(p)) return drop(DROP_FRAGMENT);
  if (destination(p) !== local()) return drop(DROP_NOT_FOR_US);
  // Not from the underlay: a container of some VM speaks there.
  if (findMapping(source(p)) !== 0) return drop(DROP_FOREIGN_ICMP);
  const icmp = p + <usize>headerLength(p);
  const length = totalLength(p) - headerLength(p);
  if (length < ICMP_LENGTH) return drop(DROP_TRUNCATED);
  if (!verifies(icmp, length)) return drop(DROP_ICMP_CHECKSUM);

  const code = icmpCode(icmp);
  if (icmpType(icmp) !== DESTINATION_UNREACHABLE || code > LAST_CODE) return drop(DROP_FOREIGN_ICMP);
  const quote = icmp + ICMP_LENGTH;
  if (!isOurs(quote, length - ICMP_LENGTH)) return drop(DROP_FOREIGN_ICMP);
  const vm = destination(quote);
  const tunnel = findTunnel(vm);
  if (tunnel === 0) return drop(DROP_FOREIGN_ICMP);
  if (code === FRAGMENTATION_NEEDED) {
    if (hasOption(OPTION_MAY_FRAGMENT) || !isDontFragment(quote)) return drop(DROP_FOREIGN_ICMP);
    const sent = totalLength(quote);
    const told = nextHopMtu(icmp);
    const mtu = told === 0 ? plateauBelow(sent) : told;
    if (mtu < MIN_MTU || mtu >= sent) return drop(DROP_FOREIGN_ICMP);
    lowerPathMtu(tunnel, vm, mtu, now);
    tell(quote, length - ICMP_LENGTH, vm, FRAGMENTATION_NEEDED, limitOf(tunnel, vm, now), now);
  } else {
    // That a protocol or a port is not served, only the host itself can say.
    if ((code === PROTOCOL_UNREACHABLE || code === PORT_UNREACHABLE) && source(p) !== vm)
      return drop(DROP_FOREIGN_ICMP);
    markUnreachable(tunnel, vm, code, now);
    tell(quote, length - ICMP_LENGTH, vm, HOST_UNREACHABLE, 0, now);
  }
  countForwarded(ICMP_COUNTERS, 1, totalLength(p));
  setPeer(d, vm);
  return FORWARD;
}

/** Takes the host's word for it that outer packets to `vm` have at most `mtu` bytes. */
export function narrowTunnel(vm: u32, mtu: i32, now: f64): void {
  const tunnel = findTunnel(vm);
  if (tunnel !== 0) lowerPathMtu(tunnel, vm, mtu, now);
}

/** Whether the beginning of a packet at `q`, of which `length` bytes are there, is one that this VM sends to another. */
function isOurs(q: usize, length: i32): bool {
  if (length < IPV4_LENGTH || !isIpv4(q)) return false;
  const header = headerLength(q);
  if (header < IPV4_LENGTH || length < header + MIN_QUOTE) return false;
  const vm = destination(q);
  if (source(q) !== local() || vm === local() || !isUnderlay(vm) || isLaterFragment(q)) return false;
  const payload = q + <usize>header;
  if (!isGreUdp()) return protocol(q) === PROTOCOL_GRE && isOurGre(payload, length - header);
  if (protocol(q) !== PROTOCOL_UDP || getU16(payload) < FIRST_SOURCE_PORT) return false;
  return getU16(payload + 2) === GRE_UDP_PORT && isOurGre(payload + UDP_LENGTH, length - header - UDP_LENGTH);
}

/** Tells the container whose packet is inside ours at `q`, which went to `vm`, if so much of it is among the `length` bytes there (RFC 2003 §4). */
function tell(q: usize, length: i32, vm: u32, code: u32, mtu: i32, now: f64): void {
  const outer = headerLength(q) + (isGreUdp() ? UDP_LENGTH : 0) + greLength();
  const p = q + <usize>outer;
  const rest = length - outer;
  if (rest < IPV4_LENGTH + MIN_QUOTE || !isIpv4(p)) return;
  if (headerLength(p) < IPV4_LENGTH || rest < headerLength(p) + MIN_QUOTE || totalLength(p) < headerLength(p)) return;
  if (senderOf(source(p)) !== local() || senderOf(destination(p)) !== vm) return;
  if (code === FRAGMENTATION_NEEDED && !isDontFragment(p)) return;
  relay(p, min(rest, totalLength(p)), code, mtu, now);
}

/** Whether the beginning of a GRE header at `p` is ours, as far as it is there: `length` bytes. */
function isOurGre(p: usize, length: i32): bool {
  if (!startsWord(p, length, firstWord())) return false;
  const at = keyOffset();
  return !hasOption(OPTION_KEY) || startsWord(p + <usize>at, length - at, key());
}

/** Whether the `length` bytes at `p`, or those of the first 4 that are there, are those of `word`. */
function startsWord(p: usize, length: i32, word: u32): bool {
  for (let i = 0; i < min(length, 4); i++) {
    if (<u32>load<u8>(p + <usize>i) !== ((word >> (24 - 8 * i)) & 0xff)) return false;
  }
  return true;
}

/** What a router that does not tell its MTU may have: the next smaller one of those that were common (RFC 1191 §7.1); 0 if there is none. */
function plateauBelow(length: i32): i32 {
  if (length > 32000) return 32000;
  if (length > 17914) return 17914;
  if (length > 8166) return 8166;
  if (length > 4352) return 4352;
  if (length > 2002) return 2002;
  if (length > 1492) return 1492;
  if (length > 1006) return 1006;
  if (length > 508) return 508;
  if (length > 296) return 296;
  return length > 68 ? 68 : 0;
}

function drop(reason: i32): i32 {
  return countDropped(ICMP_COUNTERS, reason);
}

/**
 * Underlay to container: packets are checked and lose their outer headers.
 *
 * The inner source fixes the only legal outer source, so a spoofed packet is seen without any table (compare RFC 5969 §12).
 */
import {
  DROP_BAD_DESCRIPTOR,
  DROP_ECN,
  DROP_FOREIGN_DESTINATION,
  DROP_FOREIGN_UNDERLAY,
  DROP_FRAGMENT,
  DROP_GRE_SEQUENCE,
  DROP_MERGED,
  DROP_NESTED_GRE,
  DROP_NOT_FOR_US,
  DROP_NOT_GRE,
  DROP_OVER_SHARE,
  DROP_RESERVED_ADDRESS,
  DROP_SPOOFED_SOURCE,
  DROP_TOO_LONG,
  FORWARD,
  INBOUND_COUNTERS,
  INBOUND_SHARES,
  MESSAGES,
  NOT_MERGED,
  OPTION_CLAMP_MSS,
  OPTION_SEQUENCE,
  TUNNEL_INBOUND_BYTES,
  TUNNEL_INBOUND_PACKETS,
  TUNNEL_SEQUENCE_IN,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { canClamp, clampMss } from './clamp';
import { local, options } from './config';
import { countDropped, countForwarded } from './counters';
import { address, bytes, isInside, merged, outerTos, peer, segment, setPeer } from './descriptor';
import { checkGre, GRE_MIN_LENGTH, isInSequence, PROTOCOL_GRE, sequenceOf, statedLength } from './gre';
import {
  checkIpv4,
  destination,
  headerLength,
  IPV4_LENGTH,
  isFragment,
  protocol,
  source,
  totalLength,
  typeOfService,
} from './ipv4';
import { findMapping, isReserved, isUnderlay, senderOf, vmIn } from './mapping';
import { deliver } from './merge';
import { bytesOf, isCutHere, isUndividable, packetsOf, segmentSize } from './merged';
import { messageCount, NO_ROOM } from './messages';
import { limitOf, markReachable } from './paths';
import { demandShare, hasShares, isOverShare, takeShare, workOf } from './shares';
import { isLost, receiveTos } from './tos';
import { openChecksum } from './transport';
import { useTunnel } from './tunnels';

/** Decapsulates the packet or the datagrams of descriptor `d` into messages, and counts them; answers the verdict, or NO_ROOM. */
export function decapsulatePackets(d: usize, now: f64): i32 {
  if (!isInside(d)) return drop(DROP_BAD_DESCRIPTOR);
  const size = segment(d);
  if (size === 0) {
    if (messageCount(0) >= MESSAGES) return NO_ROOM;
    const verdict = decapsulatePacket(<usize>address(d), <i32>bytes(d), merged(d), now);
    if (verdict === FORWARD) setPeer(d, source(<usize>address(d)));
    return verdict;
  }
  const length = bytes(d);
  const datagrams: u32 = length === 0 ? 1 : (length - 1) / size + 1;
  if (datagrams > <u32>MESSAGES) return drop(DROP_BAD_DESCRIPTOR);
  if (messageCount(0) + <i32>datagrams > MESSAGES) return NO_ROOM;
  // Linux does not merge what it merged before.
  const known = datagrams === 1 ? merged(d) : NOT_MERGED;
  return decapsulateDatagrams(<usize>address(d), length, size, peer(d), outerTos(d), known, now);
}

/** The VM that sent what descriptor `d` describes, unchecked. */
export function likelySender(d: usize): u32 {
  if (segment(d) !== 0) return peer(d);
  return isInside(d) && bytes(d) >= <u32>IPV4_LENGTH ? source(<usize>address(d)) : 0;
}

/** Notes the sources of what descriptor `d` describes, if they may be whose they say, and how much work they make. */
export function demandInbound(d: usize): void {
  if (!isInside(d)) return;
  const p = <usize>address(d);
  const length = bytes(d);
  const size = segment(d);
  if (size !== 0) {
    if (length === 0 || (length - 1) / size + 1 > <u32>MESSAGES) return;
    for (let offset: u32 = 0; offset < length; offset += size) {
      demandGre(p + <usize>offset, <i32>min(size, length - offset), peer(d));
    }
  } else if (length >= <u32>IPV4_LENGTH && headerLength(p) <= totalLength(p) && <u32>totalLength(p) <= length) {
    demandGre(p + <usize>headerLength(p), totalLength(p) - headerLength(p), source(p));
  }
}

/** The same of the GRE packet at `gre`, `length` bytes, that came from `vm`. */
function demandGre(gre: usize, length: i32, vm: u32): void {
  if (length < GRE_MIN_LENGTH) return;
  const header = statedLength(gre);
  if (length < header + IPV4_LENGTH) return;
  const p = gre + <usize>header;
  if (vm === 0 || senderOf(source(p)) !== vm) return;
  demandShare(INBOUND_SHARES, source(p), workOf(min(totalLength(p), length - header), 0));
}

/** One packet with its outer IPv4 header. */
function decapsulatePacket(p: usize, available: i32, merged: u32, now: f64): i32 {
  const bad = checkIpv4(p, available);
  if (bad !== FORWARD) return drop(bad);
  if (protocol(p) !== PROTOCOL_GRE) return drop(DROP_NOT_GRE);
  if (isFragment(p)) return drop(DROP_FRAGMENT);
  if (destination(p) !== local()) return drop(DROP_NOT_FOR_US);
  const header = headerLength(p);
  return decapsulate(p + <usize>header, totalLength(p) - header, source(p), typeOfService(p), merged, now);
}

/** GRE-in-UDP datagrams of `size` bytes, the last perhaps less, as UDP_GRO puts them together. */
function decapsulateDatagrams(p: usize, length: u32, size: u32, vm: u32, tos: u32, merged: u32, now: f64): i32 {
  let verdict = 0;
  let any = false;
  let last = false;
  for (let offset: u32 = 0; !last; offset += size) {
    const rest = length - offset;
    last = rest <= size;
    verdict = decapsulate(p + <usize>offset, <i32>min(size, rest), vm, tos, merged, now);
    if (verdict === FORWARD) any = true;
  }
  return any ? FORWARD : verdict;
}

/** The GRE packet at `gre`, `length` bytes, that came from `vm` with this outer type of service; `merged` as in the descriptor. */
function decapsulate(gre: usize, length: i32, vm: u32, outer: u32, merged: u32, now: f64): i32 {
  if (vm === 0 || vm === local() || !isUnderlay(vm)) return drop(DROP_FOREIGN_UNDERLAY);
  const header = checkGre(gre, length, merged !== 0 && merged !== NOT_MERGED);
  if (header < 0) return drop(header);
  const p = gre + <usize>header;
  const bad = checkIpv4(p, length - header);
  if (bad !== FORWARD) return drop(bad);
  if (senderOf(source(p)) !== vm) return drop(DROP_SPOOFED_SOURCE);
  if (hasShares(INBOUND_SHARES)) {
    if (isOverShare(INBOUND_SHARES, source(p))) return drop(DROP_OVER_SHARE);
    takeShare(INBOUND_SHARES, source(p), workOf(totalLength(p), 0));
  }
  const dst = destination(p);
  const mapping = findMapping(dst);
  if (mapping === 0 || vmIn(mapping, dst) !== local()) return drop(DROP_FOREIGN_DESTINATION);
  if (isReserved(mapping, dst, local())) return drop(DROP_RESERVED_ADDRESS);
  if (protocol(p) === PROTOCOL_GRE) return drop(DROP_NESTED_GRE);
  if (isLost(typeOfService(p), outer)) return drop(DROP_ECN);
  if (merged === 0 && isUndividable(p)) return drop(DROP_MERGED);
  const size = segmentSize(p, merged);
  const packets = size === 0 ? 1 : packetsOf(p, size);
  if (size !== 0 && isCutHere(p)) {
    if (packets > MESSAGES) return drop(DROP_TOO_LONG);
    if (messageCount(0) + packets > MESSAGES) {
      if (hasShares(INBOUND_SHARES)) takeShare(INBOUND_SHARES, source(p), -workOf(totalLength(p), 0));
      return NO_ROOM;
    }
  }
  const tunnel = useTunnel(vm, now);
  const known = options();
  if ((known & OPTION_SEQUENCE) !== 0) {
    if (!isInSequence(gre, header, load<u32>(tunnel + TUNNEL_SEQUENCE_IN))) return drop(DROP_GRE_SEQUENCE);
    store<u32>(tunnel + TUNNEL_SEQUENCE_IN, sequenceOf(gre, header) + 1);
  }

  markReachable(tunnel, vm, now);
  receiveTos(p, outer);
  if ((known & OPTION_CLAMP_MSS) !== 0 && canClamp(p)) clampMss(p, limitOf(tunnel, vm, now), openChecksum(p) !== 0);
  const total = packets === 1 ? totalLength(p) : bytesOf(p, packets);
  addF64(tunnel + TUNNEL_INBOUND_PACKETS, <f64>packets);
  addF64(tunnel + TUNNEL_INBOUND_BYTES, <f64>total);
  countForwarded(INBOUND_COUNTERS, packets, total);
  deliver(p, size);
  return FORWARD;
}

function drop(reason: i32): i32 {
  return countDropped(INBOUND_COUNTERS, reason);
}

/**
 * Underlay to container: a packet is checked, loses its outer headers and may be merged with those of its flow. The inner
 * source fixes the only legal outer source, so a spoofed packet is seen without any table (compare RFC 5969 §12).
 */
import * as abi from '../abi.ts';
import { addF64, loadU32, type Memory, storeU32 } from './bytes.ts';
import { canClamp, clampMss } from './clamp.ts';
import * as config from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import * as descriptor from './descriptor.ts';
import * as gre from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isReserved, isUnderlay, senderOf, vmIn } from './mapping.ts';
import { deliver } from './merge.ts';
import { bytesOf, isCutHere, isUndividable, packetsOf, segmentSize } from './merged.ts';
import { messageCount, NO_ROOM } from './messages.ts';
import { limitOf, markReachable } from './paths.ts';
import { demandShare, hasShares, isOverShare, takeShare, workOf } from './shares.ts';
import { isLost, receiveTos } from './tos.ts';
import { openChecksum } from './transport.ts';
import { useTunnel } from './tunnels.ts';

/** Inbound, all messages are those of one port. */
const PORT = 0;

/** Decapsulates what descriptor `d` describes into messages and counts it. Returns the verdict, or NO_ROOM. */
export function decapsulatePackets(memory: Memory, d: number, now: number): number {
  const start = descriptor.address(memory, d);
  const length = descriptor.bytes(memory, d);
  const segment = descriptor.segment(memory, d);
  const datagrams = datagramsOf(length, segment);
  if (!descriptor.isInside(memory, d) || datagrams > abi.MESSAGES) return count(memory, abi.DROP_BAD_DESCRIPTOR);
  if (datagrams > freeMessages(memory)) return NO_ROOM;
  // What was merged into datagrams was not merged before: only one that is alone may be.
  const merged = datagrams > 1 ? abi.NOT_MERGED : descriptor.merged(memory, d);
  if (segment === 0) {
    const verdict = count(memory, passPacket(memory, start, length, merged, now));
    if (verdict === abi.FORWARD) descriptor.setPeer(memory, d, ipv4.source(memory, start));
    return verdict;
  }

  const vm = descriptor.peer(memory, d);
  const tos = descriptor.outerTos(memory, d);
  let verdict: number = abi.FORWARD;
  let isForwarded = false;
  for (let n = 0; n < datagrams; n++) {
    const end = start + Math.min((n + 1) * segment, length);
    verdict = count(memory, passGre(memory, start + n * segment, end, vm, tos, merged, now));
    if (verdict === abi.FORWARD) isForwarded = true;
  }
  return isForwarded ? abi.FORWARD : verdict;
}

/** Notes for `share` what the packet or the datagrams of descriptor `d` make to do, unless their sources are those of others than who sent them. */
export function demandInbound(memory: Memory, d: number): void {
  if (!descriptor.isInside(memory, d)) return;
  const start = descriptor.address(memory, d);
  const length = descriptor.bytes(memory, d);
  const segment = descriptor.segment(memory, d);
  if (segment !== 0) {
    const datagrams = datagramsOf(length, segment);
    const vm = descriptor.peer(memory, d);
    if (datagrams > abi.MESSAGES) return;
    for (let n = 0; n < datagrams; n++) {
      demandOf(memory, start + n * segment, start + Math.min((n + 1) * segment, length), vm);
    }
  } else if (length >= ipv4.IPV4_LENGTH) {
    const from = start + ipv4.headerLength(memory, start);
    const end = start + ipv4.totalLength(memory, start);
    if (from <= end && end <= start + length) demandOf(memory, from, end, ipv4.source(memory, start));
  }
}

/** The same of the bytes from the GRE header at `p` to `end`, from `vm`. */
function demandOf(memory: Memory, p: number, end: number, vm: number): void {
  if (end - p < gre.GRE_MIN_LENGTH) return;
  const inner = p + gre.statedLength(memory, p);
  if (end - inner < ipv4.IPV4_LENGTH) return;
  const source = ipv4.source(memory, inner);
  if (vm === 0 || senderOf(memory, source) !== vm) return;
  demandShare(memory, abi.INBOUND_SHARES, source, workOf(Math.min(ipv4.totalLength(memory, inner), end - inner), 0));
}

/** How many datagrams there are in `length` bytes; an empty one is one. */
function datagramsOf(length: number, segment: number): number {
  return segment === 0 || length === 0 ? 1 : Math.ceil(length / segment);
}

function freeMessages(memory: Memory): number {
  return abi.MESSAGES - messageCount(memory, PORT);
}

/** Counts the verdict, if it is a drop reason, and returns it. */
function count(memory: Memory, verdict: number): number {
  return verdict < 0 ? countDropped(memory, abi.INBOUND_COUNTERS, verdict) : verdict;
}

/** What happens to a packet with its outer IPv4 header, in order. */
function passPacket(memory: Memory, outer: number, available: number, merged: number, now: number): number {
  const check = ipv4.checkIpv4(memory, outer, available);
  if (check !== abi.FORWARD) return check;
  if (ipv4.protocol(memory, outer) !== gre.PROTOCOL_GRE) return abi.DROP_NOT_GRE;
  if (ipv4.isFragment(memory, outer)) return abi.DROP_FRAGMENT;
  if (ipv4.destination(memory, outer) !== config.local(memory)) return abi.DROP_NOT_FOR_US;
  const from = outer + ipv4.headerLength(memory, outer);
  const end = outer + ipv4.totalLength(memory, outer);
  const vm = ipv4.source(memory, outer);
  return passGre(memory, from, end, vm, ipv4.typeOfService(memory, outer), merged, now);
}

/**
 * What happens to the bytes from the GRE header at `p` to `end` that `vm` says it has sent, in a packet with type of service `tos`, in
 * order. `merged` is what the host says about the inner packet.
 */
function passGre(memory: Memory, p: number, end: number, vm: number, tos: number, merged: number, now: number): number {
  const local = config.local(memory);
  if (vm === 0 || vm === local || !isUnderlay(memory, vm)) return abi.DROP_FOREIGN_UNDERLAY;
  const header = gre.checkGre(memory, p, end - p, merged !== 0 && merged !== abi.NOT_MERGED);
  if (header < 0) return header;
  const inner = p + header;
  const check = ipv4.checkIpv4(memory, inner, end - inner);
  if (check !== abi.FORWARD) return check;

  const source = ipv4.source(memory, inner);
  if (senderOf(memory, source) !== vm) return abi.DROP_SPOOFED_SOURCE;
  const work = workOf(ipv4.totalLength(memory, inner), 0);
  if (hasShares(memory, abi.INBOUND_SHARES)) {
    if (isOverShare(memory, abi.INBOUND_SHARES, source)) return abi.DROP_OVER_SHARE;
    takeShare(memory, abi.INBOUND_SHARES, source, work);
  }
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  if (mapping === 0 || vmIn(memory, mapping, destination) !== local) return abi.DROP_FOREIGN_DESTINATION;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  if (ipv4.protocol(memory, inner) === gre.PROTOCOL_GRE) return abi.DROP_NESTED_GRE;
  if (isLost(ipv4.typeOfService(memory, inner), tos)) return abi.DROP_ECN;
  if (merged === 0 && isUndividable(memory, inner)) return abi.DROP_MERGED;
  const size = segmentSize(memory, inner, merged);
  const packets = size === 0 ? 1 : packetsOf(memory, inner, size);
  const parts = size !== 0 && isCutHere(memory, inner) ? packets : 1;
  if (parts > abi.MESSAGES) return abi.DROP_TOO_LONG;
  if (parts > freeMessages(memory)) {
    if (hasShares(memory, abi.INBOUND_SHARES)) takeShare(memory, abi.INBOUND_SHARES, source, -work);
    return NO_ROOM;
  }

  const tunnel = useTunnel(memory, vm, now);
  if (config.hasOption(memory, abi.OPTION_SEQUENCE)) {
    const next = tunnel + abi.TUNNEL_SEQUENCE_IN;
    if (!gre.isInSequence(memory, p, header, loadU32(memory, next))) return abi.DROP_GRE_SEQUENCE;
    storeU32(memory, next, gre.sequenceOf(memory, p, header) + 1);
  }
  markReachable(memory, tunnel, vm, now);
  receiveTos(memory, inner, tos);
  if (config.hasOption(memory, abi.OPTION_CLAMP_MSS) && canClamp(memory, inner)) {
    clampMss(memory, inner, limitOf(memory, tunnel, vm, now), openChecksum(memory, inner) !== 0);
  }

  const bytes = size === 0 ? ipv4.totalLength(memory, inner) : bytesOf(memory, inner, packets);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS, packets);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_BYTES, bytes);
  countForwarded(memory, abi.INBOUND_COUNTERS, packets, bytes);
  deliver(memory, inner, size);
  return abi.FORWARD;
}

/**
 * Container to underlay: a packet is checked and gets its outer headers (RFC 2003 §3.1, RFC 2784, RFC 8086); a
 * super-packet is cut on the way, and what is too large fragmented. If it cannot arrive, its sender is told.
 */
import * as abi from '../abi.ts';
import { freeBlocks } from './blocks.ts';
import { addF64, loadI32, type Memory, putI32 } from './bytes.ts';
import { canClamp, clampMss } from './clamp.ts';
import { configuredMtu, configuredOptions, hasOffload, isGreUdp, localVm } from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import { isInside, NO_ROOM } from './descriptor.ts';
import { fragmentsOf, fragmentsOfCut, sendCutFragments, sendFragments } from './fragment.ts';
import { FRAGMENTATION_NEEDED, HOST_UNREACHABLE } from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { isHeard, leaseTunnel } from './leases.ts';
import { findMapping, isReserved, senderOf, vmIn } from './mapping.ts';
import { freeMessages, nextMessage, notePacket } from './messages.ts';
import { isPathKnown, limitOf } from './paths.ts';
import { reply } from './replies.ts';
import { messagesOfCut, sendCut, sendSingle, sendWhole, staysWhole } from './send.ts';
import { demand, hasLevel, isOverShare, takeShare, workOf } from './shares.ts';
import { outerPort } from './transport.ts';
import { checkVirtio, completeChecksum, cutSize, gsoSize, headersLength, needsChecksum } from './virtio.ts';

/** The first port; all messages of the format GRE are its. */
const PORT = 0;

/** Encapsulates one packet into messages and counts it. Returns the verdict, or NO_ROOM. */
export function encapsulatePacket(memory: Memory, descriptor: number, now: number): number {
  const verdict = pass(memory, descriptor, now);
  return verdict < 0 ? countDropped(memory, abi.OUTBOUND_COUNTERS, verdict) : verdict;
}

/** What happens to a packet, in order. */
function pass(memory: Memory, descriptor: number, now: number): number {
  const address = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  if (!isInside(address, available)) return abi.DROP_BAD_DESCRIPTOR;
  const virtioLength = hasOffload(memory, abi.OFFLOAD_VIRTIO) ? abi.VIRTIO_SIZE : 0;
  if (available < virtioLength) return abi.DROP_TRUNCATED;
  const inner = address + virtioLength;
  const check = ipv4.checkIpv4(memory, inner, available - virtioLength);
  if (check !== abi.FORWARD) return check;

  const local = localVm(memory);
  const sender = senderOf(memory, ipv4.source(memory, inner));
  if (sender === 0 || sender !== local) return abi.DROP_FOREIGN_SOURCE;
  const virtio = virtioLength === 0 ? 0 : address;
  if (hasLevel(memory, abi.OUTBOUND_SHARES)) {
    if (isOverShare(memory, abi.OUTBOUND_SHARES, ipv4.source(memory, inner))) return abi.DROP_OVER_SHARE;
    charge(memory, virtio, inner, 1);
  }
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  const vm = mapping === 0 ? 0 : vmIn(memory, mapping, destination);
  if (vm === 0) return refuse(memory, inner, abi.DROP_NO_MAPPING, now);
  if (vm === local) return refuse(memory, inner, abi.DROP_OWN_SLICE, now);
  if (isReserved(memory, mapping, destination)) return refuse(memory, inner, abi.DROP_RESERVED_ADDRESS, now);
  if (ipv4.protocol(memory, inner) === ipv4.PROTOCOL_GRE) return abi.DROP_NESTED_GRE;
  const verdict = forward(memory, descriptor, virtio, inner, vm, now);
  if (verdict === NO_ROOM && hasLevel(memory, abi.OUTBOUND_SHARES)) charge(memory, virtio, inner, -1);
  return verdict;
}

/** Notes for `share` what the descriptor's packet makes to do, unless its source is another VM's. */
export function demandOutbound(memory: Memory, descriptor: number): void {
  const address = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  const hasVirtio = hasOffload(memory, abi.OFFLOAD_VIRTIO);
  const inner = hasVirtio ? address + abi.VIRTIO_SIZE : address;
  const room = address + available - inner;
  if (!isInside(address, available) || room < ipv4.IPV4_LENGTH) return;
  const source = ipv4.source(memory, inner);
  const sender = senderOf(memory, source);
  if (sender === 0 || sender !== localVm(memory)) return;
  const length = Math.min(ipv4.totalLength(memory, inner), room);
  demand(memory, abi.OUTBOUND_SHARES, source, workOf(length, hasVirtio ? cutSize(memory, address) : 0));
}

/** Answers a packet for nobody. Returns the reason. */
function refuse(memory: Memory, inner: number, reason: number, now: number): number {
  reply(memory, inner, HOST_UNREACHABLE, 0, now);
  return reason;
}

/** What happens to the packet at `inner`, which is for `vm`, in order; `virtio` is where its virtio header is, 0 if there is none. */
function forward(memory: Memory, descriptor: number, virtio: number, inner: number, vm: number, now: number): number {
  const segments = virtio === 0 ? 0 : checkVirtio(memory, virtio, inner);
  if (segments < 0) return segments;
  const tunnel = leaseTunnel(memory, vm, ipv4.source(memory, inner), now);
  if (tunnel === 0) return abi.DROP_TOO_MANY_TUNNELS;
  const limit = isPathKnown(memory, tunnel) ? limitOf(memory, tunnel, now) : configuredMtu(memory);
  if (segments !== 0 || ipv4.totalLength(memory, inner) > limit) {
    const verdict = forwardParts(memory, virtio, inner, segments, tunnel, vm, limit, now);
    if (verdict !== abi.FORWARD) return verdict;
  } else {
    const isUdp = isGreUdp(memory);
    const port = isUdp ? portOf(memory, inner) : PORT;
    if (freeMessages(memory, port, isUdp) === 0) return NO_ROOM;
    count(memory, tunnel, 1, ipv4.totalLength(memory, inner));
    const options = configuredOptions(memory);
    if ((options & abi.OPTION_CLAMP_MSS) !== 0) clamp(memory, virtio, inner, limit);
    // Before the outer headers are: they take the virtio header's place.
    if (virtio !== 0) completeChecksum(memory, virtio, inner);
    const first = nextMessage(memory, port);
    sendSingle(memory, inner, options, tunnel, vm, port);
    notePacket(memory, first, nextMessage(memory, port), inner, !isHeard(memory, tunnel));
  }
  putI32(memory, descriptor + abi.DESCRIPTOR_PEER, vm);
  return abi.FORWARD;
}

/**
 * Sends the packet, which is to be cut into `segments` segments, 0 if not at all: as segments, as fragments, or as fragments of
 * segments; or as the super-packet that it is, if the kernel cuts it.
 */
function forwardParts(
  memory: Memory,
  virtio: number,
  inner: number,
  segments: number,
  tunnel: number,
  vm: number,
  limit: number,
  now: number,
): number {
  const isCut = segments !== 0;
  const total = ipv4.totalLength(memory, inner);
  const headers = isCut ? headersLength(memory, inner) : 0;
  const size = isCut ? gsoSize(memory, virtio) : total;
  const longest = Math.min(total, headers + size);
  const isFragmented = longest > limit;
  if (isFragmented && (ipv4.flagsAndOffset(memory, inner) & ipv4.DONT_FRAGMENT) !== 0) {
    reply(memory, inner, FRAGMENTATION_NEEDED, limit, now);
    return abi.DROP_TOO_BIG;
  }
  const isUdp = isGreUdp(memory);
  const fragments = isFragmented ? countFragments(memory, inner, segments, size, limit) : 0;
  const most = isUdp ? abi.MESSAGES_PER_PORT : abi.MESSAGES;
  const messages = isFragmented ? fragments : messagesOfCut(memory, segments, longest);
  if (messages > most || segments + fragments > abi.HEADER_BLOCKS) return abi.DROP_TOO_LONG;
  const parts = isCut ? segments : 1;
  const packets = isFragmented ? fragments : parts;
  const port = isUdp ? portOf(memory, inner) : PORT;
  if (messages > freeMessages(memory, port, isUdp) || segments + fragments > freeBlocks(memory)) return NO_ROOM;

  // Each segment but the first has headers of its own, and each fragment but the first of a segment an IPv4 header.
  const bytes = total + (parts - 1) * headers + (packets - parts) * ipv4.headerLength(memory, inner);
  count(memory, tunnel, packets, bytes);
  const options = configuredOptions(memory);
  if ((options & abi.OPTION_CLAMP_MSS) !== 0) clamp(memory, virtio, inner, limit);
  const first = nextMessage(memory, port);
  if (!isFragmented) {
    if (segments > 1 && staysWhole(memory, virtio, inner, options)) {
      sendWhole(memory, virtio, inner, segments, bytes, options, tunnel, vm, port);
    } else {
      sendCut(memory, inner, headers, size, options, tunnel, vm, port);
    }
  } else if (isCut) {
    sendCutFragments(memory, inner, headers, size, limit, options, tunnel, vm, port);
  } else {
    if (virtio !== 0) completeChecksum(memory, virtio, inner);
    sendFragments(memory, inner, total, 0, limit, options, tunnel, vm, port);
  }
  notePacket(memory, first, nextMessage(memory, port), inner, !isHeard(memory, tunnel));
  return abi.FORWARD;
}

/** Counts what is sent of one packet, in all and in its tunnel. */
function count(memory: Memory, tunnel: number, packets: number, bytes: number): void {
  countForwarded(memory, abi.OUTBOUND_COUNTERS, packets, bytes);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_PACKETS, packets);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_BYTES, bytes);
}

/**
 * Counts the packet towards the share of its source, whatever becomes of it: who sends what nobody gets makes work, too. `sign`
 * is -1 for one that has no room and comes again.
 */
function charge(memory: Memory, virtio: number, inner: number, sign: 1 | -1): void {
  const size = virtio === 0 ? 0 : cutSize(memory, virtio);
  const work = workOf(ipv4.totalLength(memory, inner), size);
  takeShare(memory, abi.OUTBOUND_SHARES, ipv4.source(memory, inner), sign * work);
}

/** Clamps the packet, if it is one that can be. */
function clamp(memory: Memory, virtio: number, inner: number, limit: number): void {
  if (canClamp(memory, inner)) clampMss(memory, inner, limit, virtio !== 0 && needsChecksum(memory, virtio));
}

/** The source port of GRE-in-UDP that the packet's flow uses: the first for all, if they have to stay in order. */
function portOf(memory: Memory, inner: number): number {
  if ((configuredOptions(memory) & abi.OPTION_SEQUENCE) !== 0) return PORT;
  return outerPort(memory, inner, loadI32(memory, abi.CONFIG + abi.CONFIG_PORTS));
}

/** How many fragments are made of the packet at `inner`, or of its segments. */
function countFragments(memory: Memory, inner: number, segments: number, size: number, limit: number): number {
  if (segments !== 0) return fragmentsOfCut(memory, inner, size, limit);
  return fragmentsOf(ipv4.totalLength(memory, inner), ipv4.headerLength(memory, inner), limit);
}

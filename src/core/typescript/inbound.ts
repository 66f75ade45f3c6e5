/**
 * Underlay to container: a packet is checked, loses its outer headers and may be merged with those of its flow. The inner
 * source fixes the only legal outer source, so a spoofed packet is seen without any table (compare RFC 5969 §12).
 */
import * as abi from '../abi.ts';
import { addF64, getI32, getU16, loadI32, type Memory, putI32, storeI32 } from './bytes.ts';
import { canClamp, clampMss } from './clamp.ts';
import { configuredKey, configuredOptions, hasOffload, localVm } from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import { isInside, NO_ROOM } from './descriptor.ts';
import { BASE_LENGTH, checkGre, hasSequence, sequenceBefore, statedLength } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isReserved, isUnderlay, senderOf, vmIn } from './mapping.ts';
import { mergePacket } from './merge.ts';
import { bytesOf, deliverSegments, isUndividable, messagesOf, packetsOf, segmentSize } from './merged.ts';
import { addContent, addPiece, freeMessages, nextMessage, openMessage } from './messages.ts';
import { isPathKnown, learnReachable, limitOf } from './paths.ts';
import { applyService, isLostMark } from './service.ts';
import { demand, hasLevel, isOverShare, takeShare, workOf } from './shares.ts';
import { completeOpen, isOpen } from './transport.ts';
import { useTunnel } from './tunnels.ts';
import { clearVirtio, putOpenVirtio } from './virtio.ts';

/** Inbound, all messages are those of one port. */
const PORT = 0;

/** Decapsulates what one descriptor describes into messages and counts it. Returns the verdict, or NO_ROOM. */
export function decapsulatePackets(memory: Memory, descriptor: number, now: number): number {
  const start = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const length = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  const segment = loadI32(memory, descriptor + abi.DESCRIPTOR_SEGMENT) >>> 0;
  const datagrams = segment === 0 || length === 0 ? 1 : Math.ceil(length / segment);
  if (!isInside(start, length) || datagrams > abi.MESSAGES) return count(memory, abi.DROP_BAD_DESCRIPTOR);
  if (datagrams > freeMessages(memory, PORT, false)) return NO_ROOM;
  // What was merged into datagrams was not merged before: only one that is alone may be.
  const merged = datagrams > 1 ? abi.NOT_MERGED | 0 : loadI32(memory, descriptor + abi.DESCRIPTOR_MERGED);
  if (segment === 0) return count(memory, passPacket(memory, descriptor, start, length, merged, now));

  const vm = getI32(memory, descriptor + abi.DESCRIPTOR_PEER);
  const tos = loadI32(memory, descriptor + abi.DESCRIPTOR_TOS) & 0xff;
  let verdict: number = abi.FORWARD;
  let isForwarded = false;
  for (let n = 0; n < datagrams; n++) {
    const end = start + Math.min((n + 1) * segment, length);
    verdict = count(memory, passGre(memory, start + n * segment, end, vm, tos, merged, now));
    if (verdict === abi.FORWARD) isForwarded = true;
  }
  return isForwarded ? abi.FORWARD : verdict;
}

/** Notes for `share` what the descriptor's packet or datagrams make to do, unless their sources are those of others than who sent them. */
export function demandInbound(memory: Memory, descriptor: number): void {
  const start = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const length = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  const segment = loadI32(memory, descriptor + abi.DESCRIPTOR_SEGMENT) >>> 0;
  if (!isInside(start, length)) return;
  if (segment !== 0) {
    const datagrams = Math.ceil(length / segment);
    const vm = getI32(memory, descriptor + abi.DESCRIPTOR_PEER);
    if (datagrams > abi.MESSAGES) return;
    for (let n = 0; n < datagrams; n++) {
      demandOf(memory, start + n * segment, start + Math.min((n + 1) * segment, length), vm);
    }
  } else if (length >= ipv4.IPV4_LENGTH) {
    const gre = start + ipv4.headerLength(memory, start);
    const end = start + ipv4.totalLength(memory, start);
    if (gre <= end && end <= start + length) demandOf(memory, gre, end, ipv4.source(memory, start));
  }
}

/** The same of the bytes from the GRE header at `gre` to `end`, from `vm`. */
function demandOf(memory: Memory, gre: number, end: number, vm: number): void {
  if (end - gre < BASE_LENGTH) return;
  const inner = gre + statedLength(getU16(memory, gre));
  if (end - inner < ipv4.IPV4_LENGTH) return;
  const source = ipv4.source(memory, inner);
  if (vm === 0 || senderOf(memory, source) !== vm) return;
  demand(memory, abi.INBOUND_SHARES, source, workOf(Math.min(ipv4.totalLength(memory, inner), end - inner), 0));
}

/** Counts the verdict, if it is a drop reason, and returns it. */
function count(memory: Memory, verdict: number): number {
  return verdict < 0 ? countDropped(memory, abi.INBOUND_COUNTERS, verdict) : verdict;
}

/** What happens to a packet with its outer IPv4 header, in order. */
function passPacket(
  memory: Memory,
  descriptor: number,
  outer: number,
  available: number,
  merged: number,
  now: number,
): number {
  const check = ipv4.checkIpv4(memory, outer, available);
  if (check !== abi.FORWARD) return check;
  if (ipv4.protocol(memory, outer) !== ipv4.PROTOCOL_GRE) return abi.DROP_NOT_GRE;
  if (ipv4.isFragment(memory, outer)) return abi.DROP_FRAGMENT;
  if (ipv4.destination(memory, outer) !== localVm(memory)) return abi.DROP_NOT_FOR_US;

  const vm = ipv4.source(memory, outer);
  const gre = outer + ipv4.headerLength(memory, outer);
  const end = outer + ipv4.totalLength(memory, outer);
  const verdict = passGre(memory, gre, end, vm, ipv4.service(memory, outer), merged, now);
  if (verdict === abi.FORWARD) putI32(memory, descriptor + abi.DESCRIPTOR_PEER, vm);
  return verdict;
}

/**
 * What happens to the bytes from the GRE header at `gre` to `end` that `vm` says it has sent, in a packet with type of service
 * `tos`, in order. `merged` is what the host says about the inner packet.
 */
function passGre(
  memory: Memory,
  gre: number,
  end: number,
  vm: number,
  tos: number,
  merged: number,
  now: number,
): number {
  const local = localVm(memory);
  if (vm === 0 || vm === local || !isUnderlay(memory, vm)) return abi.DROP_FOREIGN_UNDERLAY;
  const options = configuredOptions(memory);
  const isMerged = merged !== 0 && merged !== (abi.NOT_MERGED | 0);
  const header = checkGre(memory, gre, end - gre, options, configuredKey(memory), isMerged);
  if (header < 0) return header;
  const inner = gre + header;
  const check = ipv4.checkIpv4(memory, inner, end - inner);
  if (check !== abi.FORWARD) return check;

  if (senderOf(memory, ipv4.source(memory, inner)) !== vm) return abi.DROP_SPOOFED_SOURCE;
  const work = workOf(ipv4.totalLength(memory, inner), 0);
  const hasShares = hasLevel(memory, abi.INBOUND_SHARES);
  if (hasShares) {
    if (isOverShare(memory, abi.INBOUND_SHARES, ipv4.source(memory, inner))) return abi.DROP_OVER_SHARE;
    takeShare(memory, abi.INBOUND_SHARES, ipv4.source(memory, inner), work);
  }
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  if (mapping === 0 || vmIn(memory, mapping, destination) !== local) return abi.DROP_FOREIGN_DESTINATION;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  if (ipv4.protocol(memory, inner) === ipv4.PROTOCOL_GRE) return abi.DROP_NESTED_GRE;
  const innerTos = ipv4.service(memory, inner);
  if (innerTos !== tos && isLostMark(innerTos, tos)) return abi.DROP_ECN;
  if (merged === 0 && isUndividable(memory, inner)) return abi.DROP_MERGED;
  const size = segmentSize(memory, inner, merged);
  if (size !== 0) {
    const messages = messagesOf(memory, inner, size);
    if (messages > abi.MESSAGES) return abi.DROP_TOO_LONG;
    if (messages > freeMessages(memory, PORT, false)) {
      if (hasShares) takeShare(memory, abi.INBOUND_SHARES, ipv4.source(memory, inner), -work);
      return NO_ROOM;
    }
  }

  const tunnel = useTunnel(memory, vm, now);
  if ((options & abi.OPTION_SEQUENCE) !== 0 && !isInOrder(memory, tunnel, gre, inner)) return abi.DROP_GRE_SEQUENCE;
  if (isPathKnown(memory, tunnel)) learnReachable(memory, tunnel, now);
  if (innerTos !== tos) applyService(memory, inner, tos, options);
  if ((options & abi.OPTION_CLAMP_MSS) !== 0) {
    if (canClamp(memory, inner)) clampMss(memory, inner, limitOf(memory, tunnel, now), isOpen(memory, inner));
  }

  const packets = packetsOf(memory, inner, size);
  const bytes = bytesOf(memory, inner, packets);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS, packets);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_BYTES, bytes);
  countForwarded(memory, abi.INBOUND_COUNTERS, packets, bytes);
  if (hasOffload(memory, abi.OFFLOAD_VIRTIO)) {
    deliverFramed(memory, inner, size);
  } else {
    deliver(memory, inner, size);
  }
  return abi.FORWARD;
}

/**
 * Whether the sequence number in the GRE header from `gre` to `end` is none before those that have come. If so, the lowest
 * that may follow is that behind it; numbers wrap (RFC 2890 §2.2). 0 is where a VM begins anew that was restarted.
 */
function isInOrder(memory: Memory, tunnel: number, gre: number, end: number): boolean {
  if (!hasSequence(memory, gre)) return false;
  const number = sequenceBefore(memory, end);
  const lowest = loadI32(memory, tunnel + abi.TUNNEL_SEQUENCE_IN);
  if (number !== 0 && lowest !== 0 && ((number - lowest) | 0) < 0) return false;
  storeI32(memory, tunnel + abi.TUNNEL_SEQUENCE_IN, number + 1);
  return true;
}

/** Makes the inner packet a message, or one for each segment of `size` bytes; its checksum is there from now on. */
function deliver(memory: Memory, inner: number, size: number): void {
  if (size !== 0) {
    deliverSegments(memory, inner, size);
    return;
  }
  const length = ipv4.totalLength(memory, inner);
  if (isOpen(memory, inner)) completeOpen(memory, inner);
  const message = openMessage(memory, PORT);
  addPiece(memory, message, inner, length);
  addContent(memory, message, 1, length);
}

/** Adds the inner packet to the super-packet of its flow, or makes it a message with a virtio header before it. */
function deliverFramed(memory: Memory, inner: number, size: number): void {
  const open = isOpen(memory, inner);
  if (mergePacket(memory, inner, nextMessage(memory, PORT), open || size !== 0)) return;
  if (size !== 0) {
    deliverSegments(memory, inner, size);
    return;
  }
  const length = ipv4.totalLength(memory, inner);
  const message = openMessage(memory, PORT);
  const virtio = abi.HEADERS + message * abi.HEADER_BLOCK_SIZE;
  if (open) {
    putOpenVirtio(memory, virtio, inner);
  } else {
    clearVirtio(memory, virtio);
  }
  addPiece(memory, message, virtio, abi.VIRTIO_SIZE);
  addPiece(memory, message, inner, length);
  addContent(memory, message, 1, length);
}

/**
 * Container to underlay: a packet is checked and gets its outer headers (RFC 2003 §3.1, RFC 2784, RFC 8086); a
 * super-packet is cut on the way, and what is too large fragmented. If it cannot arrive, its sender is told.
 */
import * as abi from '../abi.ts';
import { freeBlocks } from './blocks.ts';
import { addF64, loadU8, type Memory } from './bytes.ts';
import { canClamp, clampMss } from './clamp.ts';
import * as config from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import * as descriptor from './descriptor.ts';
import { beginPacket, capacity, freeMessages, messagesOf, outerLength } from './encapsulation.ts';
import { fragmentsOf } from './fragment.ts';
import { PROTOCOL_GRE } from './gre.ts';
import { FRAGMENTATION_NEEDED, HOST_UNREACHABLE } from './icmp.ts';
import * as ipv4 from './ipv4.ts';
import { leaseTunnel } from './leases.ts';
import { findMapping, isReserved, senderOf, vmIn } from './mapping.ts';
import { NO_ROOM } from './messages.ts';
import { limitOf } from './paths.ts';
import { reply } from './replies.ts';
import { fitsWhole, send, sendCut, sendWhole } from './send.ts';
import { demandShare, hasShares, isOverShare, takeShare, workOf } from './shares.ts';
import { headersLength } from './transport.ts';
import { checkVirtio, GSO_NONE, gsoSize, needsChecksum } from './virtio.ts';

/** Encapsulates the packet of descriptor `d` into messages and counts it. Returns the verdict, or NO_ROOM. */
export function encapsulatePacket(memory: Memory, d: number, now: number): number {
  const verdict = pass(memory, d, now);
  return verdict < 0 ? countDropped(memory, abi.OUTBOUND_COUNTERS, verdict) : verdict;
}

/** Notes for `share` what the packet of descriptor `d` makes to do, unless its source is another VM's. */
export function demandOutbound(memory: Memory, d: number): void {
  if (!descriptor.isInside(memory, d)) return;
  const address = descriptor.address(memory, d);
  const virtio = config.hasOffload(memory, abi.OFFLOAD_VIRTIO) ? address : 0;
  const p = virtio === 0 ? address : address + abi.VIRTIO_SIZE;
  const available = address + descriptor.bytes(memory, d) - p;
  if (available < ipv4.IPV4_LENGTH) return;
  const source = ipv4.source(memory, p);
  if (!isOwn(memory, source)) return;
  const length = Math.min(ipv4.totalLength(memory, p), available);
  demandShare(memory, abi.OUTBOUND_SHARES, source, workOf(length, segmentSize(memory, virtio)));
}

/** Whether the address is one that a container of this VM may have. */
function isOwn(memory: Memory, source: number): boolean {
  const vm = senderOf(memory, source);
  return vm !== 0 && vm === config.local(memory);
}

/** Bytes of payload in each segment that the header at `virtio`, which is not checked yet, asks for; 0 if none. */
function segmentSize(memory: Memory, virtio: number): number {
  if (virtio === 0 || loadU8(memory, virtio + abi.VIRTIO_GSO_TYPE) === GSO_NONE) return 0;
  return gsoSize(memory, virtio);
}

/** What happens to a packet, in order: its headers and addresses. */
function pass(memory: Memory, d: number, now: number): number {
  if (!descriptor.isInside(memory, d)) return abi.DROP_BAD_DESCRIPTOR;
  const address = descriptor.address(memory, d);
  const virtio = config.hasOffload(memory, abi.OFFLOAD_VIRTIO) ? address : 0;
  const p = virtio === 0 ? address : address + abi.VIRTIO_SIZE;
  const available = address + descriptor.bytes(memory, d) - p;
  if (available < 0) return abi.DROP_TRUNCATED;
  const check = ipv4.checkIpv4(memory, p, available);
  if (check !== abi.FORWARD) return check;

  const source = ipv4.source(memory, p);
  if (!isOwn(memory, source)) return abi.DROP_FOREIGN_SOURCE;
  const work = workOf(ipv4.totalLength(memory, p), segmentSize(memory, virtio));
  if (hasShares(memory, abi.OUTBOUND_SHARES)) {
    if (isOverShare(memory, abi.OUTBOUND_SHARES, source)) return abi.DROP_OVER_SHARE;
    takeShare(memory, abi.OUTBOUND_SHARES, source, work);
  }
  const destination = ipv4.destination(memory, p);
  const mapping = findMapping(memory, destination);
  const vm = vmIn(memory, mapping, destination);
  if (vm === 0) return refuse(memory, p, abi.DROP_NO_MAPPING, now);
  if (vm === config.local(memory)) return refuse(memory, p, abi.DROP_OWN_SLICE, now);
  if (isReserved(memory, mapping, destination)) return refuse(memory, p, abi.DROP_RESERVED_ADDRESS, now);
  if (ipv4.protocol(memory, p) === PROTOCOL_GRE) return abi.DROP_NESTED_GRE;
  const verdict = forward(memory, virtio, p, vm, now);
  if (verdict === abi.FORWARD) descriptor.setPeer(memory, d, vm);
  const comesAgain = verdict === NO_ROOM && hasShares(memory, abi.OUTBOUND_SHARES);
  if (comesAgain) takeShare(memory, abi.OUTBOUND_SHARES, source, -work);
  return verdict;
}

/** Answers a packet for nobody. Returns the reason. */
function refuse(memory: Memory, p: number, reason: number, now: number): number {
  reply(memory, p, HOST_UNREACHABLE, 0, now);
  return reason;
}

/**
 * What happens to the packet at `p`, which is for `vm`, in order: whether it is cut, whether it fits, and whether there is room.
 * `virtio` is where its virtio header is, 0 if there is none.
 */
function forward(memory: Memory, virtio: number, p: number, vm: number, now: number): number {
  const segments = virtio === 0 ? 0 : checkVirtio(memory, virtio, p);
  if (segments < 0) return segments;
  const tunnel = leaseTunnel(memory, vm, ipv4.source(memory, p), now);
  if (tunnel === 0) return abi.DROP_TOO_MANY_TUNNELS;
  const limit = limitOf(memory, tunnel, vm, now);
  const isCut = segments !== 0;
  const total = ipv4.totalLength(memory, p);
  const headers = isCut ? headersLength(memory, p) : 0;
  const size = isCut ? gsoSize(memory, virtio) : total;
  const longest = Math.min(total, headers + size);
  const isFragmented = longest > limit;
  if (isFragmented && ipv4.isDontFragment(memory, p)) {
    reply(memory, p, FRAGMENTATION_NEEDED, limit, now);
    return abi.DROP_TOO_BIG;
  }

  const parts = isCut ? segments : 1;
  const fragments = isFragmented ? countFragments(memory, p, headers, size, limit) : 0;
  const messages = isFragmented ? fragments : messagesOf(memory, parts, outerLength(memory) + longest);
  const blocks = segments + fragments;
  if (messages > capacity(memory) || blocks > abi.HEADER_BLOCKS) return abi.DROP_TOO_LONG;
  const out = beginPacket(memory, p, vm, tunnel);
  if (messages > freeMessages(memory, out) || blocks > freeBlocks(memory)) return NO_ROOM;

  if (config.hasOption(memory, abi.OPTION_CLAMP_MSS) && canClamp(memory, p)) {
    clampMss(memory, p, limit, virtio !== 0 && needsChecksum(memory, virtio));
  }
  // Each segment but the first has headers of its own, and each fragment but the first of a segment an IPv4 header.
  const packets = isFragmented ? fragments : parts;
  const bytes = total + (parts - 1) * headers + (packets - parts) * ipv4.headerLength(memory, p);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_PACKETS, packets);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_BYTES, bytes);
  countForwarded(memory, abi.OUTBOUND_COUNTERS, packets, bytes);
  const most = isFragmented ? limit : 0;
  if (segments > 1 && !isFragmented && fitsWhole(memory, virtio, p)) sendWhole(memory, out, virtio, p, packets, bytes);
  else if (isCut) sendCut(memory, out, p, headers, size, most);
  else send(memory, out, virtio, p, most);
  return abi.FORWARD;
}

/** How many fragments the packet at `p` makes, or its segments of `size` bytes, if it has `headers` for each. */
function countFragments(memory: Memory, p: number, headers: number, size: number, limit: number): number {
  const total = ipv4.totalLength(memory, p);
  const header = ipv4.headerLength(memory, p);
  if (headers === 0) return fragmentsOf(total, header, limit);
  const full = Math.ceil((total - headers) / size) - 1;
  return full * fragmentsOf(headers + size, header, limit) + fragmentsOf(total - full * size, header, limit);
}

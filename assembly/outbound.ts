/**
 * Container to underlay: a packet is checked, cut or fragmented if it is too long, and gets its outer headers (RFC 2003 §3.1, RFC 2784, RFC 8086). A container
 * whose packet does not get through is told so.
 */
import {
  DROP_BAD_DESCRIPTOR,
  DROP_FOREIGN_SOURCE,
  DROP_NESTED_GRE,
  DROP_NO_MAPPING,
  DROP_OVER_SHARE,
  DROP_OWN_SLICE,
  DROP_RESERVED_ADDRESS,
  DROP_TOO_BIG,
  DROP_TOO_LONG,
  DROP_TOO_MANY_TUNNELS,
  DROP_TRUNCATED,
  FORWARD,
  HEADER_BLOCKS,
  OFFLOAD_VIRTIO,
  OPTION_CLAMP_MSS,
  OUTBOUND_COUNTERS,
  OUTBOUND_SHARES,
  TUNNEL_OUTBOUND_BYTES,
  TUNNEL_OUTBOUND_PACKETS,
  VIRTIO_GSO_TYPE,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { freeBlocks } from './blocks';
import { addF64 } from './bytes';
import { canClamp, clampMss } from './clamp';
import { hasOffload, hasOption, local } from './config';
import { countDropped, countForwarded } from './counters';
import { address, bytes, isInside, setPeer } from './descriptor';
import { beginPacket, capacity, freeMessages, messagesOf, outerLength } from './encapsulation';
import { fragmentsOf } from './fragment';
import { PROTOCOL_GRE } from './gre';
import { FRAGMENTATION_NEEDED, HOST_UNREACHABLE } from './icmp';
import {
  checkIpv4,
  destination,
  headerLength,
  IPV4_LENGTH,
  isDontFragment,
  protocol,
  source,
  totalLength,
} from './ipv4';
import { leaseTunnel } from './leases';
import { findMapping, isReserved, senderOf, vmIn, vmOf } from './mapping';
import { NO_ROOM } from './messages';
import { limitOf } from './paths';
import { reply } from './replies';
import { fitsWhole, send, sendCut, sendFragmented, sendWhole } from './send';
import { demandShare, hasShares, isOverShare, takeShare, workOf } from './shares';
import { headersLength } from './transport';
import { checkVirtio, GSO_NONE, gsoSize, needsChecksum } from './virtio';

/** Encapsulates the container's packet of descriptor `d` into messages, and counts it; answers the verdict, or NO_ROOM. `second` is `now` in s. */
export function encapsulatePacket(d: usize, now: f64, second: u32): i32 {
  if (!isInside(d)) return drop(DROP_BAD_DESCRIPTOR);
  let p = <usize>address(d);
  let available = <i32>bytes(d);
  const virtio = hasOffload(OFFLOAD_VIRTIO) ? p : 0;
  if (virtio !== 0) {
    if (available < VIRTIO_SIZE) return drop(DROP_TRUNCATED);
    p += VIRTIO_SIZE;
    available -= VIRTIO_SIZE;
  }
  const bad = checkIpv4(p, available);
  if (bad !== FORWARD) return drop(bad);
  const total = totalLength(p);
  const from = source(p);
  const sender = senderOf(from);
  if (sender === 0 || sender !== local()) return drop(DROP_FOREIGN_SOURCE);
  if (hasShares(OUTBOUND_SHARES)) {
    if (isOverShare(OUTBOUND_SHARES, from)) return drop(DROP_OVER_SHARE);
    takeShare(OUTBOUND_SHARES, from, workIn(virtio, total));
  }
  const dst = destination(p);
  const mapping = findMapping(dst);
  const vm = vmIn(mapping, dst);
  if (vm === 0) return refuse(p, DROP_NO_MAPPING, now);
  if (vm === local()) return refuse(p, DROP_OWN_SLICE, now);
  if (isReserved(mapping, dst, vm)) return refuse(p, DROP_RESERVED_ADDRESS, now);
  if (protocol(p) === PROTOCOL_GRE) return drop(DROP_NESTED_GRE);
  const segments = virtio === 0 ? 0 : checkVirtio(virtio, p);
  if (segments < 0) return drop(segments);

  const tunnel = leaseTunnel(vm, from, now, second);
  if (tunnel === 0) return drop(DROP_TOO_MANY_TUNNELS);
  const limit = limitOf(tunnel, vm, now);
  // Nearly every packet goes as it is.
  if (segments === 0 && total <= limit) {
    beginPacket(p, vm, tunnel);
    if (freeMessages() < 1) return stay(from, virtio, total);
    if (hasOption(OPTION_CLAMP_MSS) && canClamp(p)) clampMss(p, limit, virtio !== 0 && needsChecksum(virtio));
    count(d, vm, tunnel, 1, total);
    send(virtio, p, total);
    return FORWARD;
  }
  return encapsulateLong(d, virtio, p, vm, tunnel, segments, limit, now);
}

/** The same of a packet that is to be cut into `segments`, or fragmented if it is longer than `limit`. */
function encapsulateLong(
  d: usize,
  virtio: usize,
  p: usize,
  vm: u32,
  tunnel: usize,
  segments: i32,
  limit: i32,
  now: f64,
): i32 {
  const total = totalLength(p);
  const headers = segments === 0 ? 0 : headersLength(p);
  const size = segments === 0 ? total : min(gsoSize(virtio), total - headers);
  let fragments = 0;
  if (headers + size > limit) {
    if (isDontFragment(p)) {
      reply(p, FRAGMENTATION_NEEDED, limit, now);
      return drop(DROP_TOO_BIG);
    }
    fragments = countFragments(p, headers, size, limit);
  }
  const blocks = segments + fragments;
  const messages = fragments !== 0 ? fragments : messagesOf(segments, outerLength() + headers + size);
  if (messages > capacity() || blocks > HEADER_BLOCKS) return drop(DROP_TOO_LONG);
  beginPacket(p, vm, tunnel);
  if (messages > freeMessages() || blocks > freeBlocks()) return stay(source(p), virtio, total);
  const uncut = max(segments, 1);
  const packets = max(fragments, uncut);
  if (hasOption(OPTION_CLAMP_MSS) && canClamp(p)) clampMss(p, limit, virtio !== 0 && needsChecksum(virtio));
  const length = total + (uncut - 1) * headers + (packets - uncut) * headerLength(p);
  count(d, vm, tunnel, packets, length);
  if (segments > 1 && fragments === 0 && fitsWhole(virtio, p)) sendWhole(virtio, p, headers, packets, length);
  else if (segments !== 0) sendCut(p, headers, size, segments, fragments === 0 ? 0 : limit);
  else sendFragmented(virtio, p, limit);
  return FORWARD;
}

/** Leaves a packet to the next call: its share is given back. */
function stay(from: u32, virtio: usize, total: i32): i32 {
  if (hasShares(OUTBOUND_SHARES)) takeShare(OUTBOUND_SHARES, from, -workIn(virtio, total));
  return NO_ROOM;
}

/** Counts what goes to `vm`: `packets`, together of `bytes` bytes. */
function count(d: usize, vm: u32, tunnel: usize, packets: i32, bytes: i32): void {
  addF64(tunnel + TUNNEL_OUTBOUND_PACKETS, <f64>packets);
  addF64(tunnel + TUNNEL_OUTBOUND_BYTES, <f64>bytes);
  countForwarded(OUTBOUND_COUNTERS, packets, bytes);
  setPeer(d, vm);
}

/** The VM that the packet of descriptor `d` is for, unchecked. */
export function likelyReceiver(d: usize): u32 {
  if (!isInside(d) || bytes(d) < <u32>(VIRTIO_SIZE + IPV4_LENGTH)) return 0;
  let p = <usize>address(d);
  if (hasOffload(OFFLOAD_VIRTIO)) p += VIRTIO_SIZE;
  return vmOf(destination(p));
}

/** Notes the source of descriptor `d`, if the packet may be its own, and how much work it makes. */
export function demandOutbound(d: usize): void {
  if (!isInside(d)) return;
  const virtio = hasOffload(OFFLOAD_VIRTIO) ? <usize>address(d) : 0;
  const before = virtio === 0 ? 0 : VIRTIO_SIZE;
  const available = <i32>bytes(d) - before;
  if (available < IPV4_LENGTH) return;
  const p = <usize>address(d) + <usize>before;
  const sender = senderOf(source(p));
  if (sender === 0 || sender !== local()) return;
  demandShare(OUTBOUND_SHARES, source(p), workIn(virtio, min(totalLength(p), available)));
}

/** The work of a packet of `length` bytes. */
function workIn(virtio: usize, length: i32): i32 {
  const isWhole = virtio === 0 || <u32>load<u8>(virtio + VIRTIO_GSO_TYPE) === GSO_NONE;
  return workOf(length, isWhole ? 0 : gsoSize(virtio));
}

/** How many fragments of at most `limit` bytes the packet at `p` becomes, after it is cut into segments of `size` bytes if it has `headers` to repeat. */
function countFragments(p: usize, headers: i32, size: i32, limit: i32): i32 {
  const header = headerLength(p);
  if (headers === 0) return fragmentsOf(totalLength(p), header, limit);
  const payload = totalLength(p) - headers;
  const full = (payload - 1) / size;
  const last = headers + payload - full * size;
  return full * fragmentsOf(headers + size, header, limit) + fragmentsOf(last, header, limit);
}

/** Drops a packet that is for nobody, and says so. */
function refuse(p: usize, reason: i32, now: f64): i32 {
  reply(p, HOST_UNREACHABLE, 0, now);
  return drop(reason);
}

function drop(reason: i32): i32 {
  return countDropped(OUTBOUND_COUNTERS, reason);
}

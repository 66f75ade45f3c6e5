/** Container to underlay: a packet is checked, cut if it is a super-packet, and gets its outer headers (RFC 2003 §3.1, RFC 2784, RFC 8086). */
import {
  DROP_BAD_DESCRIPTOR,
  DROP_FOREIGN_SOURCE,
  DROP_NO_MAPPING,
  DROP_OWN_SLICE,
  DROP_RESERVED_ADDRESS,
  DROP_TOO_LONG,
  DROP_TRUNCATED,
  FORWARD,
  MESSAGES,
  MESSAGES_PER_PORT,
  OFFLOAD_GRE_SEGMENT,
  OFFLOAD_VIRTIO,
  OUTBOUND_COUNTERS,
  TUNNEL_OUTBOUND_BYTES,
  TUNNEL_OUTBOUND_PACKETS,
  VIRTIO_CHECKSUM_OFFSET,
  VIRTIO_CHECKSUM_START,
  VIRTIO_GSO_TYPE,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { hasOffload, isGreUdp, local, ttl } from './config';
import { countDropped, countForwarded } from './counters';
import { putSegment } from './cut';
import { address, bytes, isInside, setPeer } from './descriptor';
import { messageFor, outerLength, overhead, putOuter, sourcePort } from './encapsulation';
import { checkIpv4, destination, IPV4_LENGTH, MAX_TOTAL_LENGTH, protocol, source, totalLength } from './ipv4';
import { findMapping, isReserved, senderOf, vmIn, vmOf } from './mapping';
import {
  addCargo,
  addPiece,
  freeBlocks,
  messageCount,
  NO_ROOM,
  nameMessage,
  openMessage,
  setWhole,
  takeBlock,
} from './messages';
import { PROTOCOL_TCP } from './transport';
import { useTunnel } from './tunnels';
import { checkOffload, completeChecksum, gsoSize, headersLength, isTcpOpen, putVirtio } from './virtio';

/** Encapsulates the container's packet of descriptor `d` into messages, and counts it; answers the verdict, or NO_ROOM. */
export function encapsulatePacket(d: usize, now: f64): i32 {
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
  const sender = senderOf(source(p));
  if (sender === 0 || sender !== local()) return drop(DROP_FOREIGN_SOURCE);
  const dst = destination(p);
  const mapping = findMapping(dst);
  const vm = vmIn(mapping, dst);
  if (vm === 0) return drop(DROP_NO_MAPPING);
  if (vm === local()) return drop(DROP_OWN_SLICE);
  if (isReserved(mapping, dst)) return drop(DROP_RESERVED_ADDRESS);
  const segments = virtio === 0 ? 0 : checkOffload(virtio, p);
  if (segments < 0) return drop(segments);

  const headers = segments === 0 ? 0 : headersLength(p);
  const size = segments === 0 ? totalLength(p) : min(gsoSize(virtio), totalLength(p) - headers);
  if (headers + size + overhead() > MAX_TOTAL_LENGTH) return drop(DROP_TOO_LONG);
  const port = sourcePort(p);
  const capacity = isGreUdp() ? MESSAGES_PER_PORT : MESSAGES;
  if (messageCount(port) + max(segments, 1) > capacity || segments > freeBlocks()) return NO_ROOM;

  const whole = segments > 1 && hasOffload(OFFLOAD_GRE_SEGMENT) && fitsWhole(virtio, p);
  const packets = max(segments, 1);
  const length = totalLength(p) + (packets - 1) * headers;
  const tunnel = useTunnel(vm, now);
  addF64(tunnel + TUNNEL_OUTBOUND_PACKETS, <f64>packets);
  addF64(tunnel + TUNNEL_OUTBOUND_BYTES, <f64>length);
  countForwarded(OUTBOUND_COUNTERS, packets, length);
  setPeer(d, vm);
  if (segments === 0) send(virtio, p, vm, port);
  else if (whole) sendWhole(virtio, p, headers, packets, length, vm);
  else sendCut(p, headers, size, segments, vm, port);
  return FORWARD;
}

/** The VM that the packet of descriptor `d` is for, unchecked. */
export function likelyReceiver(d: usize): u32 {
  if (!isInside(d) || bytes(d) < <u32>(VIRTIO_SIZE + IPV4_LENGTH)) return 0;
  let p = <usize>address(d);
  if (hasOffload(OFFLOAD_VIRTIO)) p += VIRTIO_SIZE;
  return vmOf(destination(p));
}

function send(virtio: usize, p: usize, vm: u32, port: i32): void {
  if (virtio !== 0) completeChecksum(virtio, p);
  const length = totalLength(p);
  const outer = p - <usize>outerLength();
  putOuter(outer, length, vm, ttl());
  addPiece(messageFor(port, vm, outerLength() + length, length), outer, outerLength() + length);
}

/** Whoever receives a super-packet whole from a raw socket is not told where its datagrams end; only TCP needs no such thing. */
function fitsWhole(virtio: usize, p: usize): bool {
  if (isGreUdp() || protocol(p) !== PROTOCOL_TCP) return false;
  return totalLength(p) + overhead() <= MAX_TOTAL_LENGTH && isTcpOpen(virtio, p);
}

/** The kernel gets the super-packet back, as one of GRE; it forwards it, which takes one from the time to live. */
function sendWhole(virtio: usize, p: usize, headers: i32, packets: i32, bytes: i32, vm: u32): void {
  const gso = <u32>load<u8>(virtio + VIRTIO_GSO_TYPE);
  const size = gsoSize(virtio);
  const start = outerLength() + <i32>load<u16>(virtio + VIRTIO_CHECKSUM_START);
  const offset = <i32>load<u16>(virtio + VIRTIO_CHECKSUM_OFFSET);
  const outer = p - <usize>outerLength();
  putOuter(outer, totalLength(p), vm, min(ttl() + 1, 255));
  putVirtio(outer - VIRTIO_SIZE, gso, outerLength() + headers, size, start, offset);
  const message = openMessage(0);
  nameMessage(message, vm, 0);
  setWhole(message);
  addCargo(message, packets, bytes);
  addPiece(message, outer - VIRTIO_SIZE, VIRTIO_SIZE + outerLength() + totalLength(p));
}

function sendCut(p: usize, headers: i32, size: i32, segments: i32, vm: u32, port: i32): void {
  const payload = totalLength(p) - headers;
  for (let n = 0; n < segments; n++) {
    const length = min(size, payload - n * size);
    const outer = takeBlock();
    putOuter(outer, headers + length, vm, ttl());
    putSegment(outer + <usize>outerLength(), p, headers, n, size, length, n === segments - 1);
    const message = messageFor(port, vm, outerLength() + headers + length, headers + length);
    addPiece(message, outer, outerLength() + headers);
    addPiece(message, p + <usize>(headers + n * size), length);
  }
}

function drop(reason: i32): i32 {
  return countDropped(OUTBOUND_COUNTERS, reason);
}

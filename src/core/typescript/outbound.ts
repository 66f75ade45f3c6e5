/**
 * Container to underlay: a packet is checked and gets its outer headers (RFC 2003 §3.1, RFC 2784, RFC 8086); a
 * super-packet is cut on the way, or goes back to the kernel for that.
 */
import * as abi from '../abi.ts';
import { addF64, loadI32, type Memory, putI32 } from './bytes.ts';
import { configuredTtl, hasOffload, isGreUdp, localVm } from './config.ts';
import { countDropped, countForwarded } from './counters.ts';
import { freeBlocks, putSegment, takeBlock } from './cut.ts';
import { isInside, NO_ROOM } from './descriptor.ts';
import { outerLength, overhead, putOuter } from './encapsulation.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isReserved, senderOf, vmIn } from './mapping.ts';
import { addCargo, addPiece, freeMessages, markWhole, messageFor } from './messages.ts';
import { outerPort, PROTOCOL_TCP } from './transport.ts';
import { useTunnel } from './tunnels.ts';
import { checkVirtio, completeChecksum, gsoSize, headersLength, isChecksumOpen, putOuterVirtio } from './virtio.ts';

/** All messages of the format GRE are those of one port. */
const PORT = 0;
/** The largest time to live. */
const MAX_TTL = 0xff;

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
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  const vm = mapping === 0 ? 0 : vmIn(memory, mapping, destination);
  if (vm === 0) return abi.DROP_NO_MAPPING;
  if (vm === local) return abi.DROP_OWN_SLICE;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  const segments = virtioLength === 0 ? 0 : checkVirtio(memory, address, inner);
  if (segments < 0) return segments;
  const isCut = segments !== 0;
  const headers = isCut ? headersLength(memory, inner) : 0;
  const total = ipv4.totalLength(memory, inner);
  const first = isCut ? Math.min(total, headers + gsoSize(memory, address)) : total;
  if (overhead(memory) + first > ipv4.MAX_TOTAL_LENGTH) return abi.DROP_TOO_LONG;

  const packets = isCut ? segments : 1;
  const isUdp = isGreUdp(memory);
  const port = isUdp ? outerPort(memory, inner, loadI32(memory, abi.CONFIG + abi.CONFIG_PORTS)) : PORT;
  if (packets > freeMessages(memory, port, isUdp) || segments > freeBlocks(memory)) return NO_ROOM;

  // Each segment but the first has headers of its own.
  const bytes = total + (packets - 1) * headers;
  countForwarded(memory, abi.OUTBOUND_COUNTERS, packets, bytes);
  const tunnel = useTunnel(memory, vm, now);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_PACKETS, packets);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_BYTES, bytes);
  putI32(memory, descriptor + abi.DESCRIPTOR_PEER, vm);
  if (segments > 1 && staysWhole(memory, address, inner)) {
    const message = sendWhole(memory, address, inner, vm);
    addCargo(memory, message, packets, bytes);
  } else if (isCut) {
    sendCut(memory, inner, headers, gsoSize(memory, address), port, vm);
  } else {
    // Before the outer headers are: they take the virtio header's place.
    if (virtioLength !== 0) completeChecksum(memory, address, inner);
    sendSingle(memory, inner, port, vm);
  }
  return abi.FORWARD;
}

/** Makes the packet a message, or a part of one: outer headers in place before it. */
function sendSingle(memory: Memory, inner: number, port: number, vm: number): void {
  const length = ipv4.totalLength(memory, inner);
  const outer = outerLength(memory);
  const message = messageFor(memory, port, vm, outer + length);
  putOuter(memory, inner - outer, length, vm, configuredTtl(memory));
  addPiece(memory, message, inner - outer, outer + length);
  addCargo(memory, message, 1, length);
}

/** Whether the super-packet, whose virtio header is at `virtio`, goes back to the kernel, which can cut it. TCP only: of UDP the receiver could not tell the datagrams. */
function staysWhole(memory: Memory, virtio: number, inner: number): boolean {
  return (
    hasOffload(memory, abi.OFFLOAD_GRE_SEGMENT) &&
    !isGreUdp(memory) &&
    ipv4.protocol(memory, inner) === PROTOCOL_TCP &&
    overhead(memory) + ipv4.totalLength(memory, inner) <= ipv4.MAX_TOTAL_LENGTH &&
    isChecksumOpen(memory, virtio, inner)
  );
}

/**
 * Makes the super-packet a message for the overlay device: a virtio header and outer headers in place before it, over that
 * at `virtio`. Returns the message, whose cargo is to be added.
 */
function sendWhole(memory: Memory, virtio: number, inner: number, vm: number): number {
  const length = ipv4.totalLength(memory, inner);
  const outer = outerLength(memory);
  const start = inner - outer - abi.VIRTIO_SIZE;
  const message = messageFor(memory, PORT, vm, outer + length);
  // Before the outer headers are: they take the other virtio header's place.
  putOuterVirtio(memory, start, virtio, inner, outer);
  // The kernel forwards it, which takes one off.
  putOuter(memory, inner - outer, length, vm, Math.min(configuredTtl(memory) + 1, MAX_TTL));
  addPiece(memory, message, start, abi.VIRTIO_SIZE + outer + length);
  markWhole(memory, message);
  return message;
}

/** Makes each segment of `size` bytes of payload a message, or a part of one: headers in a block, payload in place. */
function sendCut(memory: Memory, inner: number, headers: number, size: number, port: number, vm: number): void {
  const outer = outerLength(memory);
  const payload = ipv4.totalLength(memory, inner) - headers;
  for (let n = 0, offset = 0; offset < payload; n++, offset += size) {
    const length = Math.min(size, payload - offset);
    const message = messageFor(memory, port, vm, outer + headers + length);
    const block = takeBlock(memory);
    putOuter(memory, block, headers + length, vm, configuredTtl(memory));
    putSegment(memory, block + outer, inner, headers, n, offset, length);
    addPiece(memory, message, block, outer + headers);
    addPiece(memory, message, inner + headers + offset, length);
    addCargo(memory, message, 1, headers + length);
  }
}

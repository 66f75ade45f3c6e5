/** What becomes of a packet that fits its tunnel: one message or, cut, several; or one super-packet, which the kernel cuts. */
import * as abi from '../abi.ts';
import { takeBlock } from './blocks.ts';
import type { Memory } from './bytes.ts';
import { fold, sum } from './checksum.ts';
import { configuredOptions, hasOffload, isGreUdp } from './config.ts';
import { putSegment } from './cut.ts';
import { outerLength, outerTtl, overhead, putOuter, skipIdentifications } from './encapsulation.ts';
import * as ipv4 from './ipv4.ts';
import { addContent, addPiece, MAX_UDP_PAYLOAD, markWhole, messageFor } from './messages.ts';
import { outerService } from './service.ts';
import { PROTOCOL_TCP } from './transport.ts';
import { isChecksumOpen, putOuterVirtio } from './virtio.ts';

/** The largest time to live. */
const MAX_TTL = 0xff;

/** Makes the packet a message, or a part of one: outer headers in place before it. */
export function sendSingle(
  memory: Memory,
  inner: number,
  options: number,
  tunnel: number,
  vm: number,
  port: number,
): void {
  const length = ipv4.totalLength(memory, inner);
  const outer = outerLength(memory, options);
  const tos = outerService(memory, inner, options);
  const ttl = outerTtl(memory, inner, options);
  const message = messageFor(memory, port, vm, tos, ttl, outer + length);
  const innerSum = (options & abi.OPTION_CHECKSUM) === 0 ? 0 : sum(memory, inner, length);
  putOuter(memory, inner, options, tunnel, vm, tos, ttl, innerSum);
  addPiece(memory, message, inner - outer, outer + length);
  addContent(memory, message, 1, length);
}

/** The most messages that so many segments, of `length` bytes each with their own headers, become: datagrams of one size share them. */
export function messagesOfCut(memory: Memory, segments: number, length: number): number {
  if (!isGreUdp(memory) || !hasOffload(memory, abi.OFFLOAD_UDP_SEGMENT)) return segments;
  const datagram = outerLength(memory, configuredOptions(memory)) + length;
  return Math.ceil(segments / Math.min(abi.PACKETS_PER_MESSAGE, Math.floor(MAX_UDP_PAYLOAD / datagram)));
}

/**
 * Makes each segment of `size` bytes of payload a message, or a part of one: headers, of which the packet's own are
 * `headers` bytes, in a block, payload in place.
 */
export function sendCut(
  memory: Memory,
  inner: number,
  headers: number,
  size: number,
  options: number,
  tunnel: number,
  vm: number,
  port: number,
): void {
  const outer = outerLength(memory, options);
  const tos = outerService(memory, inner, options);
  const ttl = outerTtl(memory, inner, options);
  const payload = ipv4.totalLength(memory, inner) - headers;
  for (let n = 0, offset = 0; offset < payload; n++, offset += size) {
    const length = Math.min(size, payload - offset);
    const message = messageFor(memory, port, vm, tos, ttl, outer + headers + length);
    const block = takeBlock(memory);
    const data = inner + headers + offset;
    putSegment(memory, block + outer, inner, headers, n, offset, length);
    const innerSum =
      (options & abi.OPTION_CHECKSUM) === 0 ? 0 : fold(sum(memory, block + outer, headers) + sum(memory, data, length));
    putOuter(memory, block + outer, options, tunnel, vm, tos, ttl, innerSum);
    addPiece(memory, message, block, outer + headers);
    addPiece(memory, message, data, length);
    addContent(memory, message, 1, headers + length);
  }
}

/**
 * Whether the super-packet, whose virtio header is at `virtio`, goes back to the kernel, which can cut it. TCP only: of
 * UDP the receiver could not tell the datagrams. What every packet has of its own, the kernel does not put.
 */
export function staysWhole(memory: Memory, virtio: number, inner: number, options: number): boolean {
  return (
    hasOffload(memory, abi.OFFLOAD_GRE_SEGMENT) &&
    !isGreUdp(memory) &&
    (options & (abi.OPTION_CHECKSUM | abi.OPTION_SEQUENCE)) === 0 &&
    ipv4.protocol(memory, inner) === PROTOCOL_TCP &&
    overhead(memory) + ipv4.totalLength(memory, inner) <= ipv4.MAX_TOTAL_LENGTH &&
    isChecksumOpen(memory, virtio, inner)
  );
}

/**
 * Makes the super-packet of `segments` segments, of `bytes` bytes together, a message for the overlay device: a virtio
 * header and outer headers in place before it, over that at `virtio`.
 */
export function sendWhole(
  memory: Memory,
  virtio: number,
  inner: number,
  segments: number,
  bytes: number,
  options: number,
  tunnel: number,
  vm: number,
  port: number,
): void {
  const length = ipv4.totalLength(memory, inner);
  const outer = outerLength(memory, options);
  const start = inner - outer - abi.VIRTIO_SIZE;
  const tos = outerService(memory, inner, options);
  // The kernel forwards it, which takes one off.
  const ttl = Math.min(outerTtl(memory, inner, options) + 1, MAX_TTL);
  const message = messageFor(memory, port, vm, tos, ttl, outer + length);
  // Before the outer headers are: they take the other virtio header's place.
  putOuterVirtio(memory, start, virtio, inner, outer);
  putOuter(memory, inner, options, tunnel, vm, tos, ttl, 0);
  skipIdentifications(memory, tunnel, options, segments - 1);
  addPiece(memory, message, start, abi.VIRTIO_SIZE + outer + length);
  addContent(memory, message, segments, bytes);
  markWhole(memory, message);
}

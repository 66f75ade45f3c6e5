/** What becomes of a packet that may go: one message or, cut or fragmented, several; or one super-packet, which the kernel cuts. */
import {
  OFFLOAD_GRE_SEGMENT,
  OPTION_CHECKSUM,
  OPTION_SEQUENCE,
  VIRTIO_CHECKSUM_OFFSET,
  VIRTIO_CHECKSUM_START,
  VIRTIO_GSO_TYPE,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { takeBlock } from './blocks';
import { hasOffload, hasOption, isGreUdp, overhead } from './config';
import { putSegment, transportSum } from './cut';
import { bodySum, loneMessage, messageFor, outerLength, putOuter, putWholeOuter, wholeMessage } from './encapsulation';
import { nextLength, putFragment } from './fragment';
import { headerLength, MAX_TOTAL_LENGTH, networkSum, protocol, totalLength } from './ipv4';
import { addPiece } from './messages';
import { PROTOCOL_TCP } from './transport';
import { completeChecksum, gsoSize, isTcpOpen, putVirtio } from './virtio';

/** Sends the packet at `p`, of `length` bytes, as it is. */
export function send(virtio: usize, p: usize, length: i32): void {
  if (virtio !== 0) completeChecksum(virtio, p);
  const outer = p - <usize>outerLength();
  putOuter(outer, length, bodySum(p, length, 0));
  messageFor(outer, outerLength() + length, outerLength() + length, length);
}

/** Sends the packet at `p` in fragments of at most `limit` bytes. */
export function sendFragmented(virtio: usize, p: usize, limit: i32): void {
  if (virtio !== 0) completeChecksum(virtio, p);
  sendFragments(p, totalLength(p) - headerLength(p), 0, limit);
}

/** Whoever receives a super-packet whole from a raw socket is not told where its datagrams end; only TCP needs no such thing. */
export function fitsWhole(virtio: usize, p: usize): bool {
  if (!hasOffload(OFFLOAD_GRE_SEGMENT) || isGreUdp() || protocol(p) !== PROTOCOL_TCP) return false;
  if (hasOption(OPTION_CHECKSUM | OPTION_SEQUENCE)) return false;
  return totalLength(p) + overhead() <= MAX_TOTAL_LENGTH && isTcpOpen(virtio, p);
}

/** The kernel gets the super-packet back, as one of GRE. */
export function sendWhole(virtio: usize, p: usize, headers: i32, packets: i32, bytes: i32): void {
  const gso = <u32>load<u8>(virtio + VIRTIO_GSO_TYPE);
  const size = gsoSize(virtio);
  const start = outerLength() + <i32>load<u16>(virtio + VIRTIO_CHECKSUM_START);
  const offset = <i32>load<u16>(virtio + VIRTIO_CHECKSUM_OFFSET);
  const outer = p - <usize>outerLength();
  putWholeOuter(outer, totalLength(p), packets);
  putVirtio(outer - VIRTIO_SIZE, gso, outerLength() + headers, size, start, offset);
  wholeMessage(outer - VIRTIO_SIZE, VIRTIO_SIZE + outerLength() + totalLength(p), packets, bytes);
}

/** Sends the segments of the super-packet at `p`; each in fragments of at most `limit` bytes if that is not 0. */
export function sendCut(p: usize, headers: i32, size: i32, segments: i32, limit: i32): void {
  const total = totalLength(p) - headers;
  const network = networkSum(p);
  const transport = transportSum(p, headers);
  for (let n = 0; n < segments; n++) {
    const length = min(size, total - n * size);
    const outer = takeBlock();
    const h = outer + <usize>outerLength();
    const payload = p + <usize>(headers + n * size);
    putSegment(h, p, headers, n, size, length, n === segments - 1, network, transport);
    if (limit !== 0) {
      sendFragments(h, headers - headerLength(h), payload, limit);
      continue;
    }
    putOuter(outer, headers + length, bodySum(payload, length, bodySum(h, headers, 0)));
    const near = outerLength() + headers;
    addPiece(messageFor(outer, near, near + length, headers + length), payload, length);
  }
}

/** Sends the packet whose header is at `p`, `near` bytes of its data behind that, and the rest of them at `far`, in fragments of at most `limit` bytes. */
function sendFragments(p: usize, near: i32, far: usize, limit: i32): void {
  const header = headerLength(p);
  const data = totalLength(p) - header;
  let length = 0;
  for (let at = 0; at < data; at += length) {
    length = nextLength(data - at, limit - header);
    const here = min(max(near - at, 0), length);
    const outer = takeBlock();
    const h = outer + <usize>outerLength();
    const first = p + <usize>(header + at);
    const rest = far + <usize>(at + here - near);
    putFragment(h, p, at, length, at + length === data);
    putOuter(outer, header + length, bodySum(rest, length - here, bodySum(first, here, bodySum(h, header, 0))));
    const message = loneMessage(outer, outerLength() + header, header + length);
    if (here > 0) addPiece(message, first, here);
    if (length > here) addPiece(message, rest, length - here);
  }
}

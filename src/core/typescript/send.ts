/**
 * What becomes of a packet that may go: one message or, cut or fragmented, several; or one super-packet, which the kernel cuts. Headers
 * are made in blocks or in place before the packet; the data stays where it is.
 */
import * as abi from '../abi.ts';
import { takeBlock } from './blocks.ts';
import { loadU8, loadU16, type Memory } from './bytes.ts';
import * as config from './config.ts';
import { putSegment } from './cut.ts';
import * as encapsulation from './encapsulation.ts';
import { bodySum, type Outgoing, outerLength, putOuter } from './encapsulation.ts';
import { nextLength, putFragment } from './fragment.ts';
import * as ipv4 from './ipv4.ts';
import { addPiece } from './messages.ts';
import { headersLength, PROTOCOL_TCP } from './transport.ts';
import { completeChecksum, gsoSize, isTcpOpen, putVirtio } from './virtio.ts';

/** Sends the packet at `p`, whose virtio header is at `virtio`, if that is not 0; in fragments of at most `limit` bytes, if that is not 0. */
export function send(memory: Memory, out: Outgoing, virtio: number, p: number, limit: number): void {
  // Before the outer headers are put: they take the virtio header's place.
  if (virtio !== 0) completeChecksum(memory, virtio, p);
  const length = ipv4.totalLength(memory, p);
  if (limit !== 0) {
    sendFragments(memory, out, p, length, 0, limit);
    return;
  }
  const outer = outerLength(memory);
  putOuter(memory, out, p, bodySum(memory, p, length));
  const message = encapsulation.messageFor(memory, out, outer + length, length);
  addPiece(memory, message, p - outer, outer + length);
}

/**
 * Whether the super-packet at `p` goes back to the kernel, which can cut it. TCP only: of UDP the receiver could not tell the
 * datagrams. What every packet has of its own, the kernel does not put.
 */
export function fitsWhole(memory: Memory, virtio: number, p: number): boolean {
  return (
    config.hasOffload(memory, abi.OFFLOAD_GRE_SEGMENT) &&
    !config.isGreUdp(memory) &&
    !config.hasOption(memory, abi.OPTION_CHECKSUM | abi.OPTION_SEQUENCE) &&
    ipv4.protocol(memory, p) === PROTOCOL_TCP &&
    config.overhead(memory) + ipv4.totalLength(memory, p) <= ipv4.MAX_TOTAL_LENGTH &&
    isTcpOpen(memory, virtio, p)
  );
}

/** Sends the super-packet at `p`, of so many packets with `bytes` bytes together, back to the kernel: outer headers and a virtio header before it. */
export function sendWhole(
  memory: Memory,
  out: Outgoing,
  virtio: number,
  p: number,
  packets: number,
  bytes: number,
): void {
  const outer = outerLength(memory);
  const start = p - outer - abi.VIRTIO_SIZE;
  // Read before the outer headers are put: they take the other virtio header's place.
  const gso = loadU8(memory, virtio + abi.VIRTIO_GSO_TYPE);
  const size = gsoSize(memory, virtio);
  const checksumStart = outer + loadU16(memory, virtio + abi.VIRTIO_CHECKSUM_START);
  const checksumOffset = loadU16(memory, virtio + abi.VIRTIO_CHECKSUM_OFFSET);
  encapsulation.putWholeOuter(memory, out, p, packets);
  putVirtio(memory, start, gso, outer + headersLength(memory, p), size, checksumStart, checksumOffset);
  const message = encapsulation.wholeMessage(memory, out, packets, bytes);
  addPiece(memory, message, start, abi.VIRTIO_SIZE + outer + ipv4.totalLength(memory, p));
}

/**
 * Sends each segment of `size` bytes of payload of the super-packet at `p`, whose own headers are `headers` bytes; in fragments of at
 * most `limit` bytes, if that is not 0.
 */
export function sendCut(memory: Memory, out: Outgoing, p: number, headers: number, size: number, limit: number): void {
  const outer = outerLength(memory);
  const payload = ipv4.totalLength(memory, p) - headers;
  for (let n = 0, offset = 0; offset < payload; n++, offset += size) {
    const length = Math.min(size, payload - offset);
    const block = takeBlock(memory);
    const segment = block + outer;
    const data = p + headers + offset;
    putSegment(memory, segment, p, headers, n, offset, length);
    if (limit !== 0) {
      sendFragments(memory, out, segment, headers, data, limit);
      continue;
    }
    putOuter(memory, out, segment, bodySum(memory, segment, headers) + bodySum(memory, data, length));
    const message = encapsulation.messageFor(memory, out, outer + headers + length, headers + length);
    addPiece(memory, message, block, outer + headers);
    addPiece(memory, message, data, length);
  }
}

/**
 * Sends the packet at `p` in fragments of at most `limit` bytes. The first `near` bytes of the packet lie there, the others at `far`;
 * `near` is even.
 */
function sendFragments(memory: Memory, out: Outgoing, p: number, near: number, far: number, limit: number): void {
  const outer = outerLength(memory);
  const header = ipv4.headerLength(memory, p);
  const total = ipv4.totalLength(memory, p);
  for (let start = header, length = 0; start < total; start += length) {
    length = nextLength(total - start, limit - header);
    const block = takeBlock(memory);
    const fragment = block + outer;
    putFragment(memory, fragment, p, start - header, length);

    const nearLength = Math.min(Math.max(near - start, 0), length);
    const farLength = length - nearLength;
    const farStart = far + start + nearLength - near;
    const data = bodySum(memory, p + start, nearLength) + bodySum(memory, farStart, farLength);
    putOuter(memory, out, fragment, bodySum(memory, fragment, header) + data);

    const message = encapsulation.loneMessage(memory, out, header + length);
    addPiece(memory, message, block, outer + header);
    if (nearLength !== 0) addPiece(memory, message, p + start, nearLength);
    if (farLength !== 0) addPiece(memory, message, farStart, farLength);
  }
}

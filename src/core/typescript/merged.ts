/**
 * Packets that reach the host merged: by GRO, or because no wire has cut them (GSO). Each is handed on with the segment size
 * that the host knows of, or with one that fits everywhere; where the device takes no super-packet, it is cut here.
 */
import * as abi from '../abi.ts';
import { type Memory, putU16 } from './bytes.ts';
import { fold } from './checksum.ts';
import { configuredMtu, hasOffload } from './config.ts';
import { putSegment } from './cut.ts';
import * as ipv4 from './ipv4.ts';
import { addContent, addPiece, openMessage } from './messages.ts';
import * as transport from './transport.ts';
import { clearVirtio, headersLength, putVirtio } from './virtio.ts';

/** Inbound, all messages are those of one port. */
const PORT = 0;

/**
 * Whether nobody can tell what packets the one at `p`, of which the host knows nothing, was: it is too long for one, and its
 * checksum is open (UDP) or wrong. Where GRO makes a list of packets (rx-gro-list), it leaves the first one's checksum there.
 */
export function isUndividable(memory: Memory, p: number): boolean {
  if (ipv4.totalLength(memory, p) <= configuredMtu(memory) || !transport.hasHeaders(memory, p)) return false;
  const isUdp = ipv4.protocol(memory, p) === transport.PROTOCOL_UDP;
  if (transport.isOpen(memory, p)) return isUdp;
  if (isUdp && transport.udpChecksum(memory, p + ipv4.headerLength(memory, p)) === 0) return false;
  return !transport.isChecksumRight(memory, p);
}

/** Bytes of payload in each segment of the packet at `p`; 0 if it is one packet. `merged` is the descriptor's, as a signed number. */
export function segmentSize(memory: Memory, p: number, merged: number): number {
  if (merged < 0 || !transport.hasHeaders(memory, p)) return 0; // 2^31 and more, NOT_MERGED among them, is more than any payload.
  const total = ipv4.totalLength(memory, p);
  const headers = headersLength(memory, p);
  if (merged !== 0) return merged < total - headers ? merged : 0;
  const isLong = ipv4.protocol(memory, p) === transport.PROTOCOL_TCP && total > abi.LEAST_PATH_MTU;
  return isLong && transport.isOpen(memory, p) ? abi.LEAST_PATH_MTU - headers : 0;
}

/** How many packets the packet at `p` is, given its segment size. */
export function packetsOf(memory: Memory, p: number, size: number): number {
  return size === 0 ? 1 : Math.ceil((ipv4.totalLength(memory, p) - headersLength(memory, p)) / size);
}

/** Bytes of these packets together. */
export function bytesOf(memory: Memory, p: number, packets: number): number {
  const total = ipv4.totalLength(memory, p);
  return packets === 1 ? total : total + (packets - 1) * headersLength(memory, p);
}

/** How many messages the packet at `p` becomes. */
export function messagesOf(memory: Memory, p: number, size: number): number {
  return takesWhole(memory, p) ? 1 : packetsOf(memory, p, size);
}

/** Hands the merged packet on, in one message or in one for each segment. */
export function deliverSegments(memory: Memory, p: number, size: number): void {
  if (takesWhole(memory, p)) deliverWhole(memory, p, size);
  else deliverCut(memory, p, size);
}

/** Whether the overlay device takes super-packets of this packet's protocol. */
function takesWhole(memory: Memory, p: number): boolean {
  if (!hasOffload(memory, abi.OFFLOAD_VIRTIO)) return false;
  return ipv4.protocol(memory, p) === transport.PROTOCOL_TCP || hasOffload(memory, abi.OFFLOAD_UDP_MERGE);
}

function deliverWhole(memory: Memory, p: number, size: number): void {
  const total = ipv4.totalLength(memory, p);
  const header = ipv4.headerLength(memory, p);
  // Of a list, these are still the first packet's.
  if (ipv4.protocol(memory, p) === transport.PROTOCOL_UDP) transport.putUdpLength(memory, p + header, total - header);
  putU16(memory, transport.checksumOf(memory, p), fold(transport.pseudoSum(memory, p)));

  const message = openMessage(memory, PORT);
  const virtio = blockOf(message);
  putVirtio(memory, virtio, p, size);
  addPiece(memory, message, virtio, abi.VIRTIO_SIZE);
  addPiece(memory, message, p, total);
  const packets = packetsOf(memory, p, size);
  addContent(memory, message, packets, bytesOf(memory, p, packets));
}

function deliverCut(memory: Memory, p: number, size: number): void {
  const headers = headersLength(memory, p);
  const payload = ipv4.totalLength(memory, p) - headers;
  const virtioLength = hasOffload(memory, abi.OFFLOAD_VIRTIO) ? abi.VIRTIO_SIZE : 0;
  for (let n = 0, offset = 0; offset < payload; n++, offset += size) {
    const length = Math.min(size, payload - offset);
    const message = openMessage(memory, PORT);
    const block = blockOf(message);
    if (virtioLength !== 0) {
      clearVirtio(memory, block);
      addPiece(memory, message, block, virtioLength);
    }
    putSegment(memory, block + virtioLength, p, headers, n, offset, length);
    addPiece(memory, message, block + virtioLength, headers);
    addPiece(memory, message, p + headers + offset, length);
    addContent(memory, message, 1, headers + length);
  }
}

/** The header block that goes with a message. */
function blockOf(message: number): number {
  return abi.HEADERS + message * abi.HEADER_BLOCK_SIZE;
}

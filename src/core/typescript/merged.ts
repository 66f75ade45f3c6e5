/**
 * Packets that reach the host merged: by GRO, or because no wire has cut them (GSO). Each is handed on with the segment size
 * that the host knows of, or with one that fits everywhere; where the device takes no super-packet, it is cut here.
 */
import * as abi from '../abi.ts';
import { blockOf } from './blocks.ts';
import { getU16, type Memory, putU16 } from './bytes.ts';
import { fold } from './checksum.ts';
import { hasOffload, mtu } from './config.ts';
import { putSegment } from './cut.ts';
import * as ipv4 from './ipv4.ts';
import { addContent, addPiece, openMessage } from './messages.ts';
import * as transport from './transport.ts';
import { clearVirtio, GSO_TCPV4, GSO_UDP_L4, putVirtio } from './virtio.ts';

/** Inbound, all messages are those of one port. */
const PORT = 0;

/**
 * Whether nobody can tell what packets the one at `p`, of which the host knows nothing, was: it is too long for one, and its
 * checksum is open (UDP) or wrong. Where GRO makes a list of packets (rx-gro-list), it leaves the first one's checksum there.
 */
export function isUndividable(memory: Memory, p: number): boolean {
  if (ipv4.totalLength(memory, p) <= mtu(memory) || !transport.hasHeaders(memory, p)) return false;
  const isUdp = ipv4.protocol(memory, p) === transport.PROTOCOL_UDP;
  if (transport.openChecksum(memory, p) !== 0) return isUdp;
  const udpChecksum = p + ipv4.headerLength(memory, p) + transport.UDP_CHECKSUM;
  if (isUdp && getU16(memory, udpChecksum) === 0) return false;
  return !transport.isChecksumRight(memory, p);
}

/** Bytes of payload in each segment of the packet at `p`; 0 if it is one packet. `merged` is the descriptor's. */
export function segmentSize(memory: Memory, p: number, merged: number): number {
  if (merged === abi.NOT_MERGED || !transport.hasHeaders(memory, p)) return 0;
  const total = ipv4.totalLength(memory, p);
  const headers = transport.headersLength(memory, p);
  if (merged !== 0) return merged < total - headers ? merged : 0;
  const isLong = ipv4.protocol(memory, p) === transport.PROTOCOL_TCP && total > abi.LEAST_PATH_MTU;
  return isLong && transport.openChecksum(memory, p) !== 0 ? abi.LEAST_PATH_MTU - headers : 0;
}

/** How many packets the packet at `p` is, given its segment size. */
export function packetsOf(memory: Memory, p: number, size: number): number {
  return Math.ceil((ipv4.totalLength(memory, p) - transport.headersLength(memory, p)) / size);
}

/** Bytes of these packets together. */
export function bytesOf(memory: Memory, p: number, packets: number): number {
  return ipv4.totalLength(memory, p) + (packets - 1) * transport.headersLength(memory, p);
}

/** Whether the overlay device does not take super-packets of this packet's protocol. */
export function isCutHere(memory: Memory, p: number): boolean {
  if (!hasOffload(memory, abi.OFFLOAD_VIRTIO)) return true;
  return ipv4.protocol(memory, p) === transport.PROTOCOL_UDP && !hasOffload(memory, abi.OFFLOAD_UDP_MERGE);
}

/** Hands the merged packet on, in one message or in one for each segment. */
export function deliverMerged(memory: Memory, p: number, size: number): void {
  if (isCutHere(memory, p)) deliverCut(memory, p, size);
  else deliverWhole(memory, p, size);
}

function deliverWhole(memory: Memory, p: number, size: number): void {
  const total = ipv4.totalLength(memory, p);
  const header = ipv4.headerLength(memory, p);
  const isTcp = ipv4.protocol(memory, p) === transport.PROTOCOL_TCP;
  const offset = transport.checksumOffset(memory, p);
  // Of a list, these are still the first packet's.
  if (!isTcp) putU16(memory, p + header + transport.UDP_LENGTH_FIELD, total - header);
  putU16(memory, p + header + offset, fold(transport.pseudoSum(memory, p)));

  const message = openMessage(memory, PORT);
  const virtio = blockOf(message);
  const headers = transport.headersLength(memory, p);
  putVirtio(memory, virtio, isTcp ? GSO_TCPV4 : GSO_UDP_L4, headers, size, header, offset);
  addPiece(memory, message, virtio, abi.VIRTIO_SIZE);
  addPiece(memory, message, p, total);
  const packets = packetsOf(memory, p, size);
  addContent(memory, message, packets, bytesOf(memory, p, packets));
}

function deliverCut(memory: Memory, p: number, size: number): void {
  const headers = transport.headersLength(memory, p);
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

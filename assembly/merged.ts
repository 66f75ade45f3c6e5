/**
 * Inner packets that the kernel merged before the host got them (GRO), or that never crossed a wire (GSO): they are handed on with the segment size that they
 * had, as the host says, or with one that surely fits.
 */
import { LEAST_PATH_MTU, NOT_MERGED, OFFLOAD_UDP_MERGE, OFFLOAD_VIRTIO, VIRTIO_SIZE } from '../src/core/abi';
import { blockOf } from './blocks';
import { putU16 } from './bytes';
import { fold } from './checksum';
import { hasOffload, mtu } from './config';
import { putSegment, transportSum } from './cut';
import { headerLength, networkSum, protocol, totalLength } from './ipv4';
import { addPiece, openMessage, setContent, setPiece } from './messages';
import {
  checksumOffset,
  hasHeaders,
  headersLength,
  isChecksumRight,
  openChecksum,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoSum,
  UDP_CHECKSUM,
  UDP_LENGTH_FIELD,
} from './transport';
import { clearVirtio, GSO_TCPV4, GSO_UDP_L4, putVirtio } from './virtio';

/**
 * Whether the packet at `p` must have been merged, and cannot be taken apart without its segment size: it is longer than the tunnel carries, and its checksum
 * is not that of one packet. With rx-gro-list it is that of the first (udp4_gro_complete, net/ipv4/udp_offload.c).
 */
export function isUndividable(p: usize): bool {
  if (totalLength(p) <= mtu() || !hasHeaders(p)) return false;
  if (openChecksum(p) !== 0) return protocol(p) === PROTOCOL_UDP;
  if (protocol(p) === PROTOCOL_UDP && load<u16>(p + <usize>headerLength(p) + UDP_CHECKSUM) === 0) return false;
  return !isChecksumRight(p);
}

/**
 * Bytes of payload of each packet that the one at `p` is to be cut into; 0 if it is to stay as it is. `merged` is what the host says. Where it says nothing,
 * TCP whose checksum is open gets what fits every path that Linux knows of: no size may be guessed upwards.
 */
export function segmentSize(p: usize, merged: u32): i32 {
  if (merged === NOT_MERGED || !hasHeaders(p)) return 0;
  const headers = headersLength(p);
  let size = merged;
  if (merged === 0) {
    if (protocol(p) !== PROTOCOL_TCP || totalLength(p) <= LEAST_PATH_MTU || openChecksum(p) === 0) return 0;
    size = LEAST_PATH_MTU - headers;
  }
  return size < <u32>(totalLength(p) - headers) ? <i32>size : 0;
}

/** How many packets that gives. */
export function packetsOf(p: usize, size: i32): i32 {
  return (totalLength(p) - headersLength(p) - 1) / size + 1;
}

/** Bytes of these packets together. */
export function bytesOf(p: usize, packets: i32): i32 {
  return totalLength(p) + (packets - 1) * headersLength(p);
}

/** Whether the overlay device does not take a super-packet (GSO) of this protocol, so that the core has to cut it. */
export function isCutHere(p: usize): bool {
  return !hasOffload(OFFLOAD_VIRTIO) || (protocol(p) === PROTOCOL_UDP && !hasOffload(OFFLOAD_UDP_MERGE));
}

/** Hands the merged packet at `p` over to the container. */
export function deliverMerged(p: usize, size: i32): void {
  if (isCutHere(p)) deliverCut(p, size);
  else deliverWhole(p, size);
}

/** As a super-packet: the kernel cuts it where it has to. */
function deliverWhole(p: usize, size: i32): void {
  const start = headerLength(p);
  const t = p + <usize>start;
  const length = totalLength(p) - start;
  const headers = headersLength(p);
  const packets = packetsOf(p, size);
  const message = openMessage(0);
  const isTcp = protocol(p) === PROTOCOL_TCP;
  const field = checksumOffset(p);
  if (!isTcp) putU16(t + UDP_LENGTH_FIELD, <u32>length);
  store<u16>(t + field, <u16>fold(pseudoSum(p, length)));
  putVirtio(blockOf(message), isTcp ? GSO_TCPV4 : GSO_UDP_L4, headers, size, start, <i32>field);
  setPiece(message, blockOf(message), VIRTIO_SIZE);
  addPiece(message, p, totalLength(p));
  setContent(message, packets, bytesOf(p, packets), 0, 0);
}

/** Packet by packet. */
function deliverCut(p: usize, size: i32): void {
  const headers = headersLength(p);
  const payload = totalLength(p) - headers;
  const before = hasOffload(OFFLOAD_VIRTIO) ? VIRTIO_SIZE : 0;
  const network = networkSum(p);
  const transport = transportSum(p, headers);
  for (let n = 0, at = 0; at < payload; n++, at += size) {
    const length = min(size, payload - at);
    const message = openMessage(0);
    const b = blockOf(message);
    const h = b + <usize>before;
    if (before !== 0) {
      clearVirtio(b);
      setPiece(message, b, before);
      addPiece(message, h, headers);
    } else {
      setPiece(message, h, headers);
    }
    putSegment(h, p, headers, n, size, length, at + length === payload, network, transport);
    addPiece(message, p + <usize>(headers + at), length);
    setContent(message, 1, headers + length, 0, 0);
  }
}

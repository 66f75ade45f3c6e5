/** `struct virtio_net_hdr`, which a TUN device puts before each packet (<linux/virtio_net.h>; VIRTIO 1.2 §5.1.6). */
import * as abi from '../abi.ts';
import { getU8, loadU16, type Memory, putI32, putU8, putU16, storeU16 } from './bytes.ts';
import { completeSum } from './checksum.ts';
import { overhead } from './encapsulation.ts';
import * as ipv4 from './ipv4.ts';
import * as transport from './transport.ts';

// From the specification.

/** VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum field holds the pseudo header's sum; the rest is to be added. */
const NEEDS_CSUM = 1;
/** VIRTIO_NET_HDR_GSO_NONE, _TCPV4 and _UDP_L4; the bit _ECN may be set in addition. */
const GSO_NONE = 0;
const GSO_TCPV4 = 1;
const GSO_UDP_L4 = 5;
const GSO_ECN = 0x80;

/**
 * Checks the header at `v` against the packet at `p`, whose IPv4 header is right. Returns how many segments the packet is
 * to be cut into, 0 if it is to stay whole, or a drop reason.
 */
export function checkVirtio(memory: Memory, v: number, p: number): number {
  const type = getU8(memory, v + abi.VIRTIO_GSO_TYPE) & ~GSO_ECN;
  if (type === GSO_NONE) return isChecksumPlaced(memory, v, p) ? 0 : abi.DROP_BAD_OFFLOAD;

  const protocol = ipv4.protocol(memory, p);
  const isTcp = type === GSO_TCPV4 && protocol === transport.PROTOCOL_TCP;
  const isUdp = type === GSO_UDP_L4 && protocol === transport.PROTOCOL_UDP;
  if ((!isTcp && !isUdp) || ipv4.isFragment(memory, p)) return abi.DROP_BAD_OFFLOAD;
  // Where a TCP header has no room, its length is not there to be read.
  const total = ipv4.totalLength(memory, p);
  const fixed = ipv4.headerLength(memory, p) + (isTcp ? transport.TCP_LENGTH : transport.UDP_LENGTH);
  if (fixed >= total) return abi.DROP_BAD_OFFLOAD;
  const headers = headersLength(memory, p);
  const size = gsoSize(memory, v);
  if (headers < fixed || headers >= total || size === 0) return abi.DROP_BAD_OFFLOAD;
  const segments = Math.ceil((total - headers) / size);
  if (segments !== 1 && isTiny(size, isTcp, headers + overhead(memory))) return abi.DROP_TINY_SEGMENTS;
  return segments <= (isTcp ? abi.MAX_SEGMENTS : abi.MAX_UDP_SEGMENTS) ? segments : abi.DROP_BAD_OFFLOAD;
}

/** Whether segments of `size` bytes, with `headers` bytes of headers on the wire, are smaller than any that honest hosts send. */
function isTiny(size: number, isTcp: boolean, headers: number): boolean {
  // What is sent is then less than twice what the container has sent.
  if (size < headers) return true;
  return size < (isTcp ? abi.LEAST_TCP_SEGMENT : abi.LEAST_UDP_SEGMENT);
}

/** Bytes in the IPv4 header and the TCP or UDP header of the packet at `p`, which is one of the two. */
export function headersLength(memory: Memory, p: number): number {
  const header = ipv4.headerLength(memory, p);
  if (ipv4.protocol(memory, p) === transport.PROTOCOL_UDP) return header + transport.UDP_LENGTH;
  return header + transport.tcpHeaderLength(memory, p + header);
}

/** Bytes of payload in each segment but the last. */
export function gsoSize(memory: Memory, v: number): number {
  return loadU16(memory, v + abi.VIRTIO_GSO_SIZE);
}

/** The same, or 0 if the packet is not to be cut: for a header that is not checked yet. */
export function cutSize(memory: Memory, v: number): number {
  return getU8(memory, v + abi.VIRTIO_GSO_TYPE) === GSO_NONE ? 0 : gsoSize(memory, v);
}

/** Whether the header at `v` asks for a checksum to be completed. */
export function needsChecksum(memory: Memory, v: number): boolean {
  return (getU8(memory, v + abi.VIRTIO_FLAGS) & NEEDS_CSUM) !== 0;
}

/** Completes the checksum of the packet at `p` if the header at `v` asks for it. */
export function completeChecksum(memory: Memory, v: number, p: number): void {
  if (!needsChecksum(memory, v)) return;
  const start = loadU16(memory, v + abi.VIRTIO_CHECKSUM_START);
  const field = p + start + loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET);
  completeSum(memory, p + start, p + ipv4.totalLength(memory, p), field);
}

/** Puts a header that says nothing: the packet is whole and its checksum is there. */
export function clearVirtio(memory: Memory, v: number): void {
  putI32(memory, v, 0);
  putI32(memory, v + 4, 0);
  putU16(memory, v + 8, 0);
}

/** Puts the header of the super-packet at `p`; `size` is its first segment's payload in bytes. */
export function putVirtio(memory: Memory, v: number, p: number, size: number): void {
  const type = ipv4.protocol(memory, p) === transport.PROTOCOL_TCP ? GSO_TCPV4 : GSO_UDP_L4;
  const start = ipv4.headerLength(memory, p);
  putHeader(memory, v, type, headersLength(memory, p), size, start, checksumOffset(memory, p));
}

/** Puts the header of the packet at `p`, whose checksum is open and which stays one packet. */
export function putOpenVirtio(memory: Memory, v: number, p: number): void {
  putHeader(memory, v, GSO_NONE, 0, 0, ipv4.headerLength(memory, p), checksumOffset(memory, p));
}

/**
 * Puts at `v` the header of a super-packet in `outer` bytes of outer headers; `from` is that of the super-packet alone,
 * which is at `p`.
 */
export function putOuterVirtio(memory: Memory, v: number, from: number, p: number, outer: number): void {
  const type = getU8(memory, from + abi.VIRTIO_GSO_TYPE);
  const start = outer + loadU16(memory, from + abi.VIRTIO_CHECKSUM_START);
  const offset = loadU16(memory, from + abi.VIRTIO_CHECKSUM_OFFSET);
  putHeader(memory, v, type, outer + headersLength(memory, p), gsoSize(memory, from), start, offset);
}

/** Whether the header at `v` says that the checksum of the TCP or UDP packet at `p` is open, and where it is. */
export function isChecksumOpen(memory: Memory, v: number, p: number): boolean {
  return (
    needsChecksum(memory, v) &&
    loadU16(memory, v + abi.VIRTIO_CHECKSUM_START) === ipv4.headerLength(memory, p) &&
    loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET) === checksumOffset(memory, p)
  );
}

/** Puts a header that leaves the checksum open. */
function putHeader(
  memory: Memory,
  v: number,
  type: number,
  header: number,
  size: number,
  start: number,
  offset: number,
): void {
  putU8(memory, v + abi.VIRTIO_FLAGS, NEEDS_CSUM);
  putU8(memory, v + abi.VIRTIO_GSO_TYPE, type);
  storeU16(memory, v + abi.VIRTIO_HEADER_LENGTH, header);
  storeU16(memory, v + abi.VIRTIO_GSO_SIZE, size);
  storeU16(memory, v + abi.VIRTIO_CHECKSUM_START, start);
  storeU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET, offset);
}

/** Where the checksum is, in bytes from the start of the packet's TCP or UDP header. */
function checksumOffset(memory: Memory, p: number): number {
  return ipv4.protocol(memory, p) === transport.PROTOCOL_TCP ? transport.TCP_CHECKSUM : transport.UDP_CHECKSUM;
}

/** Whether the checksum that is to be completed, if any, lies behind the IPv4 header and within the packet. */
function isChecksumPlaced(memory: Memory, v: number, p: number): boolean {
  if (!needsChecksum(memory, v)) return true;
  const start = loadU16(memory, v + abi.VIRTIO_CHECKSUM_START);
  const end = start + loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET) + 2;
  return ipv4.headerLength(memory, p) <= start && end <= ipv4.totalLength(memory, p);
}

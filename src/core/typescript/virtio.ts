/** `struct virtio_net_hdr`, which a TUN device puts before each packet (<linux/virtio_net.h>; VIRTIO 1.2 §5.1.6). */
import * as abi from '../abi.ts';
import { loadU8, loadU16, type Memory, storeU8, storeU16 } from './bytes.ts';
import { overhead } from './config.ts';
import * as ipv4 from './ipv4.ts';
import * as transport from './transport.ts';

// From the specification.

/** VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum field holds the pseudo header's sum; the rest is to be added. */
const NEEDS_CHECKSUM = 1;
/** VIRTIO_NET_HDR_GSO_NONE, _TCPV4 and _UDP_L4; the bit _ECN may be set in addition. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_UDP_L4 = 5;
const GSO_ECN = 0x80;

/**
 * Checks the header at `v` against the packet at `p`, whose IPv4 header is right. Returns how many segments the packet is
 * to be cut into, 0 if it is to stay whole, or a drop reason.
 */
export function checkVirtio(memory: Memory, v: number, p: number): number {
  const type = loadU8(memory, v + abi.VIRTIO_GSO_TYPE) & ~GSO_ECN;
  if (type === GSO_NONE) return isChecksumPlaced(memory, v, p) ? 0 : abi.DROP_BAD_OFFLOAD;

  const protocol = ipv4.protocol(memory, p);
  const isTcp = type === GSO_TCPV4 && protocol === transport.PROTOCOL_TCP;
  const isUdp = type === GSO_UDP_L4 && protocol === transport.PROTOCOL_UDP;
  if ((!isTcp && !isUdp) || ipv4.isFragment(memory, p)) return abi.DROP_BAD_OFFLOAD;
  // Where a TCP header has no room, its length is not there to be read.
  const total = ipv4.totalLength(memory, p);
  const fixed = ipv4.headerLength(memory, p) + (isTcp ? transport.TCP_MIN_LENGTH : transport.UDP_LENGTH);
  if (fixed >= total) return abi.DROP_BAD_OFFLOAD;
  const headers = transport.headersLength(memory, p);
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

/** Whether the header at `v` leaves the checksum of the TCP packet at `p` open, and where it usually is: so the kernel takes it back. */
export function isTcpOpen(memory: Memory, v: number, p: number): boolean {
  return (
    needsChecksum(memory, v) &&
    loadU16(memory, v + abi.VIRTIO_CHECKSUM_START) === ipv4.headerLength(memory, p) &&
    loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET) === transport.TCP_CHECKSUM
  );
}

/** Bytes of payload in each segment but the last. */
export function gsoSize(memory: Memory, v: number): number {
  return loadU16(memory, v + abi.VIRTIO_GSO_SIZE);
}

/** Completes the checksum of the packet at `p` if the header at `v` asks for it. */
export function completeChecksum(memory: Memory, v: number, p: number): void {
  if (!needsChecksum(memory, v)) return;
  const start = loadU16(memory, v + abi.VIRTIO_CHECKSUM_START);
  transport.putChecksum(memory, p, start, loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET));
}

/** Puts a header that says nothing: the packet is whole and its checksum is there. */
export function clearVirtio(memory: Memory, v: number): void {
  for (let i = 0; i < abi.VIRTIO_SIZE; i++) storeU8(memory, v + i, 0);
}

/**
 * Puts a header that leaves the checksum open, of what begins at byte `start` of the packet, in the field `offset` bytes further. If `gso`
 * is not GSO_NONE, the packet is a super-packet with so many bytes of headers, and `size` bytes of payload in each segment.
 */
export function putVirtio(
  memory: Memory,
  v: number,
  gso: number,
  headers: number,
  size: number,
  start: number,
  offset: number,
): void {
  storeU8(memory, v + abi.VIRTIO_FLAGS, NEEDS_CHECKSUM);
  storeU8(memory, v + abi.VIRTIO_GSO_TYPE, gso);
  storeU16(memory, v + abi.VIRTIO_HEADER_LENGTH, headers);
  storeU16(memory, v + abi.VIRTIO_GSO_SIZE, size);
  storeU16(memory, v + abi.VIRTIO_CHECKSUM_START, start);
  storeU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET, offset);
}

/** Whether the header at `v` asks for a checksum to be completed. */
export function needsChecksum(memory: Memory, v: number): boolean {
  return (loadU8(memory, v + abi.VIRTIO_FLAGS) & NEEDS_CHECKSUM) !== 0;
}

/** Whether the checksum that is to be completed, if any, lies behind the IPv4 header and within the packet. */
function isChecksumPlaced(memory: Memory, v: number, p: number): boolean {
  if (!needsChecksum(memory, v)) return true;
  const start = loadU16(memory, v + abi.VIRTIO_CHECKSUM_START);
  const end = start + loadU16(memory, v + abi.VIRTIO_CHECKSUM_OFFSET) + 2;
  return ipv4.headerLength(memory, p) <= start && end <= ipv4.totalLength(memory, p);
}

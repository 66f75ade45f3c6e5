/**
 * The header that a TUN device with IFF_VNET_HDR puts before each packet (struct virtio_net_hdr, <linux/virtio_net.h>; VIRTIO 1.2 §5.1.6): what the
 * kernel has left to be done, a checksum to complete or a super-packet to cut.
 */
import {
  DROP_BAD_OFFLOAD,
  DROP_TINY_SEGMENTS,
  LEAST_TCP_SEGMENT,
  LEAST_UDP_SEGMENT,
  MAX_SEGMENTS,
  MAX_UDP_SEGMENTS,
  VIRTIO_CHECKSUM_OFFSET,
  VIRTIO_CHECKSUM_START,
  VIRTIO_FLAGS,
  VIRTIO_GSO_SIZE,
  VIRTIO_GSO_TYPE,
  VIRTIO_HEADER_LENGTH,
} from '../src/core/abi';
import { overhead } from './config';
import { headerLength, isFragment, protocol, totalLength } from './ipv4';
import { headersLength, PROTOCOL_TCP, PROTOCOL_UDP, putChecksum, TCP_CHECKSUM } from './transport';

const NEEDS_CHECKSUM: u32 = 1;
export const GSO_NONE: u32 = 0;
export const GSO_TCPV4: u32 = 1;
export const GSO_UDP_L4: u32 = 5;
/** The super-packet has CWR set: of no matter to whoever reads the flags. */
const GSO_ECN: u32 = 0x80;

/** Checks the virtio header at `v` against the checked packet at `p`; answers the segments to cut it into, 0 if it is not to be cut, or the drop reason. */
export function checkVirtio(v: usize, p: usize): i32 {
  const gso = <u32>load<u8>(v + VIRTIO_GSO_TYPE) & ~GSO_ECN;
  if (gso === GSO_NONE) return needsChecksum(v) && !isChecksumInside(v, p) ? DROP_BAD_OFFLOAD : 0;
  if (gso !== GSO_TCPV4 && gso !== GSO_UDP_L4) return DROP_BAD_OFFLOAD;
  if (protocol(p) !== (gso === GSO_TCPV4 ? PROTOCOL_TCP : PROTOCOL_UDP) || isFragment(p)) return DROP_BAD_OFFLOAD;
  const size = gsoSize(v);
  const headers = headersLength(p);
  const payload = totalLength(p) - headers;
  if (size === 0 || payload <= 0) return DROP_BAD_OFFLOAD;
  const segments = (payload + size - 1) / size;
  const isTcp = gso === GSO_TCPV4;
  // More headers than payload, and the packets would have more than twice the bytes of the super-packet.
  const least = max(isTcp ? LEAST_TCP_SEGMENT : LEAST_UDP_SEGMENT, headers + overhead());
  if (segments > 1 && size < least) return DROP_TINY_SEGMENTS;
  return segments > (isTcp ? MAX_SEGMENTS : MAX_UDP_SEGMENTS) ? DROP_BAD_OFFLOAD : segments;
}

/** Whether the header of a TCP super-packet leaves its checksum open at the usual place, so that the kernel will take it back whole. */
export function isTcpOpen(v: usize, p: usize): bool {
  if (!needsChecksum(v) || <usize>load<u16>(v + VIRTIO_CHECKSUM_OFFSET) !== TCP_CHECKSUM) return false;
  return <i32>load<u16>(v + VIRTIO_CHECKSUM_START) === headerLength(p);
}

/** Bytes of payload in each segment but the last. */
export function gsoSize(v: usize): i32 {
  return <i32>load<u16>(v + VIRTIO_GSO_SIZE);
}

/** Completes the checksum of the packet at `p`, if that was left to be done (skb_checksum_help, net/core/dev.c). */
export function completeChecksum(v: usize, p: usize): void {
  if (!needsChecksum(v)) return;
  putChecksum(p, load<u16>(v + VIRTIO_CHECKSUM_START), load<u16>(v + VIRTIO_CHECKSUM_OFFSET));
}

/** A virtio header that asks for nothing. */
export function clearVirtio(v: usize): void {
  store<u64>(v, 0);
  store<u16>(v + VIRTIO_CHECKSUM_OFFSET, 0);
}

/** A virtio header of a super-packet whose transport header begins at `start` and has its checksum `offset` bytes further. */
export function putVirtio(v: usize, gso: u32, headers: i32, size: i32, start: i32, offset: i32): void {
  store<u8>(v + VIRTIO_FLAGS, <u8>NEEDS_CHECKSUM);
  store<u8>(v + VIRTIO_GSO_TYPE, <u8>gso);
  store<u16>(v + VIRTIO_HEADER_LENGTH, <u16>headers);
  store<u16>(v + VIRTIO_GSO_SIZE, <u16>size);
  store<u16>(v + VIRTIO_CHECKSUM_START, <u16>start);
  store<u16>(v + VIRTIO_CHECKSUM_OFFSET, <u16>offset);
}

/** Whether the checksum of the packet behind the header at `v` is still to be made. */
export function needsChecksum(v: usize): bool {
  return (<u32>load<u8>(v + VIRTIO_FLAGS) & NEEDS_CHECKSUM) !== 0;
}

function isChecksumInside(v: usize, p: usize): bool {
  const start = <i32>load<u16>(v + VIRTIO_CHECKSUM_START);
  const field = start + <i32>load<u16>(v + VIRTIO_CHECKSUM_OFFSET);
  return start >= headerLength(p) && field + 2 <= totalLength(p);
}

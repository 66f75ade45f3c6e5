/**
 * Merging: packets of one flow that one call brings become one super-packet, as the kernel's GRO does (inet_gro_receive,
 * tcp_gro_receive, udp_gro_receive), but only if cutting it gives them back. Each bucket of a table has one open flow;
 * the first packet's headers become those of the super-packet when the flow is closed.
 */
import * as abi from '../abi.ts';
import { blockOf } from './blocks.ts';
import { getU16, getU32, loadU8, loadU32, type Memory, putU16, storeU8, storeU32 } from './bytes.ts';
import { fold } from './checksum.ts';
import { hasOffload } from './config.ts';
import * as ipv4 from './ipv4.ts';
import { deliverMerged } from './merged.ts';
import { addContent, addPiece, messageCount, openMessage } from './messages.ts';
import * as transport from './transport.ts';
import { clearVirtio, GSO_NONE, GSO_TCPV4, GSO_UDP_L4, putVirtio } from './virtio.ts';

/** Inbound, all messages are those of one port. */
const PORT = 0;

// One bucket, in SCRATCH. A bucket is open if it has a first packet; between calls, none is.

const BUCKET_SIZE = 32;
const FIRST = 0; // u32, place of the first packet's IPv4 header; 0: nothing is open
const MESSAGE = 4; // u32
const PACKETS = 8; // u32
const TOTAL = 12; // u32, bytes in the super-packet
const PAYLOAD = 16; // u32, bytes of payload in the first packet
const NEXT = 20; // u32, the sequence number that follows
const IDENTIFICATION = 24; // u32, of the last packet

const BUCKETS_END = abi.SCRATCH + BUCKET_SIZE * abi.MERGE_BUCKETS;
const HASH_SHIFT = 32 - Math.log2(abi.MERGE_BUCKETS);

/** Hands the inner packet at `p` on: as a part of a super-packet, or in a message; or in one for each segment of `size` bytes, if that is not 0. */
export function deliver(memory: Memory, p: number, size: number): void {
  const isAlone = size !== 0 || transport.openChecksum(memory, p) !== 0;
  if (hasOffload(memory, abi.OFFLOAD_VIRTIO) && mergePacket(memory, p, isAlone)) return;
  if (size !== 0) deliverMerged(memory, p, size);
  else deliverPacket(memory, p);
}

/** Hands the packet on as it is; if its checksum is open, the overlay device is told, or it is completed. */
function deliverPacket(memory: Memory, p: number): void {
  const open = transport.openChecksum(memory, p);
  const header = ipv4.headerLength(memory, p);
  const message = openMessage(memory, PORT);
  if (hasOffload(memory, abi.OFFLOAD_VIRTIO)) {
    const virtio = blockOf(message);
    if (open !== 0) putVirtio(memory, virtio, GSO_NONE, 0, 0, header, open);
    else clearVirtio(memory, virtio);
    addPiece(memory, message, virtio, abi.VIRTIO_SIZE);
  } else if (open !== 0) {
    transport.putChecksum(memory, p, header, open);
  }
  const length = ipv4.totalLength(memory, p);
  addPiece(memory, message, p, length);
  addContent(memory, message, 1, length);
}

/** Closes all flows. */
export function closeFlows(memory: Memory): void {
  for (let bucket = abi.SCRATCH; bucket < BUCKETS_END; bucket += BUCKET_SIZE) closeFlow(memory, bucket);
}

/**
 * Adds the packet at `p` to the super-packet of its flow and returns true; or returns false, which means that the packet
 * must get the next message, where later ones of the flow may be added. `isAlone` says that it is not to be merged.
 */
function mergePacket(memory: Memory, p: number, isAlone: boolean): boolean {
  if (!hasFlow(memory, p)) return false;
  const bucket = abi.SCRATCH + (transport.flowHash(memory, p) >>> HASH_SHIFT) * BUCKET_SIZE;
  const first = loadU32(memory, bucket + FIRST);
  const headers = isAlone ? 0 : mergeableHeaders(memory, p);
  const follows = headers !== 0 && first !== 0 && isNext(memory, bucket, first, p, headers);
  const opens = headers !== 0 && !isPushed(memory, p);
  // The checksum comes last: it alone reads the whole packet.
  const isRight = (follows || opens) && transport.isChecksumRight(memory, p);
  if (follows && isRight) {
    addPacket(memory, bucket, p, headers);
    return true;
  }
  closeFlow(memory, bucket);
  if (opens && isRight) openFlow(memory, bucket, p, headers);
  return false;
}

/** Whether the packet belongs to a flow that can be told. */
function hasFlow(memory: Memory, p: number): boolean {
  const protocol = ipv4.protocol(memory, p);
  const isKnown = protocol === transport.PROTOCOL_TCP || protocol === transport.PROTOCOL_UDP;
  return isKnown && transport.hasPorts(memory, p);
}

/** Bytes in the headers of a packet that can be merged if its checksum is right; 0 if it cannot. */
function mergeableHeaders(memory: Memory, p: number): number {
  if (ipv4.headerLength(memory, p) !== ipv4.IPV4_LENGTH) return 0;
  if ((ipv4.flagsAndOffset(memory, p) & ~ipv4.DONT_FRAGMENT) !== 0) return 0;
  // Both 0 and 0xffff are right where either is (RFC 1624 §3); cutting makes 0.
  if (ipv4.headerChecksum(memory, p) === 0xffff) return 0;
  const t = p + ipv4.IPV4_LENGTH;
  const length = ipv4.totalLength(memory, p) - ipv4.IPV4_LENGTH;
  if (ipv4.protocol(memory, p) === transport.PROTOCOL_UDP) {
    if (!hasOffload(memory, abi.OFFLOAD_UDP_MERGE) || length <= transport.UDP_LENGTH) return 0;
    if (getU16(memory, t + transport.UDP_LENGTH_FIELD) !== length) return 0;
    // A checksum of 0 is none (RFC 768): nothing vouches for such a packet, and cutting would give it one.
    return getU16(memory, t + transport.UDP_CHECKSUM) === 0 ? 0 : ipv4.IPV4_LENGTH + transport.UDP_LENGTH;
  }
  if (length <= transport.TCP_MIN_LENGTH) return 0;
  const header = transport.tcpLength(memory, t);
  if (header < transport.TCP_MIN_LENGTH || header >= length) return 0;
  if (getU16(memory, t + transport.TCP_CHECKSUM) === 0xffff) return 0;
  // Any other flag says something about its own segment.
  const flags = loadU8(memory, t + transport.TCP_FLAGS) & ~(transport.PSH | transport.ECE);
  return flags === transport.ACK ? ipv4.IPV4_LENGTH + header : 0;
}

/** Whether the packet is TCP whose sender asked to hand over what has come (RFC 9293 §3.9.1.2): nothing is added after it. */
function isPushed(memory: Memory, p: number): boolean {
  if (ipv4.protocol(memory, p) !== transport.PROTOCOL_TCP) return false;
  return (loadU8(memory, p + ipv4.IPV4_LENGTH + transport.TCP_FLAGS) & transport.PSH) !== 0;
}

/** Opens a flow with the packet, which gets the next message. */
function openFlow(memory: Memory, bucket: number, p: number, headers: number): void {
  const total = ipv4.totalLength(memory, p);
  storeU32(memory, bucket + FIRST, p);
  storeU32(memory, bucket + MESSAGE, messageCount(memory, PORT));
  storeU32(memory, bucket + PACKETS, 1);
  storeU32(memory, bucket + TOTAL, total);
  storeU32(memory, bucket + PAYLOAD, total - headers);
  storeU32(memory, bucket + IDENTIFICATION, ipv4.identification(memory, p));
  if (ipv4.protocol(memory, p) !== transport.PROTOCOL_TCP) return;
  const sequence = getU32(memory, p + ipv4.IPV4_LENGTH + transport.TCP_SEQUENCE);
  storeU32(memory, bucket + NEXT, sequence + total - headers);
}

/** Whether the packet, whose headers can be merged, is what follows in the open flow: cutting would give just these. */
function isNext(memory: Memory, bucket: number, first: number, p: number, headers: number): boolean {
  if (!ipv4.isSameHeader(memory, p, first)) return false;
  if (getU32(memory, p + ipv4.IPV4_LENGTH) !== getU32(memory, first + ipv4.IPV4_LENGTH)) return false; // Ports.
  // With DF the identification means nothing (RFC 6864 §4.1).
  const id = (loadU32(memory, bucket + IDENTIFICATION) + 1) & 0xffff;
  const isAtomic = ipv4.flagsAndOffset(memory, p) === ipv4.DONT_FRAGMENT;
  if (!isAtomic && ipv4.identification(memory, p) !== id) return false;
  const payload = ipv4.totalLength(memory, p) - headers;
  if (payload > loadU32(memory, bucket + PAYLOAD)) return false;
  if (payload + loadU32(memory, bucket + TOTAL) > ipv4.MAX_TOTAL_LENGTH) return false;
  if (loadU32(memory, bucket + PACKETS) >= abi.PACKETS_PER_MESSAGE) return false;
  return ipv4.protocol(memory, p) === transport.PROTOCOL_UDP || isNextTcp(memory, bucket, first, p, headers);
}

/** Whether the packet's TCP header follows, and else is what the first one's is. */
function isNextTcp(memory: Memory, bucket: number, first: number, p: number, headers: number): boolean {
  const t = p + ipv4.IPV4_LENGTH;
  const f = first + ipv4.IPV4_LENGTH;
  if (getU32(memory, t + transport.TCP_SEQUENCE) !== loadU32(memory, bucket + NEXT)) return false;
  const flags = loadU8(memory, t + transport.TCP_FLAGS) & ~transport.PSH;
  if (flags !== loadU8(memory, f + transport.TCP_FLAGS)) return false;
  // Data offset and reserved bits.
  if (loadU8(memory, t + transport.TCP_OFFSET) !== loadU8(memory, f + transport.TCP_OFFSET)) return false;
  for (const field of [transport.TCP_WINDOW, transport.TCP_URGENT]) {
    if (getU16(memory, t + field) !== getU16(memory, f + field)) return false;
  }
  if (getU32(memory, t + transport.TCP_ACKNOWLEDGEMENT) !== getU32(memory, f + transport.TCP_ACKNOWLEDGEMENT)) {
    return false;
  }
  // Options.
  for (let i = transport.TCP_MIN_LENGTH; i < headers - ipv4.IPV4_LENGTH; i += 4) {
    if (getU32(memory, t + i) !== getU32(memory, f + i)) return false;
  }
  return true;
}

/** Adds the packet, which is next, to the open flow, and closes that if no other can follow. */
function addPacket(memory: Memory, bucket: number, p: number, headers: number): void {
  const total = ipv4.totalLength(memory, p);
  const payload = total - headers;
  const message = loadU32(memory, bucket + MESSAGE);
  addPiece(memory, message, p + headers, payload);
  addContent(memory, message, 1, total);
  storeU32(memory, bucket + PACKETS, loadU32(memory, bucket + PACKETS) + 1);
  storeU32(memory, bucket + TOTAL, loadU32(memory, bucket + TOTAL) + payload);
  storeU32(memory, bucket + NEXT, loadU32(memory, bucket + NEXT) + payload);
  storeU32(memory, bucket + IDENTIFICATION, ipv4.identification(memory, p));

  const pushed = isPushed(memory, p);
  if (pushed) {
    const flags = loadU32(memory, bucket + FIRST) + ipv4.IPV4_LENGTH + transport.TCP_FLAGS;
    storeU8(memory, flags, loadU8(memory, flags) | transport.PSH);
  }
  if (pushed || payload < loadU32(memory, bucket + PAYLOAD)) closeFlow(memory, bucket);
}

/** Closes the bucket's flow, if one is open: the headers of several packets become those of the super-packet. */
function closeFlow(memory: Memory, bucket: number): void {
  const first = loadU32(memory, bucket + FIRST);
  if (first === 0) return;
  storeU32(memory, bucket + FIRST, 0);
  if (loadU32(memory, bucket + PACKETS) === 1) return;

  const t = first + ipv4.IPV4_LENGTH;
  const total = loadU32(memory, bucket + TOTAL);
  const isTcp = ipv4.protocol(memory, first) === transport.PROTOCOL_TCP;
  const offset = transport.checksumOffset(memory, first);
  ipv4.putTotalLength(memory, first, total);
  if (!isTcp) putU16(memory, t + transport.UDP_LENGTH_FIELD, total - ipv4.IPV4_LENGTH);
  putU16(memory, t + offset, fold(transport.pseudoSum(memory, first)));
  const headers = transport.headersLength(memory, first);
  const size = loadU32(memory, bucket + PAYLOAD);
  const virtio = blockOf(loadU32(memory, bucket + MESSAGE));
  putVirtio(memory, virtio, isTcp ? GSO_TCPV4 : GSO_UDP_L4, headers, size, ipv4.IPV4_LENGTH, offset);
}

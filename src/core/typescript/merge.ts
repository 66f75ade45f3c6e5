/**
 * Merging: packets of one flow that one call brings become one super-packet, as the kernel's GRO does (inet_gro_receive,
 * tcp_gro_receive, udp_gro_receive), but only if cutting it gives them back. Each bucket of a table has one open flow;
 * the first packet's headers become those of the super-packet when the flow is closed.
 */
import * as abi from '../abi.ts';
import { clear, getI32, loadI32, type Memory, putU16, storeI32 } from './bytes.ts';
import { fold } from './checksum.ts';
import { hasOffload } from './config.ts';
import * as ipv4 from './ipv4.ts';
import { addContent, addPiece } from './messages.ts';
import * as transport from './transport.ts';
import { putVirtio } from './virtio.ts';

// One bucket, in SCRATCH. A bucket is open if it has a first packet.

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

/** Empties all buckets without a look at what they hold. */
export function clearFlows(memory: Memory): void {
  clear(memory, abi.SCRATCH, BUCKET_SIZE * abi.MERGE_BUCKETS);
}

/** Closes all flows. */
export function closeFlows(memory: Memory): void {
  for (let bucket = abi.SCRATCH; bucket < BUCKETS_END; bucket += BUCKET_SIZE) closeFlow(memory, bucket);
}

/**
 * Adds the packet at `p` to the super-packet of its flow and returns true; or returns false, which means that the packet
 * must get a message of its own, `message`: later ones of the flow may be added there. `isAlone` says that the packet is
 * not to be merged, as its checksum is open or it was merged before.
 */
export function mergePacket(memory: Memory, p: number, message: number, isAlone: boolean): boolean {
  if (!hasFlow(memory, p)) return false;
  const bucket =
    abi.SCRATCH + (transport.hashFlow(memory, p, transport.portsOf(memory, p)) >>> HASH_SHIFT) * BUCKET_SIZE;
  const first = loadI32(memory, bucket + FIRST);
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
  if (opens && isRight) openFlow(memory, bucket, p, headers, message);
  return false;
}

/** Whether the packet belongs to a flow that can be told. */
function hasFlow(memory: Memory, p: number): boolean {
  const protocol = ipv4.protocol(memory, p);
  return (
    (protocol === transport.PROTOCOL_TCP || protocol === transport.PROTOCOL_UDP) && transport.showsPorts(memory, p)
  );
}

/** Bytes in the headers of a packet that can be merged if its checksum is right; 0 if it cannot. */
function mergeableHeaders(memory: Memory, p: number): number {
  if (!ipv4.isPlain(memory, p) || (ipv4.flagsAndOffset(memory, p) & ~ipv4.DONT_FRAGMENT) !== 0) return 0;
  // Both 0 and 0xffff are right where either is (RFC 1624 §3); cutting makes 0.
  if (ipv4.headerChecksum(memory, p) === 0xffff) return 0;
  const t = p + ipv4.IPV4_LENGTH;
  const length = ipv4.totalLength(memory, p) - ipv4.IPV4_LENGTH;
  if (ipv4.protocol(memory, p) === transport.PROTOCOL_UDP) {
    if (!hasOffload(memory, abi.OFFLOAD_UDP_MERGE) || length <= transport.UDP_LENGTH) return 0;
    // A checksum of 0 is none (RFC 768): nothing vouches for such a packet, and cutting would give it one.
    const isSummed = transport.udpLength(memory, t) === length && transport.udpChecksum(memory, t) !== 0;
    return isSummed ? ipv4.IPV4_LENGTH + transport.UDP_LENGTH : 0;
  }
  if (length <= transport.TCP_LENGTH) return 0;
  const header = transport.tcpHeaderLength(memory, t);
  if (header < transport.TCP_LENGTH || header >= length || transport.tcpChecksum(memory, t) === 0xffff) return 0;
  // Any other flag says something about its own segment.
  const flags = transport.tcpFlags(memory, t) & ~(transport.PSH | transport.ECE);
  return flags === transport.ACK ? ipv4.IPV4_LENGTH + header : 0;
}

/** Whether the packet is TCP whose sender asked to hand over what has come (RFC 9293 §3.9.1.2): nothing is added after it. */
function isPushed(memory: Memory, p: number): boolean {
  if (ipv4.protocol(memory, p) !== transport.PROTOCOL_TCP) return false;
  return (transport.tcpFlags(memory, p + ipv4.IPV4_LENGTH) & transport.PSH) !== 0;
}

/** Whether the packet, whose headers can be merged, is what follows in the open flow: cutting would give just these. */
function isNext(memory: Memory, bucket: number, first: number, p: number, headers: number): boolean {
  if (!isSameFlow(memory, first, p)) return false;
  if (ipv4.versionToService(memory, p) !== ipv4.versionToService(memory, first)) return false;
  if (ipv4.timeToLive(memory, p) !== ipv4.timeToLive(memory, first)) return false;
  const flags = ipv4.flagsAndOffset(memory, p);
  if (flags !== ipv4.flagsAndOffset(memory, first)) return false;
  // With DF the identification means nothing (RFC 6864 §4.1).
  const id = (loadI32(memory, bucket + IDENTIFICATION) + 1) & 0xffff;
  if (flags !== ipv4.DONT_FRAGMENT && ipv4.identification(memory, p) !== id) return false;
  const payload = ipv4.totalLength(memory, p) - headers;
  if (payload > loadI32(memory, bucket + PAYLOAD)) return false;
  if (payload + loadI32(memory, bucket + TOTAL) > ipv4.MAX_TOTAL_LENGTH) return false;
  if (loadI32(memory, bucket + PACKETS) >= abi.PACKETS_PER_MESSAGE) return false;
  return ipv4.protocol(memory, p) === transport.PROTOCOL_UDP || isNextTcp(memory, bucket, first, p, headers);
}

/** Whether the packets have the same protocol, addresses and ports. Neither has IPv4 options. */
function isSameFlow(memory: Memory, first: number, p: number): boolean {
  return (
    ipv4.protocol(memory, p) === ipv4.protocol(memory, first) &&
    ipv4.source(memory, p) === ipv4.source(memory, first) &&
    ipv4.destination(memory, p) === ipv4.destination(memory, first) &&
    transport.portsOf(memory, p) === transport.portsOf(memory, first)
  );
}

/** Whether the packet's TCP header follows, and else is what the first one's is. */
function isNextTcp(memory: Memory, bucket: number, first: number, p: number, headers: number): boolean {
  const t = p + ipv4.IPV4_LENGTH;
  const f = first + ipv4.IPV4_LENGTH;
  if (transport.sequence(memory, t) !== loadI32(memory, bucket + NEXT)) return false;
  if (transport.acknowledgement(memory, t) !== transport.acknowledgement(memory, f)) return false;
  if (transport.offsetAndReserved(memory, t) !== transport.offsetAndReserved(memory, f)) return false;
  if ((transport.tcpFlags(memory, t) & ~transport.PSH) !== transport.tcpFlags(memory, f)) return false;
  if (transport.tcpWindow(memory, t) !== transport.tcpWindow(memory, f)) return false;
  if (transport.urgentPointer(memory, t) !== transport.urgentPointer(memory, f)) return false;
  for (let i = transport.TCP_LENGTH; i < headers - ipv4.IPV4_LENGTH; i += 4) {
    if (getI32(memory, t + i) !== getI32(memory, f + i)) return false;
  }
  return true;
}

/** Opens a flow with the packet in `message`. */
function openFlow(memory: Memory, bucket: number, p: number, headers: number, message: number): void {
  const total = ipv4.totalLength(memory, p);
  storeI32(memory, bucket + FIRST, p);
  storeI32(memory, bucket + MESSAGE, message);
  storeI32(memory, bucket + PACKETS, 1);
  storeI32(memory, bucket + TOTAL, total);
  storeI32(memory, bucket + PAYLOAD, total - headers);
  storeI32(memory, bucket + IDENTIFICATION, ipv4.identification(memory, p));
  if (ipv4.protocol(memory, p) === transport.PROTOCOL_TCP) {
    storeI32(memory, bucket + NEXT, transport.sequence(memory, p + ipv4.IPV4_LENGTH) + total - headers);
  }
}

/** Adds the packet, which is next, to the open flow, and closes that if no other can follow. */
function addPacket(memory: Memory, bucket: number, p: number, headers: number): void {
  const total = ipv4.totalLength(memory, p);
  const payload = total - headers;
  const message = loadI32(memory, bucket + MESSAGE);
  addPiece(memory, message, p + headers, payload);
  addContent(memory, message, 1, total);
  storeI32(memory, bucket + PACKETS, loadI32(memory, bucket + PACKETS) + 1);
  storeI32(memory, bucket + TOTAL, loadI32(memory, bucket + TOTAL) + payload);
  storeI32(memory, bucket + NEXT, loadI32(memory, bucket + NEXT) + payload);
  storeI32(memory, bucket + IDENTIFICATION, ipv4.identification(memory, p));

  const pushed = isPushed(memory, p);
  if (pushed) {
    const f = loadI32(memory, bucket + FIRST) + ipv4.IPV4_LENGTH;
    transport.putTcpFlags(memory, f, transport.tcpFlags(memory, f) | transport.PSH);
  }
  if (pushed || payload < loadI32(memory, bucket + PAYLOAD)) closeFlow(memory, bucket);
}

/** Closes the bucket's flow, if one is open: the headers of several packets become those of the super-packet. */
function closeFlow(memory: Memory, bucket: number): void {
  const first = loadI32(memory, bucket + FIRST);
  if (first === 0) return;
  storeI32(memory, bucket + FIRST, 0);
  if (loadI32(memory, bucket + PACKETS) === 1) return;

  const total = loadI32(memory, bucket + TOTAL);
  ipv4.resize(memory, first, total, ipv4.identification(memory, first));
  if (ipv4.protocol(memory, first) === transport.PROTOCOL_UDP) {
    transport.putUdpLength(memory, first + ipv4.IPV4_LENGTH, total - ipv4.IPV4_LENGTH);
  }
  putU16(memory, transport.checksumOf(memory, first), fold(transport.pseudoSum(memory, first)));
  const virtio = abi.HEADERS + loadI32(memory, bucket + MESSAGE) * abi.HEADER_BLOCK_SIZE;
  putVirtio(memory, virtio, first, loadI32(memory, bucket + PAYLOAD));
}

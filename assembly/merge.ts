/**
 * Inner packets become messages for the overlay device; those of one flow that one call brings become one super-packet again, if cutting it gives them
 * back. Compare inet_gro_receive, tcp_gro_receive and udp_gro_receive of Linux.
 */
import {
  MERGE_BUCKETS,
  OFFLOAD_UDP_MERGE,
  OFFLOAD_VIRTIO,
  PACKETS_PER_MESSAGE,
  SCRATCH,
  VIRTIO_SIZE,
} from '../src/core/abi';
import { blockOf } from './blocks';
import { getU16, getU32, putU16 } from './bytes';
import { fold } from './checksum';
import { hasOffload } from './config';
import {
  DONT_FRAGMENT,
  flagsAndOffset,
  headerChecksum,
  headerLength,
  IPV4_LENGTH,
  identification,
  isSameHeader,
  MAX_TOTAL_LENGTH,
  protocol,
  putTotalLength,
  totalLength,
} from './ipv4';
import { deliverMerged } from './merged';
import { addContent, addPiece, openMessage, packetsIn, setContent, setPiece } from './messages';
import {
  ACK,
  ECE,
  flowHash,
  hasPorts,
  headersLength,
  isChecksumRight,
  openChecksum,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  PSH,
  pseudoSum,
  putChecksum,
  TCP_ACKNOWLEDGEMENT,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_MIN_LENGTH,
  TCP_OFFSET,
  TCP_SEQUENCE,
  TCP_URGENT,
  TCP_WINDOW,
  UDP_CHECKSUM,
  UDP_LENGTH_FIELD,
} from './transport';
import { clearVirtio, GSO_NONE, GSO_TCPV4, GSO_UDP_L4, putVirtio } from './virtio';

// A bucket's open flow. Its first packet, unchanged until it is closed, is what others are compared with.
const FLOW_SIZE: i32 = 32;
const FLOW_FIRST: usize = 0; // u32, address of the first packet; 0 if nothing is open
const FLOW_MESSAGE: usize = 4; // i32
const FLOW_HEADERS: usize = 8; // i32, bytes
const FLOW_PAYLOAD: usize = 12; // i32, bytes of payload in the first packet
const FLOW_TOTAL: usize = 16; // i32, bytes of the super-packet
const FLOW_SEQUENCE: usize = 20; // u32, that of the next packet
const FLOW_IDENTIFICATION: usize = 24; // u32, that of the last packet
const FLOW_FLAGS: usize = 28; // u32, PSH if the last packet has it

/** A right checksum, but not the one that cutting makes. */
const NEGATIVE_ZERO: u16 = 0xffff;
/** log2 of MERGE_BUCKETS. */
const BUCKET_BITS: u32 = 6;

let openFlows: i32 = 0;

/** Hands the checked inner packet at `p` over to the container. `size` is the payload in bytes of each packet that it was merged from before, or 0. */
export function deliver(p: usize, size: i32): void {
  const open = openChecksum(p);
  if (!hasOffload(OFFLOAD_VIRTIO)) {
    if (size !== 0) {
      deliverMerged(p, size);
      return;
    }
    if (open !== 0) putChecksum(p, headerLength(p), open);
    const message = openMessage(0);
    const length = totalLength(p);
    setPiece(message, p, length);
    setContent(message, 1, length, 0, 0);
    return;
  }
  if (!isOfFlow(p)) {
    openSuperPacket(p);
    return;
  }
  const flow = <usize>(SCRATCH + <i32>(flowHash(p) >> (32 - BUCKET_BITS)) * FLOW_SIZE);
  const headers = open !== 0 || size !== 0 ? 0 : mergeableHeaders(p);
  const isOpen = load<u32>(flow + FLOW_FIRST) !== 0;
  if (isOpen && headers !== 0 && belongs(flow, p, headers)) {
    add(flow, p, headers);
    return;
  }
  if (isOpen) close(flow);
  if (size !== 0) {
    deliverMerged(p, size);
    return;
  }
  const message = openSuperPacket(p);
  if (open !== 0) putVirtio(blockOf(message), GSO_NONE, 0, 0, headerLength(p), open);
  if (headers !== 0 && !isPushed(p)) openFlow(flow, p, headers, message);
}

/** Ends what can still be added to; after that, all messages are complete. */
export function closeFlows(): void {
  for (let i = 0; i < MERGE_BUCKETS && openFlows > 0; i++) {
    const flow = <usize>(SCRATCH + i * FLOW_SIZE);
    if (load<u32>(flow + FLOW_FIRST) !== 0) close(flow);
  }
}

/** A message with a virtio header and this packet. */
function openSuperPacket(p: usize): i32 {
  const message = openMessage(0);
  clearVirtio(blockOf(message));
  setPiece(message, blockOf(message), VIRTIO_SIZE);
  addPiece(message, p, totalLength(p));
  setContent(message, 1, totalLength(p), 0, 0);
  return message;
}

function isOfFlow(p: usize): bool {
  return (protocol(p) === PROTOCOL_TCP || protocol(p) === PROTOCOL_UDP) && hasPorts(p);
}

/** Bytes of headers if the packet of a flow can be merged with others, else 0. */
function mergeableHeaders(p: usize): i32 {
  if (headerLength(p) !== IPV4_LENGTH || (flagsAndOffset(p) & ~DONT_FRAGMENT) !== 0) return 0;
  const total = totalLength(p);
  const t = p + <usize>IPV4_LENGTH;
  const headers = headersLength(p);
  if (headers >= total || headerChecksum(p) === NEGATIVE_ZERO) return 0;
  if (protocol(p) === PROTOCOL_TCP) {
    if ((<u32>load<u8>(t + TCP_FLAGS) & ~(PSH | ECE)) !== ACK) return 0;
    if (load<u16>(t + TCP_CHECKSUM) === NEGATIVE_ZERO) return 0;
  } else {
    if (!hasOffload(OFFLOAD_UDP_MERGE) || load<u16>(t + UDP_CHECKSUM) === 0) return 0;
    if (<i32>getU16(t + UDP_LENGTH_FIELD) !== total - IPV4_LENGTH) return 0;
  }
  return isChecksumRight(p) ? headers : 0;
}

function isPushed(p: usize): bool {
  return protocol(p) === PROTOCOL_TCP && (<u32>load<u8>(p + IPV4_LENGTH + TCP_FLAGS) & PSH) !== 0;
}

function openFlow(flow: usize, p: usize, headers: i32, message: i32): void {
  openFlows++;
  const payload = totalLength(p) - headers;
  store<u32>(flow + FLOW_FIRST, <u32>p);
  store<i32>(flow + FLOW_MESSAGE, message);
  store<i32>(flow + FLOW_HEADERS, headers);
  store<i32>(flow + FLOW_PAYLOAD, payload);
  store<i32>(flow + FLOW_TOTAL, totalLength(p));
  store<u32>(flow + FLOW_SEQUENCE, getU32(p + IPV4_LENGTH + TCP_SEQUENCE) + <u32>payload);
  store<u32>(flow + FLOW_IDENTIFICATION, identification(p));
  store<u32>(flow + FLOW_FLAGS, 0);
}

/** Whether the packet at `p`, which can be merged, is the next one of `flow`. */
function belongs(flow: usize, p: usize, headers: i32): bool {
  const first = <usize>load<u32>(flow + FLOW_FIRST);
  if (!isSameHeader(p, first)) return false;
  if (load<u32>(p + IPV4_LENGTH) !== load<u32>(first + IPV4_LENGTH)) return false; // Ports.
  const next = (load<u32>(flow + FLOW_IDENTIFICATION) + 1) & 0xffff;
  // "originating sources MAY set the IPv4 ID field of atomic datagrams to any value" (RFC 6864 §4.1).
  if (identification(p) !== next && flagsAndOffset(p) !== DONT_FRAGMENT) return false;
  const payload = totalLength(p) - headers;
  if (payload > load<i32>(flow + FLOW_PAYLOAD)) return false;
  if (load<i32>(flow + FLOW_TOTAL) + payload > MAX_TOTAL_LENGTH) return false;
  if (packetsIn(load<i32>(flow + FLOW_MESSAGE)) >= PACKETS_PER_MESSAGE) return false;
  return protocol(p) === PROTOCOL_UDP || continues(flow, p, headers);
}

/** Whether the TCP segment of the packet at `p` follows what `flow` has. */
function continues(flow: usize, p: usize, headers: i32): bool {
  const t = p + <usize>IPV4_LENGTH;
  const first = <usize>load<u32>(flow + FLOW_FIRST) + <usize>IPV4_LENGTH;
  if (headers !== load<i32>(flow + FLOW_HEADERS)) return false;
  if (getU32(t + TCP_SEQUENCE) !== load<u32>(flow + FLOW_SEQUENCE)) return false;
  if (load<u32>(t + TCP_ACKNOWLEDGEMENT) !== load<u32>(first + TCP_ACKNOWLEDGEMENT)) return false;
  if (((getU16(t + TCP_OFFSET) ^ getU16(first + TCP_OFFSET)) & ~PSH) !== 0) return false;
  if (load<u16>(t + TCP_WINDOW) !== load<u16>(first + TCP_WINDOW)) return false;
  if (load<u16>(t + TCP_URGENT) !== load<u16>(first + TCP_URGENT)) return false;
  for (let i = TCP_MIN_LENGTH; i < headers - IPV4_LENGTH; i += 4) {
    if (load<u32>(t + <usize>i) !== load<u32>(first + <usize>i)) return false;
  }
  return true;
}

/** Adds the payload of the packet at `p`. */
function add(flow: usize, p: usize, headers: i32): void {
  const payload = totalLength(p) - headers;
  const message = load<i32>(flow + FLOW_MESSAGE);
  addPiece(message, p + <usize>headers, payload);
  addContent(message, 1, totalLength(p));
  store<i32>(flow + FLOW_TOTAL, load<i32>(flow + FLOW_TOTAL) + payload);
  store<u32>(flow + FLOW_SEQUENCE, load<u32>(flow + FLOW_SEQUENCE) + <u32>payload);
  store<u32>(flow + FLOW_IDENTIFICATION, identification(p));
  if (isPushed(p)) store<u32>(flow + FLOW_FLAGS, PSH);
  if (isPushed(p) || payload < load<i32>(flow + FLOW_PAYLOAD)) close(flow);
}

/** Nothing more is added to `flow`: its headers become those of the super-packet. */
function close(flow: usize): void {
  openFlows--;
  const p = <usize>load<u32>(flow + FLOW_FIRST);
  store<u32>(flow + FLOW_FIRST, 0);
  const message = load<i32>(flow + FLOW_MESSAGE);
  if (packetsIn(message) === 1) return;
  const length = load<i32>(flow + FLOW_TOTAL) - IPV4_LENGTH;
  const headers = load<i32>(flow + FLOW_HEADERS);
  const payload = load<i32>(flow + FLOW_PAYLOAD);
  putTotalLength(p, IPV4_LENGTH + length);
  const t = p + <usize>IPV4_LENGTH;
  const pseudo = <u16>fold(pseudoSum(p, length));
  if (protocol(p) === PROTOCOL_TCP) {
    store<u8>(t + TCP_FLAGS, <u8>(load<u8>(t + TCP_FLAGS) | load<u32>(flow + FLOW_FLAGS)));
    store<u16>(t + TCP_CHECKSUM, pseudo);
    putVirtio(blockOf(message), GSO_TCPV4, headers, payload, IPV4_LENGTH, <i32>TCP_CHECKSUM);
  } else {
    putU16(t + UDP_LENGTH_FIELD, <u32>length);
    store<u16>(t + UDP_CHECKSUM, pseudo);
    putVirtio(blockOf(message), GSO_UDP_L4, headers, payload, IPV4_LENGTH, <i32>UDP_CHECKSUM);
  }
}

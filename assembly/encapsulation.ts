/** What packets look like on the underlay: GRE in IPv4 (RFC 2784), or in UDP (RFC 8086), whose datagrams the kernel cuts out of long messages. */
import {
  FLAG_UNHEARD,
  FLAG_WHOLE,
  GRE_UDP_PORT,
  MESSAGES,
  MESSAGES_PER_PORT,
  OFFLOAD_UDP_SEGMENT,
  OPTION_CHECKSUM,
  OPTION_MAY_FRAGMENT,
  OPTION_SEQUENCE,
  OPTION_TTL_INHERIT,
  PACKETS_PER_MESSAGE,
  TUNNEL_IDENTIFICATION,
  TUNNEL_INBOUND_PACKETS,
  TUNNEL_SEQUENCE_OUT,
} from '../src/core/abi';
import { sum } from './checksum';
import { hasOffload, hasOption, isGreUdp, local, overhead, ports, ttl } from './config';
import { greLength, PROTOCOL_GRE, putGre } from './gre';
import { DONT_FRAGMENT, IPV4_LENGTH, MAX_TOTAL_LENGTH, putIpv4, timeToLive, typeOfService } from './ipv4';
import {
  addContent,
  addPiece,
  lastMessage,
  messageCount,
  messageLength,
  nameMessage,
  openMessage,
  packetsIn,
  segmentOf,
  setContent,
  setControl,
  setPiece,
  setSegment,
  setWay,
  wayOf,
} from './messages';
import { tosOut } from './tos';
import { flowHash, portOf, UDP_LENGTH } from './transport';

const MAX_DATAGRAM: i32 = MAX_TOTAL_LENGTH - IPV4_LENGTH - UDP_LENGTH;
const MAX_TTL: u32 = 255;

// What all have in common that the packet at hand becomes.
let packet: usize = 0;
let remote: u32 = 0; // network order
let tunnel: usize = 0;
let port: i32 = 0;
let outerTos: u32 = 0;
let outerTtl: u32 = 0;
let flags: u32 = 0;

/** Begins with the packet at `p`, which goes to `vm` through the tunnel whose record is at `t`. Inlined wherever it is called. */
export function beginPacket(p: usize, vm: u32, t: usize): void {
  packet = p;
  remote = bswap<u32>(vm);
  tunnel = t;
  flags = load<f64>(t + TUNNEL_INBOUND_PACKETS) > 0 ? 0 : FLAG_UNHEARD;
  // The underlay spreads flows by the source port (RFC 8086 §3.2.1); only what is numbered has to stay in order.
  port = isGreUdp() && !hasOption(OPTION_SEQUENCE) ? portOf(flowHash(p), ports()) : 0;
  outerTos = tosOut(typeOfService(p));
  outerTtl = hasOption(OPTION_TTL_INHERIT) ? timeToLive(p) : ttl();
}

/** How many messages the packet may become at most. */
export function capacity(): i32 {
  return isGreUdp() ? MESSAGES_PER_PORT : MESSAGES;
}

/** How many messages there is room for. */
export function freeMessages(): i32 {
  return capacity() - messageCount(port);
}

/** How many messages take `packets` packets of `length` bytes with their outer headers, of which the last may be shorter, at most. */
export function messagesOf(packets: i32, length: i32): i32 {
  if (!isGreUdp() || !hasOffload(OFFLOAD_UDP_SEGMENT)) return packets;
  const each = min(PACKETS_PER_MESSAGE, MAX_DATAGRAM / length);
  return (packets + each - 1) / each;
}

/** Bytes that the outer headers add to a packet for what is configured now, those of the kernel's among them. */
export function measureHeaders(): i32 {
  return IPV4_LENGTH + (isGreUdp() ? UDP_LENGTH : 0) + greLength();
}

/** Bytes of the outer headers that `putOuter` writes: with UDP, it and IPv4 are the kernel's. */
export function outerLength(): i32 {
  return overhead() - (isGreUdp() ? IPV4_LENGTH + UDP_LENGTH : 0);
}

/** The sum of the `length` bytes at `p` and of `before`, if outer headers need such a thing. */
export function bodySum(p: usize, length: i32, before: u64): u64 {
  return hasOption(OPTION_CHECKSUM) ? sum(p, length, before) : 0;
}

/** Writes the outer headers of a packet of `length` bytes, whose `bodySum` is `body`, at `h`. */
export function putOuter(h: usize, length: i32, body: u64): void {
  putHeaders(h, length, body, 1, outerTtl);
}

/** Writes those of a super-packet that the kernel will cut into `packets`; it forwards it, which takes one from the time to live. */
export function putWholeOuter(h: usize, length: i32, packets: i32): void {
  putHeaders(h, length, 0, packets, min(outerTtl + 1, MAX_TTL));
}

function putHeaders(h: usize, length: i32, body: u64, packets: i32, ttl: u32): void {
  let gre = h;
  if (!isGreUdp()) {
    const total = outerLength() + length;
    // "originating sources MAY set the IPv4 ID field of atomic datagrams to any value" (RFC 6864 §4.1).
    const fragment = hasOption(OPTION_MAY_FRAGMENT) ? nextIdentification(packets) << 16 : DONT_FRAGMENT;
    putIpv4(h, outerTos, total, fragment, ttl, PROTOCOL_GRE, bswap<u32>(local()), remote);
    gre += IPV4_LENGTH;
  }
  putGre(gre, body, hasOption(OPTION_SEQUENCE) ? nextSequence() : 0);
}

function nextSequence(): u32 {
  const number = load<u32>(tunnel + TUNNEL_SEQUENCE_OUT);
  store<u32>(tunnel + TUNNEL_SEQUENCE_OUT, number + 1);
  return number;
}

/** Unique for a pair of addresses as long as can be (RFC 6864 §4.3); never 0, which the kernel would change. It counts on in packets that it cuts. */
function nextIdentification(packets: i32): u32 {
  const last = <u32>load<u16>(tunnel + TUNNEL_IDENTIFICATION);
  const next = last === 0xffff ? 1 : last + 1;
  store<u16>(tunnel + TUNNEL_IDENTIFICATION, <u16>(next + packets - 1));
  return next;
}

/**
 * Puts the next packet, `length` bytes with its outer headers, of which `inner` are the packet's own, into the message that takes it; answers which that is. Its
 * first piece are the `near` bytes at `h`.
 */
export function messageFor(h: usize, near: i32, length: i32, inner: i32): i32 {
  if (!isGreUdp() || !joins(length)) return openFor(h, near, inner);
  const message = lastMessage(port);
  if (packetsIn(message) === 1) setSegment(message, messageLength(message));
  addContent(message, 1, inner);
  addPiece(message, h, near);
  return message;
}

/** The same with a message for this packet alone, whatever number of pieces it has. */
export function loneMessage(h: usize, near: i32, inner: i32): i32 {
  const message = openFor(h, near, inner);
  setWay(port, 0);
  return message;
}

/** The next message of the port, for a packet of `inner` bytes whose outer headers are at `h`, the first `near` bytes in one piece. Inlined wherever it is called. */
function openFor(h: usize, near: i32, inner: i32): i32 {
  const message = openMessage(port);
  setPiece(message, h, near);
  setContent(message, 1, inner, packet, flags);
  nameMessage(message, remote, isGreUdp() ? bswap<u16>(<u16>GRE_UDP_PORT) : 0);
  if (isGreUdp()) {
    setControl(message, outerTos, outerTtl, hasOption(OPTION_TTL_INHERIT));
    setWay(port, way());
  }
  return message;
}

/** To whom the packet goes, and with which type of service and time to live. */
function way(): u64 {
  return <u64>remote | ((<u64>((outerTos << 8) | outerTtl)) << 32);
}

/** Puts the `length` bytes at `p`, a super-packet that goes back to the kernel, into a message: `packets`, together of `bytes` bytes. */
export function wholeMessage(p: usize, length: i32, packets: i32, bytes: i32): void {
  const message = openMessage(port);
  setPiece(message, p, length);
  setContent(message, packets, bytes, packet, flags | FLAG_WHOLE);
  nameMessage(message, remote, 0);
}

/** Whether a datagram can follow those of the port's last message. UDP_SEGMENT: all but the last are of one size (udp(7)). */
function joins(length: i32): bool {
  if (!hasOffload(OFFLOAD_UDP_SEGMENT) || messageCount(port) === 0 || wayOf(port) !== way()) return false;
  const message = lastMessage(port);
  const count = packetsIn(message);
  if (count >= PACKETS_PER_MESSAGE) return false;
  const total = messageLength(message);
  const size = count === 1 ? total : segmentOf(message);
  return length <= size && total === count * size && total + length <= MAX_DATAGRAM;
}

/** What packets look like on the underlay: GRE in IPv4 (RFC 2784, RFC 2890), or in UDP (RFC 8086), which the kernel makes. */
import * as abi from '../abi.ts';
import { loadF64, loadU16, loadU32, type Memory, storeU16, storeU32 } from './bytes.ts';
import { sum } from './checksum.ts';
import * as config from './config.ts';
import { greLength, PROTOCOL_GRE, putGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import * as messages from './messages.ts';
import { tosOut } from './tos.ts';
import { flowHash, portOf, UDP_LENGTH } from './transport.ts';

/** The most bytes that one sendmsg(2) can take for UDP over IPv4. */
const MAX_DATAGRAM = ipv4.MAX_TOTAL_LENGTH - ipv4.IPV4_LENGTH - UDP_LENGTH;
const MAX_TTL = 255;

/** What all have in common that one packet of a container becomes. */
export interface Outgoing {
  /** Where the container's packet lies. */
  packet: number;
  /** The VM that it goes to, and the place of the tunnel's record. */
  vm: number;
  tunnel: number;
  /** Whose messages it becomes. */
  port: number;
  /** Of the outer header. */
  tos: number;
  ttl: number;
  /** FLAG_ bits of each message. */
  flags: number;
}

/** Begins with the packet at `packet`, which goes to `vm` through the tunnel. */
export function beginPacket(memory: Memory, packet: number, vm: number, tunnel: number): Outgoing {
  // What is numbered has to stay in order; all else the underlay may spread by its source port (RFC 8086 §3.2.1).
  const isSpread = config.isGreUdp(memory) && !config.hasOption(memory, abi.OPTION_SEQUENCE);
  return {
    packet,
    vm,
    tunnel,
    port: isSpread ? portOf(flowHash(memory, packet), config.ports(memory)) : 0,
    tos: tosOut(memory, ipv4.typeOfService(memory, packet)),
    ttl: config.hasOption(memory, abi.OPTION_TTL_INHERIT) ? ipv4.timeToLive(memory, packet) : config.ttl(memory),
    flags: loadF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS) > 0 ? 0 : abi.FLAG_UNHEARD,
  };
}

/** How many messages one packet may become. */
export function capacity(memory: Memory): number {
  return config.isGreUdp(memory) ? abi.MESSAGES_PER_PORT : abi.MESSAGES;
}

/** How many messages there is room for. */
export function freeMessages(memory: Memory, out: Outgoing): number {
  return capacity(memory) - messages.messageCount(memory, out.port);
}

/** The most messages that so many packets become, `length` bytes each with their outer headers, the last perhaps shorter. */
export function messagesOf(memory: Memory, packets: number, length: number): number {
  if (!config.isGreUdp(memory) || !config.hasOffload(memory, abi.OFFLOAD_UDP_SEGMENT)) return packets;
  return Math.ceil(packets / Math.min(abi.PACKETS_PER_MESSAGE, Math.floor(MAX_DATAGRAM / length)));
}

/** Bytes that the outer headers add on the wire, as it is configured now. */
export function measureHeaders(memory: Memory): number {
  return ipv4.IPV4_LENGTH + (config.isGreUdp(memory) ? UDP_LENGTH : 0) + greLength(memory);
}

/** Bytes in the outer headers that the core makes; of GRE-in-UDP, the kernel makes UDP and IPv4. */
export function outerLength(memory: Memory): number {
  return config.overhead(memory) - (config.isGreUdp(memory) ? ipv4.IPV4_LENGTH + UDP_LENGTH : 0);
}

/** The ones-complement sum of `length` bytes at `p`, if the outer headers need it. Parts of a packet are added up. */
export function bodySum(memory: Memory, p: number, length: number): number {
  return config.hasOption(memory, abi.OPTION_CHECKSUM) ? sum(memory, p, length) : 0;
}

/** Puts the outer headers right before the inner header at `inner`, which is as it is to be sent; `body` is the packet's `bodySum`. */
export function putOuter(memory: Memory, out: Outgoing, inner: number, body: number): void {
  putHeaders(memory, out, inner, body, out.ttl);
}

/** As `putOuter`, of a super-packet that the kernel cuts into so many packets: it forwards it first, which takes one off its time to live. */
export function putWholeOuter(memory: Memory, out: Outgoing, inner: number, packets: number): void {
  putHeaders(memory, out, inner, 0, Math.min(out.ttl + 1, MAX_TTL));
  if (!config.hasOption(memory, abi.OPTION_MAY_FRAGMENT)) return;
  // The kernel counts on in the packets that it makes.
  const field = out.tunnel + abi.TUNNEL_IDENTIFICATION;
  storeU16(memory, field, loadU16(memory, field) + packets - 1);
}

function putHeaders(memory: Memory, out: Outgoing, inner: number, body: number, ttl: number): void {
  const outer = inner - outerLength(memory);
  const options = config.options(memory);
  let gre = outer;
  if (!config.isGreUdp(memory)) {
    const total = inner - outer + ipv4.totalLength(memory, inner);
    // Only packets that may be fragmented need an identification (RFC 6864 §4.1).
    const mayFragment = (options & abi.OPTION_MAY_FRAGMENT) !== 0;
    const fragment = mayFragment ? nextIdentification(memory, out.tunnel) << 16 : ipv4.DONT_FRAGMENT;
    ipv4.putIpv4(memory, outer, out.tos, total, fragment, ttl, PROTOCOL_GRE, config.local(memory), out.vm);
    gre += ipv4.IPV4_LENGTH;
  }
  const isNumbered = (options & abi.OPTION_SEQUENCE) !== 0;
  putGre(memory, gre, body, isNumbered ? nextSequence(memory, out.tunnel) : 0);
}

/** The sequence number that follows in the tunnel: "the first datagram is sent with a sequence number of 0" (RFC 2890 §2.2). */
function nextSequence(memory: Memory, tunnel: number): number {
  const next = loadU32(memory, tunnel + abi.TUNNEL_SEQUENCE_OUT);
  storeU32(memory, tunnel + abi.TUNNEL_SEQUENCE_OUT, next + 1);
  return next;
}

/** The identification that follows in the tunnel, never 0: in its place the kernel puts one of its own (raw(7)). */
function nextIdentification(memory: Memory, tunnel: number): number {
  const last = loadU16(memory, tunnel + abi.TUNNEL_IDENTIFICATION);
  const next = last === 0xffff ? 1 : last + 1;
  storeU16(memory, tunnel + abi.TUNNEL_IDENTIFICATION, next);
  return next;
}

/**
 * The message for a packet of `length` bytes with its outer headers, `inner` without: the last of the port if UDP_SEGMENT divides that
 * into the same datagrams again, else a new one. The packet's pieces are to be added next.
 */
export function messageFor(memory: Memory, out: Outgoing, length: number, inner: number): number {
  if (!config.isGreUdp(memory) || !joins(memory, out, length)) return openFor(memory, out, inner);
  const message = messages.lastMessage(memory, out.port);
  if (messages.packetsIn(memory, message) === 1) {
    messages.setSegment(memory, message, messages.messageLength(memory, message));
  }
  messages.addContent(memory, message, 1, inner);
  return message;
}

/** The message for one packet of `inner` bytes, to which nothing is added. */
export function loneMessage(memory: Memory, out: Outgoing, inner: number): number {
  const message = openFor(memory, out, inner);
  messages.setWay(memory, out.port, 0);
  return message;
}

function openFor(memory: Memory, out: Outgoing, inner: number): number {
  const isUdp = config.isGreUdp(memory);
  const message = messages.openMessage(memory, out.port);
  messages.nameMessage(memory, message, out.vm, isUdp ? abi.GRE_UDP_PORT : 0);
  if (isUdp) {
    messages.setControl(memory, message, out.tos, out.ttl, config.hasOption(memory, abi.OPTION_TTL_INHERIT));
    messages.setWay(memory, out.port, wayFor(out));
  }
  messages.addContent(memory, message, 1, inner);
  messages.setOrigin(memory, message, out.packet, out.flags);
  return message;
}

/** To whom the packet goes, with which type of service and time to live: one number for each way, which is 48 bits. */
function wayFor({ vm, tos, ttl }: Outgoing): number {
  return (vm >>> 0) * 2 ** 16 + tos * 2 ** 8 + ttl;
}

/** The message for the super-packet itself, which the kernel cuts into so many packets, of `bytes` bytes together. */
export function wholeMessage(memory: Memory, out: Outgoing, packets: number, bytes: number): number {
  const message = messages.openMessage(memory, out.port);
  messages.nameMessage(memory, message, out.vm, 0);
  messages.addContent(memory, message, packets, bytes);
  messages.setOrigin(memory, message, out.packet, out.flags | abi.FLAG_WHOLE);
  return message;
}

/**
 * Whether a datagram can follow those in the port's last message. The kernel cuts at multiples of the first one's length, so only the
 * last may be shorter (udp(7), UDP_SEGMENT).
 */
function joins(memory: Memory, out: Outgoing, length: number): boolean {
  if (!config.hasOffload(memory, abi.OFFLOAD_UDP_SEGMENT) || messages.messageCount(memory, out.port) === 0)
    return false;
  if (messages.wayOf(memory, out.port) !== wayFor(out)) return false;
  const message = messages.lastMessage(memory, out.port);
  const packets = messages.packetsIn(memory, message);
  const sent = messages.messageLength(memory, message);
  const segment = packets === 1 ? sent : messages.segmentOf(memory, message);
  if (packets >= abi.PACKETS_PER_MESSAGE || sent !== packets * segment) return false;
  return length <= segment && sent + length <= MAX_DATAGRAM;
}

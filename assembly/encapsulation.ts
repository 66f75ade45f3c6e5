/** What packets look like on the underlay: GRE in IPv4 (RFC 2784), or in UDP (RFC 8086), whose datagrams the kernel cuts out of long messages. */
import { GRE_UDP_PORT, OFFLOAD_UDP_SEGMENT, PACKETS_PER_MESSAGE } from '../src/core/abi';
import { hasOffload, isGreUdp, local, ports } from './config';
import { greLength, putGre } from './gre';
import { IPV4_LENGTH, MAX_TOTAL_LENGTH, putIpv4 } from './ipv4';
import {
  addCargo,
  lastMessage,
  messageCount,
  messageLength,
  nameIs,
  nameMessage,
  openMessage,
  packetsIn,
  segmentOf,
  setSegment,
} from './messages';
import { flowHash, portOf, UDP_LENGTH } from './transport';

const MAX_DATAGRAM: i32 = MAX_TOTAL_LENGTH - IPV4_LENGTH - UDP_LENGTH;

/** Bytes that the outer headers add to a packet, those of the kernel's among them. */
export function overhead(): i32 {
  return IPV4_LENGTH + (isGreUdp() ? UDP_LENGTH : 0) + greLength();
}

/** Bytes of the outer headers that `putOuter` writes: with UDP, it and IPv4 are the kernel's. */
export function outerLength(): i32 {
  return isGreUdp() ? greLength() : IPV4_LENGTH + greLength();
}

/** Writes the outer headers of a packet of `length` bytes to `vm` at `h`, the time to live being `hops` if it is ours to set. */
export function putOuter(h: usize, length: i32, vm: u32, hops: u32): void {
  if (isGreUdp()) {
    putGre(h);
  } else {
    putIpv4(h, IPV4_LENGTH + greLength() + length, hops, local(), vm);
    putGre(h + <usize>IPV4_LENGTH);
  }
}

/** The source port for the flow of the packet at `p`: the underlay spreads flows by it (RFC 8086 §3.1). */
export function sourcePort(p: usize): i32 {
  return isGreUdp() ? portOf(flowHash(p), ports()) : 0;
}

/** The message that takes the next packet to `vm`, `length` bytes with its outer headers, of which `inner` are the packet's own. */
export function messageFor(port: i32, vm: u32, length: i32, inner: i32): i32 {
  let message: i32;
  if (isGreUdp() && messageCount(port) > 0 && joins(lastMessage(port), vm, length)) {
    message = lastMessage(port);
    if (packetsIn(message) === 1) setSegment(message, messageLength(message));
  } else {
    message = openMessage(port);
    nameMessage(message, vm, isGreUdp() ? GRE_UDP_PORT : 0);
  }
  addCargo(message, 1, inner);
  return message;
}

/** UDP_SEGMENT: all datagrams but the last are of one size (udp(7)). */
function joins(message: i32, vm: u32, length: i32): bool {
  if (!hasOffload(OFFLOAD_UDP_SEGMENT) || !nameIs(message, vm)) return false;
  const count = packetsIn(message);
  if (count >= PACKETS_PER_MESSAGE) return false;
  const total = messageLength(message);
  const size = count === 1 ? total : segmentOf(message);
  return length <= size && total === count * size && total + length <= MAX_DATAGRAM;
}

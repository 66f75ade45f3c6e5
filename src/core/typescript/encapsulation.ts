/** The outer headers: GRE in IPv4 (RFC 2784, RFC 2890), or in UDP (RFC 8086), which the kernel makes. */
import * as abi from '../abi.ts';
import { loadI32, loadU16, type Memory, storeI32, storeU16 } from './bytes.ts';
import { configuredKey, configuredOptions, configuredTtl, isGreUdp, localVm } from './config.ts';
import { greLength, putGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { UDP_LENGTH } from './transport.ts';

/** Bytes that encapsulation adds on the wire. */
export function overhead(memory: Memory): number {
  return ipv4.IPV4_LENGTH + (isGreUdp(memory) ? UDP_LENGTH : 0) + greLength(configuredOptions(memory));
}

/** Bytes in the outer headers that the core makes; of GRE-in-UDP, the kernel makes UDP and IPv4. */
export function outerLength(memory: Memory, options: number): number {
  return (isGreUdp(memory) ? 0 : ipv4.IPV4_LENGTH) + greLength(options);
}

/** The time to live of the outer header around the packet at `p`. */
export function outerTtl(memory: Memory, p: number, options: number): number {
  return (options & abi.OPTION_TTL_INHERIT) === 0 ? configuredTtl(memory) : ipv4.timeToLive(memory, p);
}

/**
 * Puts these headers right before the inner IPv4 header at `inner`, which is as it is to be sent; `innerSum` is the
 * ones-complement sum over the inner packet, if OPTION_CHECKSUM is set. It takes the tunnel's next sequence number and identification.
 */
export function putOuter(
  memory: Memory,
  inner: number,
  options: number,
  tunnel: number,
  vm: number,
  tos: number,
  ttl: number,
  innerSum: number,
): void {
  const gre = inner - greLength(options);
  if (!isGreUdp(memory)) {
    const outer = gre - ipv4.IPV4_LENGTH;
    const total = inner - outer + ipv4.totalLength(memory, inner);
    const idAndFlags =
      (options & abi.OPTION_MAY_FRAGMENT) === 0 ? ipv4.DONT_FRAGMENT : nextIdentification(memory, tunnel) << 16;
    ipv4.putIpv4(memory, outer, tos, total, idAndFlags, ttl, ipv4.PROTOCOL_GRE, localVm(memory), vm);
  }
  const sequence = (options & abi.OPTION_SEQUENCE) === 0 ? 0 : nextSequence(memory, tunnel);
  putGre(memory, gre, options, configuredKey(memory), sequence, innerSum);
}

/**
 * Has the tunnel skip the identifications of `count` packets, which the kernel makes of one. Only packets that may be
 * fragmented need them (RFC 6864 §4.1).
 */
export function skipIdentifications(memory: Memory, tunnel: number, options: number, count: number): void {
  if ((options & abi.OPTION_MAY_FRAGMENT) === 0) return;
  const field = tunnel + abi.TUNNEL_IDENTIFICATION;
  storeU16(memory, field, loadU16(memory, field) + count);
}

/** The identification that follows in the tunnel, never 0: in its place the kernel puts one of its own (raw(7)). */
function nextIdentification(memory: Memory, tunnel: number): number {
  const last = loadU16(memory, tunnel + abi.TUNNEL_IDENTIFICATION);
  const next = last === 0xffff ? 1 : last + 1;
  storeU16(memory, tunnel + abi.TUNNEL_IDENTIFICATION, next);
  return next;
}

/** The sequence number that follows in the tunnel: "the first datagram is sent with a sequence number of 0" (RFC 2890 §2.2). */
function nextSequence(memory: Memory, tunnel: number): number {
  const next = loadI32(memory, tunnel + abi.TUNNEL_SEQUENCE_OUT);
  storeI32(memory, tunnel + abi.TUNNEL_SEQUENCE_OUT, next + 1);
  return next;
}

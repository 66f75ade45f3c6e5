/** The outer headers: GRE in IPv4 (RFC 2784), or in UDP (RFC 8086), which the kernel makes. */
import type { Memory } from './bytes.ts';
import { configuredKey, isGreUdp, isKeyed, localVm } from './config.ts';
import { greLength, putGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { UDP_LENGTH } from './transport.ts';

/** Bytes that encapsulation adds on the wire. */
export function overhead(memory: Memory): number {
  return ipv4.IPV4_LENGTH + (isGreUdp(memory) ? UDP_LENGTH : 0) + greLength(isKeyed(memory));
}

/** Bytes in the outer headers that the core makes; of GRE-in-UDP, the kernel makes UDP and IPv4. */
export function outerLength(memory: Memory): number {
  return (isGreUdp(memory) ? 0 : ipv4.IPV4_LENGTH) + greLength(isKeyed(memory));
}

/** Puts these headers at `p` for an inner packet of `length` bytes. */
export function putOuter(memory: Memory, p: number, length: number, vm: number, ttl: number): void {
  const keyed = isKeyed(memory);
  let gre = p;
  if (!isGreUdp(memory)) {
    gre += ipv4.IPV4_LENGTH;
    const total = ipv4.IPV4_LENGTH + greLength(keyed) + length;
    ipv4.putIpv4(memory, p, total, ttl, localVm(memory), vm);
  }
  putGre(memory, gre, keyed, configuredKey(memory));
}

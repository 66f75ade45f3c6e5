/** Container to underlay: one packet is checked and gets its outer headers (RFC 2003 §3.1, RFC 2784). */
import * as abi from '../abi.ts';
import { addF64, loadI32, type Memory } from './bytes.ts';
import { describe, isInside } from './descriptor.ts';
import { greLength, putGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isReserved, senderOf, vmIn } from './mapping.ts';
import { useTunnel } from './tunnels.ts';

/** Encapsulates one packet. Returns the inner total length in bytes, or a drop reason. */
export function encapsulatePacket(memory: Memory, descriptor: number, now: number): number {
  const inner = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  if (!isInside(inner, available)) return abi.DROP_BAD_DESCRIPTOR;
  const check = ipv4.checkIpv4(memory, inner, available);
  if (check !== abi.FORWARD) return check;

  const local = loadI32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
  const sender = senderOf(memory, ipv4.source(memory, inner));
  if (sender === 0 || sender !== local) return abi.DROP_FOREIGN_SOURCE;
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  const vm = mapping === 0 ? 0 : vmIn(memory, mapping, destination);
  if (vm === 0) return abi.DROP_NO_MAPPING;
  if (vm === local) return abi.DROP_OWN_SLICE;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  const keyed = loadI32(memory, abi.CONFIG + abi.CONFIG_KEYED);
  const headers = ipv4.IPV4_LENGTH + greLength(keyed);
  const length = ipv4.totalLength(memory, inner);
  if (headers + length > ipv4.MAX_TOTAL_LENGTH) return abi.DROP_TOO_LONG;

  const tunnel = useTunnel(memory, vm, now);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_PACKETS, 1);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_BYTES, length);
  const outer = inner - headers;
  const ttl = loadI32(memory, abi.CONFIG + abi.CONFIG_TTL);
  ipv4.putIpv4(memory, outer, headers + length, ttl, local, vm);
  putGre(memory, outer + ipv4.IPV4_LENGTH, keyed, loadI32(memory, abi.CONFIG + abi.CONFIG_KEY));
  describe(memory, descriptor, outer, headers + length, vm);
  return length;
}

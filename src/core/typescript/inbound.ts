/**
 * Underlay to container: one packet is checked and loses its outer headers. The inner source fixes the only legal outer
 * source, so a spoofed packet is seen without any table (compare RFC 5969 §12).
 */
import * as abi from '../abi.ts';
import { addF64, loadI32, type Memory } from './bytes.ts';
import { describe, isInside } from './descriptor.ts';
import { checkGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { findMapping, isReserved, isUnderlay, senderOf, vmIn } from './mapping.ts';
import { useTunnel } from './tunnels.ts';

/** Decapsulates one packet. Returns the inner total length in bytes, or a drop reason. */
export function decapsulatePacket(memory: Memory, descriptor: number, now: number): number {
  const outer = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  if (!isInside(outer, available)) return abi.DROP_BAD_DESCRIPTOR;
  const outerCheck = ipv4.checkIpv4(memory, outer, available);
  if (outerCheck !== abi.FORWARD) return outerCheck;
  if (ipv4.protocol(memory, outer) !== ipv4.PROTOCOL_GRE) return abi.DROP_NOT_GRE;
  if (ipv4.isFragment(memory, outer)) return abi.DROP_FRAGMENT;
  const local = loadI32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
  if (ipv4.destination(memory, outer) !== local) return abi.DROP_NOT_FOR_US;
  const vm = ipv4.source(memory, outer);
  if (vm === 0 || vm === local || !isUnderlay(memory, vm)) return abi.DROP_FOREIGN_UNDERLAY;

  const end = outer + ipv4.totalLength(memory, outer);
  const gre = outer + ipv4.headerLength(memory, outer);
  const keyed = loadI32(memory, abi.CONFIG + abi.CONFIG_KEYED);
  const header = checkGre(memory, gre, end - gre, keyed, loadI32(memory, abi.CONFIG + abi.CONFIG_KEY));
  if (header < 0) return header;
  const inner = gre + header;
  const innerCheck = ipv4.checkIpv4(memory, inner, end - inner);
  if (innerCheck !== abi.FORWARD) return innerCheck;

  if (senderOf(memory, ipv4.source(memory, inner)) !== vm) return abi.DROP_SPOOFED_SOURCE;
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  if (mapping === 0 || vmIn(memory, mapping, destination) !== local) return abi.DROP_FOREIGN_DESTINATION;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  const length = ipv4.totalLength(memory, inner);
  const tunnel = useTunnel(memory, vm, now);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS, 1);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_BYTES, length);
  describe(memory, descriptor, inner, length, vm);
  return length;
}

/**
 * Underlay to container: one packet is checked and loses its outer headers.
 *
 * The inner source fixes the only legal outer source, so a spoofed packet is seen without any table (compare RFC 5969 §12).
 */
import {
  DROP_FOREIGN_DESTINATION,
  DROP_FOREIGN_UNDERLAY,
  DROP_FRAGMENT,
  DROP_NOT_FOR_US,
  DROP_NOT_GRE,
  DROP_RESERVED_ADDRESS,
  DROP_SPOOFED_SOURCE,
  FORWARD,
  TUNNEL_INBOUND_BYTES,
  TUNNEL_INBOUND_PACKETS,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { local } from './config';
import { address, bytes, describe } from './descriptor';
import { checkGre } from './gre';
import { checkIpv4, destination, headerLength, isFragment, PROTOCOL_GRE, protocol, source, totalLength } from './ipv4';
import { findMapping, isReserved, isUnderlay, senderOf, vmIn } from './mapping';
import { useTunnel } from './tunnels';

/** Decapsulates the underlay packet of descriptor `d`, and points `d` to the inner one; answers the inner length in bytes, or the drop reason. */
export function decapsulatePacket(d: usize, now: f64): i32 {
  const p = <usize>address(d);
  const badOuter = checkIpv4(p, <i32>bytes(d));
  if (badOuter !== FORWARD) return badOuter;
  if (protocol(p) !== PROTOCOL_GRE) return DROP_NOT_GRE;
  if (isFragment(p)) return DROP_FRAGMENT;
  if (destination(p) !== local()) return DROP_NOT_FOR_US;
  const vm = source(p);
  if (vm === 0 || vm === local() || !isUnderlay(vm)) return DROP_FOREIGN_UNDERLAY;

  const gre = p + <usize>headerLength(p);
  const payload = totalLength(p) - headerLength(p);
  const header = checkGre(gre, payload);
  if (header < 0) return header;

  const inner = gre + <usize>header;
  const badInner = checkIpv4(inner, payload - header);
  if (badInner !== FORWARD) return badInner;
  if (senderOf(source(inner)) !== vm) return DROP_SPOOFED_SOURCE;
  const dst = destination(inner);
  const mapping = findMapping(dst);
  if (mapping === 0 || vmIn(mapping, dst) !== local()) return DROP_FOREIGN_DESTINATION;
  if (isReserved(mapping, dst)) return DROP_RESERVED_ADDRESS;

  const length = totalLength(inner);
  const tunnel = useTunnel(vm, now);
  addF64(tunnel + TUNNEL_INBOUND_PACKETS, 1);
  addF64(tunnel + TUNNEL_INBOUND_BYTES, <f64>length);
  describe(d, inner, length, vm);
  return length;
}

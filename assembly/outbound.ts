/** Container to underlay: one packet is checked and gets its outer headers (RFC 2003 §3.1, RFC 2784). */
import {
  DROP_FOREIGN_SOURCE,
  DROP_NO_MAPPING,
  DROP_OWN_SLICE,
  DROP_RESERVED_ADDRESS,
  DROP_TOO_LONG,
  FORWARD,
  TUNNEL_OUTBOUND_BYTES,
  TUNNEL_OUTBOUND_PACKETS,
} from '../src/core/abi';
import { addF64 } from './bytes';
import { local, ttl } from './config';
import { address, bytes, describe } from './descriptor';
import { greLength, putGre } from './gre';
import { checkIpv4, destination, IPV4_LENGTH, MAX_TOTAL_LENGTH, putIpv4, source, totalLength } from './ipv4';
import { findMapping, isReserved, senderOf, vmIn } from './mapping';
import { useTunnel } from './tunnels';

/** Encapsulates the container's packet of descriptor `d`, and points `d` to the result; answers the inner length in bytes, or the drop reason. */
export function encapsulatePacket(d: usize, now: f64): i32 {
  const p = <usize>address(d);
  const bad = checkIpv4(p, <i32>bytes(d));
  if (bad !== FORWARD) return bad;
  const sender = senderOf(source(p));
  if (sender === 0 || sender !== local()) return DROP_FOREIGN_SOURCE;
  const dst = destination(p);
  const mapping = findMapping(dst);
  const vm = vmIn(mapping, dst);
  if (vm === 0) return DROP_NO_MAPPING;
  if (vm === local()) return DROP_OWN_SLICE;
  if (isReserved(mapping, dst)) return DROP_RESERVED_ADDRESS;
  const length = totalLength(p);
  const overhead = IPV4_LENGTH + greLength();
  if (length + overhead > MAX_TOTAL_LENGTH) return DROP_TOO_LONG;

  const tunnel = useTunnel(vm, now);
  addF64(tunnel + TUNNEL_OUTBOUND_PACKETS, 1);
  addF64(tunnel + TUNNEL_OUTBOUND_BYTES, <f64>length);
  const outer = p - <usize>overhead;
  putIpv4(outer, length + overhead, ttl(), local(), vm);
  putGre(outer + <usize>IPV4_LENGTH);
  describe(d, outer, length + overhead, vm);
  return length;
}

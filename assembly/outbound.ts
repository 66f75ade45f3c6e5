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
import { local, ttl } from './config';
import { add } from './counters';
import { address, bytes, forwardTo } from './descriptor';
import { greLength, putGre } from './gre';
import {
  checkIpv4,
  destination,
  IPV4_MAX_TOTAL_LENGTH,
  IPV4_MIN_LENGTH,
  putOuterIpv4,
  source,
  totalLength,
} from './ipv4';
import { belongsTo, covering, isReserved, vmIn } from './mapping';
import { use } from './tunnels';

/** Encapsulates the container's packet of descriptor `d`, and points `d` to the result; answers the inner length in bytes, or the drop reason. */
export function encapsulatePacket(d: usize, now: f64): i32 {
  const p = <usize>address(d);
  const bad = checkIpv4(p, <i32>bytes(d));
  if (bad !== FORWARD) return bad;
  if (!belongsTo(source(p), local())) return DROP_FOREIGN_SOURCE;
  const dst = destination(p);
  const mapping = covering(dst);
  const vm = vmIn(mapping, dst);
  if (vm === 0) return DROP_NO_MAPPING;
  if (vm === local()) return DROP_OWN_SLICE;
  if (isReserved(mapping, dst)) return DROP_RESERVED_ADDRESS;
  const length = totalLength(p);
  const overhead = IPV4_MIN_LENGTH + greLength();
  if (length + overhead > IPV4_MAX_TOTAL_LENGTH) return DROP_TOO_LONG;

  const tunnel = use(vm, now);
  add(tunnel + TUNNEL_OUTBOUND_PACKETS, 1);
  add(tunnel + TUNNEL_OUTBOUND_BYTES, <f64>length);
  const outer = p - <usize>overhead;
  putOuterIpv4(outer, length + overhead, ttl(), local(), vm);
  putGre(outer + <usize>IPV4_MIN_LENGTH);
  forwardTo(d, outer, length + overhead, vm);
  return length;
}

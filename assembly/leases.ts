/**
 * Leases: a container opens only so many tunnels to VMs that nothing was ever heard of. Each of them may cost the kernel a neighbour entry that nobody answers,
 * and of those a machine has few (gc_thresh3, Documentation/networking/ip-sysctl.rst).
 */
import {
  LEASE_BUCKETS,
  LEASE_BURST,
  LEASE_INTERVAL,
  LEASE_LIFETIME,
  SOURCES_LOG2,
  TUNNEL_INBOUND_PACKETS,
  TUNNEL_LAST_USE,
  TUNNEL_LEASE,
} from '../src/core/abi';
import { findTunnel, useTunnel } from './tunnels';

/** The record of the tunnel to `vm` for a packet from `from`, marked as used at `now`, which is `second` in s; 0 if the tunnel is not leased and `from` has no token to lease it. */
export function leaseTunnel(vm: u32, from: u32, now: f64, second: u32): usize {
  const known = findTunnel(vm);
  if (known !== 0 && (load<f64>(known + TUNNEL_INBOUND_PACKETS) > 0 || isLeased(known, second))) {
    store<f64>(known + TUNNEL_LAST_USE, now);
    return known;
  }
  if (!takeToken(from, now)) return 0;
  const tunnel = useTunnel(vm, now);
  store<u16>(tunnel + TUNNEL_LEASE, <u16>(second + LEASE_LIFETIME));
  return tunnel;
}

/** Of the second at which a lease ends 16 bits are kept: it is one if it is near. */
function isLeased(tunnel: usize, second: u32): bool {
  const rest = (<u32>load<u16>(tunnel + TUNNEL_LEASE) - second) & 0xffff;
  return rest !== 0 && rest <= <u32>LEASE_LIFETIME;
}

/** A bucket is the time at which it is full again, as in replies.ts. */
function takeToken(from: u32, now: f64): bool {
  const bucket = <usize>(LEASE_BUCKETS + 8 * <i32>(from & ((1 << SOURCES_LOG2) - 1)));
  const full = load<f64>(bucket);
  if (!(full - now <= (LEASE_BURST - 1) * LEASE_INTERVAL)) return false;
  store<f64>(bucket, max(full, now) + LEASE_INTERVAL);
  return true;
}

/**
 * Leases: what limits how many VMs a container makes this VM look for. Of a VM that has sent something one knows that it is
 * there; for any other, the tunnel is leased for a few seconds, and only so many leases a second are given to one source.
 */
import * as abi from '../abi.ts';
import { loadF64, loadU16, type Memory, storeF64, storeU16 } from './bytes.ts';
import { seconds } from './clock.ts';
import { findTunnel, useTunnel } from './tunnels.ts';

const SOURCE_MASK = (1 << abi.SOURCES_LOG2) - 1;
/** How far ahead of now a bucket may be that still has a token, ms. */
const MOST_AHEAD = (abi.LEASE_BURST - 1) * abi.LEASE_INTERVAL;

/**
 * Marks the tunnel of `vm` as used at `now` (ms) for a packet from `source`, and opens or leases it if need be. Returns its
 * record's place in memory; 0 if it would need a lease that the source does not get.
 */
export function leaseTunnel(memory: Memory, vm: number, source: number, now: number): number {
  const tunnel = findTunnel(memory, vm);
  const isFree = tunnel !== 0 && (isHeard(memory, tunnel) || hasLease(memory, tunnel, now));
  if (!isFree && !takeToken(memory, source, now)) return 0;
  const used = useTunnel(memory, vm, now);
  if (!isFree) storeU16(memory, used + abi.TUNNEL_LEASE, (seconds(now) + abi.LEASE_LIFETIME) & 0xffff);
  return used;
}

/** Whether the tunnel's VM has sent anything. */
function isHeard(memory: Memory, tunnel: number): boolean {
  return loadF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS) > 0;
}

/** Whether the tunnel has a lease that ends later than now, and not so late that its 16 bits must be of another time. */
function hasLease(memory: Memory, tunnel: number, now: number): boolean {
  const left = (loadU16(memory, tunnel + abi.TUNNEL_LEASE) - seconds(now)) & 0xffff;
  return left > 0 && left <= abi.LEASE_LIFETIME;
}

/** Takes a token from the source's bucket, if it has one. */
function takeToken(memory: Memory, source: number, now: number): boolean {
  const bucket = abi.LEASE_BUCKETS + 8 * (source & SOURCE_MASK);
  const ahead = loadF64(memory, bucket);
  const hasOne = ahead - now <= MOST_AHEAD;
  if (hasOne) storeF64(memory, bucket, Math.max(ahead, now) + abi.LEASE_INTERVAL);
  return hasOne;
}

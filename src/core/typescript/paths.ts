/**
 * What is known about the way to a remote VM, for a time: how large a packet may be (path MTU, RFC 1191), and whether it
 * arrives at all. It stands in the VM's tunnel; changes are noted for the host.
 */
import * as abi from '../abi.ts';
import { loadU16, loadU32, type Memory, storeU16, storeU32 } from './bytes.ts';
import { seconds } from './clock.ts';
import * as config from './config.ts';

/** Bytes in an entry of the list of what was learnt. */
const LEARNT_SIZE = 8;

/** Bytes that an inner packet may have in the tunnel to `vm`. A path MTU that is too old is forgotten on the way. */
export function limitOf(memory: Memory, tunnel: number, vm: number, now: number): number {
  const mtu = config.mtu(memory);
  if (pathMtu(memory, tunnel) === 0) return mtu;
  if (!isPathFresh(memory, tunnel, now)) {
    storeU16(memory, tunnel + abi.TUNNEL_PATH_MTU, 0);
    note(memory, tunnel, vm, now);
    return mtu;
  }
  return Math.min(mtu, pathMtu(memory, tunnel) - config.overhead(memory));
}

/** Notes that outer packets to `vm` of more than `most` bytes do not get through, if that is news. */
export function lowerPathMtu(memory: Memory, tunnel: number, vm: number, most: number, now: number): void {
  limitOf(memory, tunnel, vm, now); // Forgets what is too old.
  const known = pathMtu(memory, tunnel);
  const learnt = Math.max(most, abi.LEAST_PATH_MTU);
  // It is never raised: that is what its end is for (RFC 1191 §3).
  if (learnt >= (known === 0 ? config.mtu(memory) + config.overhead(memory) : known)) return;
  storeU16(memory, tunnel + abi.TUNNEL_PATH_MTU, learnt);
  storeU32(memory, tunnel + abi.TUNNEL_PATH_MTU_UNTIL, seconds(now) + abi.PATH_MTU_LIFETIME);
  note(memory, tunnel, vm, now);
}

/** Whether the tunnel has a path MTU whose time is not over at `now` (ms). */
export function isPathFresh(memory: Memory, tunnel: number, now: number): boolean {
  return pathMtu(memory, tunnel) !== 0 && isBefore(memory, now, tunnel + abi.TUNNEL_PATH_MTU_UNTIL);
}

/** Notes that `vm` cannot be reached, for the reason that the code of an ICMP message tells. */
export function markUnreachable(memory: Memory, tunnel: number, vm: number, code: number, now: number): void {
  const isNews = reasonOf(memory, tunnel, now) === 0;
  storeU16(memory, tunnel + abi.TUNNEL_UNREACHABLE, code + 1);
  storeU32(memory, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL, seconds(now) + abi.UNREACHABLE_LIFETIME);
  if (isNews) note(memory, tunnel, vm, now);
}

/** Notes that `vm` can be reached: a packet came from it, or has gone out that the host had no way for. */
export function markReachable(memory: Memory, tunnel: number, vm: number, now: number): void {
  if (loadU16(memory, tunnel + abi.TUNNEL_UNREACHABLE) === 0) return;
  storeU16(memory, tunnel + abi.TUNNEL_UNREACHABLE, 0);
  storeU32(memory, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL, 0);
  note(memory, tunnel, vm, now);
}

/** Bytes that an outer packet may have on its way; 0 if nothing is known. */
function pathMtu(memory: Memory, tunnel: number): number {
  return loadU16(memory, tunnel + abi.TUNNEL_PATH_MTU);
}

/** One more than the code that says why the tunnel's VM cannot be reached; 0 if nobody has said so of late. */
function reasonOf(memory: Memory, tunnel: number, now: number): number {
  if (!isBefore(memory, now, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL)) return 0;
  return loadU16(memory, tunnel + abi.TUNNEL_UNREACHABLE);
}

/** Whether `now` (ms) is before the second in the field at `p`. */
function isBefore(memory: Memory, now: number, p: number): boolean {
  return seconds(now) < loadU32(memory, p) >>> 0;
}

/** Appends what is known about the way to `vm` to the list of what was learnt, if that has room. */
function note(memory: Memory, tunnel: number, vm: number, now: number): void {
  const length = loadU32(memory, abi.CHANGES + abi.CHANGES_LEARNT);
  if (length >= abi.BATCH_SIZE) return;
  const entry = abi.CHANGES + abi.CHANGES_LEARNT_LIST + LEARNT_SIZE * length;
  storeU32(memory, entry, vm);
  storeU16(memory, entry + 4, pathMtu(memory, tunnel));
  storeU16(memory, entry + 6, reasonOf(memory, tunnel, now));
  storeU32(memory, abi.CHANGES + abi.CHANGES_LEARNT, length + 1);
}

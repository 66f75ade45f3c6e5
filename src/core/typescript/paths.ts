/**
 * What is known about the way to a remote VM, for a time: how large a packet may be (path MTU, RFC 1191), and whether it
 * arrives at all. It stands in the VM's tunnel; changes are noted for the host.
 */
import * as abi from '../abi.ts';
import { loadI32, loadU16, type Memory, storeI32, storeU16 } from './bytes.ts';
import { inSeconds, until } from './clock.ts';
import { configuredMtu } from './config.ts';
import { overhead } from './encapsulation.ts';
import * as ipv4 from './ipv4.ts';
import { remoteVm } from './tunnels.ts';

/** Bytes in an entry of the list of what was learnt. */
const LEARNT_SIZE = 8;

/** Sets how many bytes outer headers add, and how many the longest inner packet that fits has. All else must be configured by now. */
export function configureMtu(memory: Memory, mtu: number): void {
  storeI32(memory, abi.CONFIG + abi.CONFIG_OVERHEAD, overhead(memory));
  const most = ipv4.MAX_TOTAL_LENGTH - overhead(memory);
  storeI32(memory, abi.CONFIG + abi.CONFIG_MTU, Math.min(Math.max(mtu, ipv4.MIN_MTU), most));
}

/** Whether there may be anything to ask about here: most often there is not, and one look is enough. */
export function isPathKnown(memory: Memory, tunnel: number): boolean {
  return loadI32(memory, tunnel + abi.TUNNEL_PATH_MTU) !== 0;
}

/** Bytes that an inner packet may have in the tunnel. A path MTU that is too old is forgotten on the way. */
export function limitOf(memory: Memory, tunnel: number, now: number): number {
  const mtu = configuredMtu(memory);
  const pathMtu = loadU16(memory, tunnel + abi.TUNNEL_PATH_MTU);
  if (pathMtu === 0) return mtu;
  if (inSeconds(now) >= until(memory, tunnel + abi.TUNNEL_PATH_MTU_UNTIL)) {
    storeU16(memory, tunnel + abi.TUNNEL_PATH_MTU, 0);
    note(memory, tunnel, now);
    return mtu;
  }
  return Math.min(mtu, pathMtu - overhead(memory));
}

/** Notes that outer packets of more than `mtu` bytes do not get through, if that is news. */
export function learnPathMtu(memory: Memory, tunnel: number, mtu: number, now: number): void {
  limitOf(memory, tunnel, now); // Forgets what is too old.
  const outer = overhead(memory);
  const pathMtu = loadU16(memory, tunnel + abi.TUNNEL_PATH_MTU);
  const learnt = Math.max(mtu, abi.LEAST_PATH_MTU);
  // It is never raised: that is what its end is for (RFC 1191 §3).
  if (learnt >= (pathMtu === 0 ? configuredMtu(memory) + outer : pathMtu)) return;
  storeU16(memory, tunnel + abi.TUNNEL_PATH_MTU, learnt);
  storeI32(memory, tunnel + abi.TUNNEL_PATH_MTU_UNTIL, inSeconds(now) + abi.PATH_MTU_LIFETIME);
  note(memory, tunnel, now);
}

/** Notes that the tunnel's VM cannot be reached, for the reason that the code of an ICMP message tells. */
export function learnUnreachable(memory: Memory, tunnel: number, code: number, now: number): void {
  const isNews = reasonOf(memory, tunnel, now) === 0;
  storeU16(memory, tunnel + abi.TUNNEL_UNREACHABLE, code + 1);
  storeI32(memory, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL, inSeconds(now) + abi.UNREACHABLE_LIFETIME);
  if (isNews) note(memory, tunnel, now);
}

/** Notes that the tunnel's VM can be reached: a packet came from it, or has gone out that the host had no way for. */
export function learnReachable(memory: Memory, tunnel: number, now: number): void {
  if (loadU16(memory, tunnel + abi.TUNNEL_UNREACHABLE) === 0) return;
  storeU16(memory, tunnel + abi.TUNNEL_UNREACHABLE, 0);
  storeI32(memory, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL, 0);
  note(memory, tunnel, now);
}

/** One more than the code that says why the tunnel's VM cannot be reached; 0 if nobody has said so of late. */
function reasonOf(memory: Memory, tunnel: number, now: number): number {
  if (inSeconds(now) >= until(memory, tunnel + abi.TUNNEL_UNREACHABLE_UNTIL)) return 0;
  return loadU16(memory, tunnel + abi.TUNNEL_UNREACHABLE);
}

/** Appends what is known about the tunnel to the list of what was learnt, if that has room. */
function note(memory: Memory, tunnel: number, now: number): void {
  const length = loadI32(memory, abi.CHANGES + abi.CHANGES_LEARNT);
  if (length >= abi.BATCH_SIZE) return;
  const entry = abi.CHANGES + abi.CHANGES_LEARNT_LIST + LEARNT_SIZE * length;
  storeI32(memory, entry, remoteVm(memory, tunnel));
  storeU16(memory, entry + 4, loadU16(memory, tunnel + abi.TUNNEL_PATH_MTU));
  storeU16(memory, entry + 6, reasonOf(memory, tunnel, now));
  storeI32(memory, abi.CHANGES + abi.CHANGES_LEARNT, length + 1);
}

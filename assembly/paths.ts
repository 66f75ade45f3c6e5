/** What is known about the way to a remote VM: how large packets may be (RFC 1191, RFC 7588), and whether it can be reached. */
import {
  BATCH_SIZE,
  CHANGES,
  CHANGES_LEARNT,
  CHANGES_LEARNT_LIST,
  LEAST_PATH_MTU,
  PATH_MTU_LIFETIME,
  TUNNEL_PATH_MTU,
  TUNNEL_PATH_MTU_UNTIL,
  TUNNEL_UNREACHABLE,
  TUNNEL_UNREACHABLE_UNTIL,
  UNREACHABLE_LIFETIME,
} from '../src/core/abi';
import { seconds } from './clock';
import { mtu, overhead } from './config';

/** Bytes of the longest inner packet that the tunnel to `vm` carries. Inlined wherever it is called. */
export function limitOf(tunnel: usize, vm: u32, now: f64): i32 {
  return pathMtu(tunnel) === 0 ? mtu() : limitOfPath(tunnel, vm, now);
}

/** The same where the path is narrower than the underlay, or was. */
function limitOfPath(tunnel: usize, vm: u32, now: f64): i32 {
  if (seconds(now) >= load<u32>(tunnel + TUNNEL_PATH_MTU_UNTIL)) {
    store<u16>(tunnel + TUNNEL_PATH_MTU, 0);
    noteLearnt(tunnel, vm, now);
    return mtu();
  }
  return min(mtu(), pathMtu(tunnel) - overhead());
}

/** Believes that outer packets to `vm` of more than `most` bytes do not arrive; a path MTU never grows by that. */
export function lowerPathMtu(tunnel: usize, vm: u32, most: i32, now: f64): void {
  limitOf(tunnel, vm, now); // Forgets what is too old.
  const before = pathMtu(tunnel) === 0 ? mtu() + overhead() : pathMtu(tunnel);
  const next = max(most, LEAST_PATH_MTU);
  if (next >= before) return;
  store<u16>(tunnel + TUNNEL_PATH_MTU, <u16>next);
  store<u32>(tunnel + TUNNEL_PATH_MTU_UNTIL, seconds(now) + PATH_MTU_LIFETIME);
  noteLearnt(tunnel, vm, now);
}

/** Whether what is known about the path has to be kept, at `now` or later, even where no packet uses it: or else it would be found out anew too soon. */
export function isPathFresh(tunnel: usize, now: f64): bool {
  return pathMtu(tunnel) !== 0 && seconds(now) < load<u32>(tunnel + TUNNEL_PATH_MTU_UNTIL);
}

/** Believes for a while that `vm` cannot be reached, for the reason with this ICMP code. Another reason is no news. */
export function markUnreachable(tunnel: usize, vm: u32, code: u32, now: f64): void {
  const before = unreachable(tunnel, now);
  store<u16>(tunnel + TUNNEL_UNREACHABLE, <u16>(code + 1));
  store<u32>(tunnel + TUNNEL_UNREACHABLE_UNTIL, seconds(now) + UNREACHABLE_LIFETIME);
  if (before === 0) noteLearnt(tunnel, vm, now);
}

/** A packet has come from `vm`, or has gone out to it that the host had no way for. */
export function markReachable(tunnel: usize, vm: u32, now: f64): void {
  if (load<u16>(tunnel + TUNNEL_UNREACHABLE) === 0) return;
  store<u16>(tunnel + TUNNEL_UNREACHABLE, 0);
  store<u32>(tunnel + TUNNEL_UNREACHABLE_UNTIL, 0);
  noteLearnt(tunnel, vm, now);
}

function pathMtu(tunnel: usize): i32 {
  return <i32>load<u16>(tunnel + TUNNEL_PATH_MTU);
}

/** 1 + the ICMP code of what has been said of late against the VM, or 0. */
function unreachable(tunnel: usize, now: f64): u32 {
  if (seconds(now) >= load<u32>(tunnel + TUNNEL_UNREACHABLE_UNTIL)) return 0;
  return <u32>load<u16>(tunnel + TUNNEL_UNREACHABLE);
}

function noteLearnt(tunnel: usize, vm: u32, now: f64): void {
  const n = load<i32>(CHANGES + CHANGES_LEARNT);
  if (n >= BATCH_SIZE) return;
  const entry = <usize>(CHANGES + CHANGES_LEARNT_LIST + 8 * n);
  store<u32>(entry, vm);
  store<u16>(entry + 4, <u16>pathMtu(tunnel));
  store<u16>(entry + 6, <u16>unreachable(tunnel, now));
  store<i32>(CHANGES + CHANGES_LEARNT, n + 1);
}

/**
 * What this VM keeps about each remote VM it talks to: a set-associative table, as in a processor's cache.
 *
 * A look-up reads one set of keys and one record, however many tunnels there are. Removal leaves no gap to repair, and a full set gives
 * up its longest idle tunnel, so the table is bounded and packets still flow: a tunnel holds no state that forwarding depends on.
 */
import {
  BATCH_SIZE,
  CHANGES,
  CHANGES_CLOSED,
  CHANGES_CLOSED_LIST,
  CHANGES_LEARNT,
  CHANGES_OPENED,
  CHANGES_OPENED_LIST,
  CHANGES_TUNNELS,
  TUNNEL_CAPACITY,
  TUNNEL_KEYS,
  TUNNEL_LAST_USE,
  TUNNEL_SETS_LOG2,
  TUNNEL_SIZE,
  TUNNEL_WAYS,
  TUNNELS,
} from '../src/core/abi';
import { isPathFresh } from './paths';

/** 2^32 divided by the golden ratio: spreads consecutive addresses evenly (Knuth, TAOCP vol. 3, §6.4). */
const GOLDEN_RATIO: u32 = 0x9e3779b1;

/** Tunnels, about, of which a second-level cache has room for the records. */
const WARM_FROM: u32 = 4096;

/** Forgets which tunnels the previous call opened, closed and learnt something about. */
export function clearChanges(): void {
  store<u32>(CHANGES + CHANGES_OPENED, 0);
  store<u32>(CHANGES + CHANGES_CLOSED, 0);
  store<u32>(CHANGES + CHANGES_LEARNT, 0);
}

/** The record of the tunnel to `vm`, opened if there is none, marked as used at `now`. */
export function useTunnel(vm: u32, now: f64): usize {
  const set = setOf(vm);
  const ways = waysOf(set, vm);
  if (ways === 0) return openTunnel(victimIn(set), vm, now);
  const tunnel = record(set + ctz(ways));
  store<f64>(tunnel + TUNNEL_LAST_USE, now);
  return tunnel;
}

/** The record of the tunnel to `vm`; 0 if there is none. */
export function findTunnel(vm: u32): usize {
  const set = setOf(vm);
  const ways = vm === 0 ? 0 : waysOf(set, vm);
  return ways === 0 ? 0 : record(set + ctz(ways));
}

/**
 * Reads what is kept about the tunnels to the `count` VMs at `vms`, for no other end than to have it in the cache: a look-up that waits for memory waits
 * alone, but these reads wait together. Worth its price only where the table is larger than the cache.
 */
export function warmTunnels(vms: usize, count: i32): void {
  let read: u32 = 0;
  for (let i = 0; i < count; i++) read ^= keyOf(setOf(load<u32>(vms + <usize>(4 * i))));
  for (let i = 0; i < count; i++) {
    const vm = load<u32>(vms + <usize>(4 * i));
    const set = setOf(vm);
    read ^= load<u32>(record(set + (ctz(waysOf(set, vm)) & (TUNNEL_WAYS - 1))));
  }
  // Or else the compiler would leave the reading out.
  if (count > 0) store<u32>(vms, read);
}

/** Whether there are so many tunnels that `warmTunnels` pays. */
export function isTableLarge(): bool {
  return load<u32>(CHANGES + CHANGES_TUNNELS) > WARM_FROM;
}

/** Closes tunnels last used before `before`, at most as many as the list of closed ones holds; answers how many. */
export function expireTunnels(before: f64): i32 {
  let closed = 0;
  for (let set = 0; set < TUNNEL_CAPACITY; set += TUNNEL_WAYS) {
    // However few tunnels there are, all sets are looked at: most of them at a glance.
    if (isSetEmpty(set)) continue;
    for (let i = set; i < set + TUNNEL_WAYS; i++) {
      if (keyOf(i) === 0 || !(load<f64>(record(i) + TUNNEL_LAST_USE) < before) || isPathFresh(record(i), before))
        continue;
      if (closed === BATCH_SIZE) return closed;
      closeTunnel(i);
      closed++;
    }
  }
  return closed;
}

function isSetEmpty(set: i32): bool {
  const keys = <usize>(TUNNEL_KEYS + 4 * set);
  return (load<u64>(keys) | load<u64>(keys, 8) | load<u64>(keys, 16) | load<u64>(keys, 24)) === 0;
}

/** The first free way of a set, or else the way that has been idle longest. */
function victimIn(set: i32): i32 {
  let victim = set;
  for (let i = set; i < set + TUNNEL_WAYS; i++) {
    if (keyOf(i) === 0) return i;
    if (load<f64>(record(i) + TUNNEL_LAST_USE) < load<f64>(record(victim) + TUNNEL_LAST_USE)) victim = i;
  }
  return victim;
}

function openTunnel(i: i32, vm: u32, now: f64): usize {
  if (keyOf(i) !== 0) closeTunnel(i);
  store<u32>(TUNNEL_KEYS + 4 * i, vm);
  store<f64>(record(i) + TUNNEL_LAST_USE, now);
  append(CHANGES_OPENED, CHANGES_OPENED_LIST, vm);
  store<u32>(CHANGES + CHANGES_TUNNELS, load<u32>(CHANGES + CHANGES_TUNNELS) + 1);
  return record(i);
}

function closeTunnel(i: i32): void {
  append(CHANGES_CLOSED, CHANGES_CLOSED_LIST, keyOf(i));
  store<u32>(TUNNEL_KEYS + 4 * i, 0);
  memory.fill(record(i), 0, TUNNEL_SIZE);
  store<u32>(CHANGES + CHANGES_TUNNELS, load<u32>(CHANGES + CHANGES_TUNNELS) - 1);
}

/** A call opens or closes at most one tunnel a packet, so the lists never overflow. */
function append(count: i32, list: i32, vm: u32): void {
  const n = load<i32>(CHANGES + count);
  store<u32>(CHANGES + list + 4 * n, vm);
  store<i32>(CHANGES + count, n + 1);
}

/** The first way of the set of `vm`. */
function setOf(vm: u32): i32 {
  return <i32>((vm * GOLDEN_RATIO) >> (32 - TUNNEL_SETS_LOG2)) * TUNNEL_WAYS;
}

/** Which ways of a set have the key `vm`, as bits. Without branches: with many tunnels, nobody could predict them. */
function waysOf(set: i32, vm: u32): i32 {
  const keys = <usize>(TUNNEL_KEYS + 4 * set);
  if (ASC_FEATURE_SIMD) {
    const wanted = i32x4.splat(vm);
    const low = i32x4.bitmask(i32x4.eq(v128.load(keys), wanted));
    return low | (i32x4.bitmask(i32x4.eq(v128.load(keys, 16), wanted)) << 4);
  }
  let ways = 0;
  for (let i = 0; i < TUNNEL_WAYS; i++) ways |= (load<u32>(keys + <usize>(4 * i)) === vm ? 1 : 0) << i;
  return ways;
}

function keyOf(i: i32): u32 {
  return load<u32>(TUNNEL_KEYS + 4 * i);
}

function record(i: i32): usize {
  return <usize>(TUNNELS + i * TUNNEL_SIZE);
}

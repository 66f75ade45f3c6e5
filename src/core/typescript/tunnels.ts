/**
 * Tunnels: what a VM keeps about the remote VMs it talks to, in a set-associative table with the multiplicative hash of
 * Knuth, The Art of Computer Programming 3, §6.4. Look-ups cost the same at any fill, closing leaves nothing to repair.
 */
import * as abi from '../abi.ts';
import { clear, loadF64, loadU32, type Memory, storeF64, storeU32 } from './bytes.ts';
import { isPathFresh } from './paths.ts';

/** 2^32 divided by the golden ratio, odd. */
const HASH_MULTIPLIER = 0x9e3779b1;
const HASH_SHIFT = 32 - abi.TUNNEL_SETS_LOG2;
const KEY_SIZE = 4;
const SET_SIZE = KEY_SIZE * abi.TUNNEL_WAYS;
const KEYS_END = abi.TUNNEL_KEYS + KEY_SIZE * abi.TUNNEL_CAPACITY;

/** Empties the lists of opened and closed tunnels and of what was learnt. Entries beyond the counts keep their values. */
export function clearChanges(memory: Memory): void {
  storeU32(memory, abi.CHANGES + abi.CHANGES_OPENED, 0);
  storeU32(memory, abi.CHANGES + abi.CHANGES_CLOSED, 0);
  storeU32(memory, abi.CHANGES + abi.CHANGES_LEARNT, 0);
}

/**
 * Marks the tunnel of `vm`, which is not 0, as used at `now` (ms), and opens it if need be. Returns its record's place
 * in memory.
 */
export function useTunnel(memory: Memory, vm: number, now: number): number {
  const tunnel = findTunnel(memory, vm);
  if (tunnel === 0) return openTunnel(memory, setOf(vm), vm, now);
  storeF64(memory, tunnel + abi.TUNNEL_LAST_USE, now);
  return tunnel;
}

/** The place of the record of the tunnel of `vm`; 0 if there is none. */
export function findTunnel(memory: Memory, vm: number): number {
  if (vm === 0) return 0; // What a free key holds.
  const set = setOf(vm);
  // All ways are compared before one is taken: closing may have left a free way before the vm's own.
  for (let key = set; key < set + SET_SIZE; key += KEY_SIZE) {
    if (loadU32(memory, key) === vm) return recordOf(key);
  }
  return 0;
}

/**
 * Closes up to BATCH_SIZE tunnels last used before `before` (ms), in the order of the table. Returns how many. Those with a
 * path MTU stay for its time: without it, a larger one would be tried again too soon.
 */
export function expireTunnels(memory: Memory, before: number): number {
  let closed = 0;
  for (let key = abi.TUNNEL_KEYS; key < KEYS_END && closed < abi.BATCH_SIZE; key += KEY_SIZE) {
    if (loadU32(memory, key) === 0) continue;
    const tunnel = recordOf(key);
    if (loadF64(memory, tunnel + abi.TUNNEL_LAST_USE) < before && !isPathFresh(memory, tunnel, before)) {
      closeTunnel(memory, key);
      closed++;
    }
  }
  return closed;
}

/** Opens a tunnel in the first free way of the set, or in the one used longest ago. Returns its record. */
function openTunnel(memory: Memory, set: number, vm: number, now: number): number {
  let way = firstFree(memory, set);
  if (way === 0) {
    way = longestUnused(memory, set);
    closeTunnel(memory, way);
  }
  const tunnel = recordOf(way);
  storeU32(memory, way, vm);
  clear(memory, tunnel, abi.TUNNEL_SIZE);
  storeF64(memory, tunnel + abi.TUNNEL_LAST_USE, now);
  countTunnels(memory, 1);
  append(memory, abi.CHANGES_OPENED, abi.CHANGES_OPENED_LIST, vm);
  return tunnel;
}

/** Closes the tunnel whose key is at `key`. */
function closeTunnel(memory: Memory, key: number): void {
  append(memory, abi.CHANGES_CLOSED, abi.CHANGES_CLOSED_LIST, loadU32(memory, key));
  storeU32(memory, key, 0);
  clear(memory, recordOf(key), abi.TUNNEL_SIZE);
  countTunnels(memory, -1);
}

/** The place of the first free key in the set; 0 if there is none. */
function firstFree(memory: Memory, set: number): number {
  for (let key = set; key < set + SET_SIZE; key += KEY_SIZE) {
    if (loadU32(memory, key) === 0) return key;
  }
  return 0;
}

/** The place of the key with the smallest last use in a full set; of equals, the first. */
function longestUnused(memory: Memory, set: number): number {
  let oldest = set;
  let oldestUse = loadF64(memory, recordOf(set) + abi.TUNNEL_LAST_USE);
  for (let key = set + KEY_SIZE; key < set + SET_SIZE; key += KEY_SIZE) {
    const lastUse = loadF64(memory, recordOf(key) + abi.TUNNEL_LAST_USE);
    if (lastUse < oldestUse) {
      oldest = key;
      oldestUse = lastUse;
    }
  }
  return oldest;
}

/** The place of the first key in the set of `vm`. */
function setOf(vm: number): number {
  return abi.TUNNEL_KEYS + (Math.imul(vm, HASH_MULTIPLIER) >>> HASH_SHIFT) * SET_SIZE;
}

/** The record that belongs to the key at `key`. */
function recordOf(key: number): number {
  return abi.TUNNELS + (key - abi.TUNNEL_KEYS) * (abi.TUNNEL_SIZE / KEY_SIZE);
}

function countTunnels(memory: Memory, change: number): void {
  const p = abi.CHANGES + abi.CHANGES_TUNNELS;
  storeU32(memory, p, loadU32(memory, p) + change);
}

/** Appends to a list of changes. Room is certain: a call opens and closes at most one tunnel for each descriptor. */
function append(memory: Memory, count: number, list: number, vm: number): void {
  const length = loadU32(memory, abi.CHANGES + count);
  storeU32(memory, abi.CHANGES + list + 4 * length, vm);
  storeU32(memory, abi.CHANGES + count, length + 1);
}

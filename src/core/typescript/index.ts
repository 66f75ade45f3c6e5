/**
 * The packet core in TypeScript: the Wasm core's twin, its fallback and its oracle (docs/abi.md; GRE over IPv4, RFC 2784;
 * GRE-in-UDP, RFC 8086).
 */
import * as abi from '../abi.ts';
import { PacketCore } from '../core.ts';
import { clearBlocks } from './blocks.ts';
import type { Memory } from './bytes.ts';
import { configure, configureDevices, hasOffload } from './config.ts';
import { decide, NO_ROOM } from './descriptor.ts';
import { decapsulatePackets, demandInbound } from './inbound.ts';
import { learnFrom, narrow } from './learn.ts';
import { addMapping, vmOf } from './mapping.ts';
import { clearFlows, closeFlows } from './merge.ts';
import { clearMessages, writeMessages } from './messages.ts';
import { demandOutbound, encapsulatePacket } from './outbound.ts';
import { configureMtu } from './paths.ts';
import { reach, refuse } from './refuse.ts';
import { divide, endShares } from './shares.ts';
import { clearChanges, expireTunnels } from './tunnels.ts';

/** A core with its own memory. */
export function typescriptCore(): PacketCore {
  const buffer = new ArrayBuffer(abi.MEMORY_SIZE);
  const memory: Memory = new DataView(buffer);
  // `| 0` converts arguments as a call into the Wasm core would.
  return new PacketCore('typescript', buffer, {
    configure: (local, options, key, ttl, dscp, encapsulation, mtu) => {
      configure(memory, local, options, key, ttl, dscp, encapsulation | 0);
      configureMtu(memory, mtu | 0);
    },
    attach: (base, offloads, ports) => {
      configureDevices(memory, base, offloads, ports | 0);
      writeMessages(memory);
    },
    addMapping: (overlay, overlayLength, underlay, underlayLength) =>
      addMapping(memory, overlay, overlayLength | 0, underlay, underlayLength | 0),
    vmOf: (address) => vmOf(memory, address | 0),
    share: (inbound, count, divisor) => share(memory, (inbound | 0) !== 0, clampCount(count | 0), divisor | 0),
    encapsulate: (first, count, now) => encapsulate(memory, first | 0, clampCount(count | 0), now),
    decapsulate: (first, count, now) => decapsulate(memory, first | 0, clampCount(count | 0), now),
    learn: (first, count, now) => learn(memory, first | 0, clampCount(count | 0), now),
    narrow: (vm, mtu, now) => {
      clearChanges(memory);
      narrow(memory, vm | 0, mtu | 0, now);
    },
    refuse: (message, code, now) => refuse(memory, message | 0, code | 0, now),
    reach: (vm, now) => reach(memory, vm | 0, now),
    expire: (before) => {
      clearChanges(memory);
      return expireTunnels(memory, before);
    },
  });
}

/** Sets how much of descriptors 0 to `count` - 1 goes on: one part in `divisor`. Returns how many sources they have. */
function share(memory: Memory, inbound: boolean, count: number, divisor: number): number {
  const demandOf = inbound ? demandInbound : demandOutbound;
  for (let i = 0; i < count; i++) demandOf(memory, abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE);
  return divide(memory, inbound ? abi.INBOUND_SHARES : abi.OUTBOUND_SHARES, divisor);
}

/** Handles descriptors `first` up to `count`, a number in its range. Returns the first that had no room, or `count`. */
function encapsulate(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  clearBlocks(memory);
  for (let i = clampFirst(first, count); i < count; i++) {
    const descriptor = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
    const verdict = encapsulatePacket(memory, descriptor, now);
    if (verdict === NO_ROOM) return i;
    decide(memory, descriptor, verdict);
  }
  endShares(memory, abi.OUTBOUND_SHARES);
  return count;
}

/** As `encapsulate`; flows that are merged end with the call. */
function decapsulate(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  const merges = hasOffload(memory, abi.OFFLOAD_VIRTIO);
  if (merges) clearFlows(memory);
  let next = count;
  for (let i = clampFirst(first, count); i < count; i++) {
    const descriptor = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
    const verdict = decapsulatePackets(memory, descriptor, now);
    if (verdict === NO_ROOM) {
      next = i;
      break;
    }
    decide(memory, descriptor, verdict);
  }
  if (merges) closeFlows(memory);
  if (next === count) endShares(memory, abi.INBOUND_SHARES);
  return next;
}

/** As `encapsulate`, but makes no messages: there is room for everything. */
function learn(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  for (let i = clampFirst(first, count); i < count; i++) {
    const descriptor = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
    decide(memory, descriptor, learnFrom(memory, descriptor, now));
  }
  return count;
}

function clampCount(count: number): number {
  return Math.min(Math.max(count, 0), abi.BATCH_SIZE);
}

function clampFirst(first: number, count: number): number {
  return Math.min(Math.max(first, 0), count);
}

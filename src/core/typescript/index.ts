/**
 * The packet core in TypeScript: the Wasm core's twin, its fallback and its oracle. docs/abi.md is its reference. Each function of the
 * core has the core's memory as its first argument; `typescriptCore` makes both one.
 */
import * as abi from '../abi.ts';
import { PacketCore } from '../core.ts';
import { clearBlocks } from './blocks.ts';
import type { Memory } from './bytes.ts';
import { setConfig, setLengths } from './config.ts';
import { descriptor, setVerdict } from './descriptor.ts';
import { measureHeaders } from './encapsulation.ts';
import { decapsulatePackets, demandInbound } from './inbound.ts';
import { MAX_TOTAL_LENGTH, MIN_MTU } from './ipv4.ts';
import { learnFrom, narrowTunnel } from './learn.ts';
import { addMapping, vmOf } from './mapping.ts';
import { closeFlows } from './merge.ts';
import { attach, clearMessages, NO_ROOM } from './messages.ts';
import { demandOutbound, encapsulatePacket } from './outbound.ts';
import { reachVm, refuseMessage } from './refuse.ts';
import { endShares, setLevel } from './shares.ts';
import { clearChanges, expireTunnels } from './tunnels.ts';

export { addMapping, vmOf } from './mapping.ts';
export { attach } from './messages.ts';

export function configure(
  memory: Memory,
  local: number,
  options: number,
  key: number,
  ttl: number,
  dscp: number,
  encapsulation: number,
  mtu: number,
): void {
  setConfig(memory, local, options, key, ttl, dscp, encapsulation);
  const overhead = measureHeaders(memory);
  setLengths(memory, overhead, Math.min(Math.max(mtu, MIN_MTU), MAX_TOTAL_LENGTH - overhead));
}

export function share(memory: Memory, inbound: number, count: number, divisor: number): number {
  const isInbound = inbound !== 0;
  const end = clamp(count, abi.BATCH_SIZE);
  for (let i = 0; i < end; i++) {
    if (isInbound) demandInbound(memory, descriptor(i));
    else demandOutbound(memory, descriptor(i));
  }
  return setLevel(memory, isInbound ? abi.INBOUND_SHARES : abi.OUTBOUND_SHARES, divisor);
}

export function encapsulate(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  clearBlocks(memory);
  const end = clamp(count, abi.BATCH_SIZE);
  for (let i = clamp(first, end); i < end; i++) {
    const verdict = encapsulatePacket(memory, descriptor(i), now);
    if (verdict === NO_ROOM) return i;
    setVerdict(memory, descriptor(i), verdict);
  }
  endShares(memory, abi.OUTBOUND_SHARES);
  return end;
}

export function decapsulate(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  const end = clamp(count, abi.BATCH_SIZE);
  let i = clamp(first, end);
  for (; i < end; i++) {
    const verdict = decapsulatePackets(memory, descriptor(i), now);
    if (verdict === NO_ROOM) break;
    setVerdict(memory, descriptor(i), verdict);
  }
  closeFlows(memory);
  if (i === end) endShares(memory, abi.INBOUND_SHARES);
  return i;
}

export function learn(memory: Memory, first: number, count: number, now: number): number {
  clearChanges(memory);
  clearMessages(memory);
  const end = clamp(count, abi.BATCH_SIZE);
  for (let i = clamp(first, end); i < end; i++) {
    setVerdict(memory, descriptor(i), learnFrom(memory, descriptor(i), now));
  }
  return end;
}

export function narrow(memory: Memory, vm: number, mtu: number, now: number): void {
  clearChanges(memory);
  narrowTunnel(memory, vm, mtu, now);
}

export function refuse(memory: Memory, message: number, code: number, now: number): void {
  refuseMessage(memory, message, code, now);
}

export function reach(memory: Memory, vm: number, now: number): void {
  reachVm(memory, vm, now);
}

export function expire(memory: Memory, before: number): number {
  clearChanges(memory);
  return expireTunnels(memory, before);
}

function clamp(value: number, most: number): number {
  return Math.max(Math.min(value, most), 0);
}

/** A core with a memory of its own. */
export function typescriptCore(): PacketCore {
  const buffer = new ArrayBuffer(abi.MEMORY_SIZE);
  const memory: Memory = new DataView(buffer);
  // `| 0` converts arguments as a call into the Wasm core would, but for those of which only some bits are stored.
  return new PacketCore('typescript', buffer, {
    configure: (local, options, key, ttl, dscp, encapsulation, mtu) =>
      configure(memory, local, options, key, ttl, dscp, encapsulation | 0, mtu | 0),
    attach: (base, offloads, ports) => attach(memory, base, offloads, ports | 0),
    addMapping: (overlay, overlayLength, underlay, underlayLength) =>
      addMapping(memory, overlay, overlayLength | 0, underlay, underlayLength | 0),
    vmOf: (address) => vmOf(memory, address | 0),
    share: (inbound, count, divisor) => share(memory, inbound | 0, count | 0, divisor | 0),
    encapsulate: (first, count, now) => encapsulate(memory, first | 0, count | 0, now),
    decapsulate: (first, count, now) => decapsulate(memory, first | 0, count | 0, now),
    learn: (first, count, now) => learn(memory, first | 0, count | 0, now),
    narrow: (vm, mtu, now) => narrow(memory, vm | 0, mtu | 0, now),
    refuse: (message, code, now) => refuse(memory, message | 0, code | 0, now),
    reach: (vm, now) => reach(memory, vm | 0, now),
    expire: (before) => expire(memory, before),
  });
}

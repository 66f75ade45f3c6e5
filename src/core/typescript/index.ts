/** The packet core's functions. docs/abi.md is their reference; each has the core's memory as its first argument. */
import * as abi from '../abi.ts';
import { clearBlocks } from './blocks.ts';
import type { Memory } from './bytes.ts';
import { setConfig, setLengths } from './config.ts';
import { descriptor, setVerdict } from './descriptor.ts';
import { measureHeaders } from './encapsulation.ts';
import { decapsulatePackets, demandInbound } from './inbound.ts';
import { MAX_TOTAL_LENGTH, MIN_MTU } from './ipv4.ts';
import { learnFrom, narrowTunnel } from './learn.ts';
import { closeFlows } from './merge.ts';
import { clearMessages, NO_ROOM } from './messages.ts';
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

/** What `status` and `tunnels` show: the documented JSON, and the same for people. */

import type { DirectionCounters } from '../core/core.ts';
import type { Tunnel } from '../core/tunnels.ts';
import { DROP_REASONS } from '../core/verdict.ts';
import { contains, formatAddress, formatPrefix, ipv4 } from '../mesh/address.ts';
import type { Mapping } from '../mesh/mapping.ts';

interface Traffic {
  packets: number;
  bytes: number;
}

export interface DirectionStatus extends Traffic {
  /** packets + all drops. */
  received: number;
  /** By reason; reasons without a drop are left out. */
  drops: Record<string, number>;
}

/** What only one of the data planes has to say; before it runs, none has. */
export interface DataPlaneStatus {
  core?: string;
  engine?: string;
  /** Who cuts TCP super-packets now. */
  segmentation?: 'core' | 'kernel';
  /** Why it is not the kernel, if it was up to the daemon. */
  segmentationObstacle?: string | undefined;
  queues?: number;
  /** Whether packets are dropped whose inner source does not live where they come from. */
  sourceCheck?: 'on' | 'off';
  /** Why they are not. */
  sourceCheckObstacle?: string | undefined;
  /** ICMP messages to containers whose packets did not get through: made, and not made because there were too many. */
  replies?: { sent: number; suppressed: number };
  /** Inbound packets with a combination of ECN fields that should not occur (RFC 6040 §4.2). */
  ecnAnomalies?: number;
  /** ICMP messages from the underlay; `packets` are those that were believed. */
  icmp?: DirectionStatus;
  /** Of the neighbour daemon: requests answered with a VM's address, refused because nobody can have the address, and not taken by the kernel; comparisons of all with the kernel, and VMs that were put right then. */
  neighbours?: { answered: number; refused: number; failed: number; resyncs: number; repaired: number };
}

export interface Status extends DataPlaneStatus {
  state: 'starting' | 'running' | 'stopping';
  pid: number;
  vm: string;
  overlayAddress: string;
  mappings: { overlay: string; underlay: string; slice: string }[];
  device: string;
  dataPlane: 'wasm' | 'kernel';
  encapsulation: string;
  mtu: number;
  tunnels: number;
  outbound: DirectionStatus;
  inbound: DirectionStatus;
}

export interface TunnelStatus {
  vm: string;
  slice: string;
  /** Bytes of the longest packet that it carries. */
  mtu: number;
  /** Why the underlay says that the VM cannot be reached, if it does. */
  unreachable?: string | undefined;
  outbound: Traffic;
  inbound: Traffic;
  idleSeconds: number;
}

export function directionStatus(counters: DirectionCounters): DirectionStatus {
  const drops = DROP_REASONS.flatMap(({ verdict, name }) => {
    const count = counters.drops[-verdict] ?? 0;
    return count > 0 ? [[name, count] as const] : [];
  });
  return {
    received: counters.received,
    packets: counters.forwarded,
    bytes: counters.bytes,
    drops: Object.fromEntries(drops),
  };
}

/** `now` is on the clock of the tunnel's times, in ms. */
export function tunnelStatus(mappings: readonly Mapping[], tunnel: Tunnel, now: number): Omit<TunnelStatus, 'mtu'> {
  const vm = ipv4(tunnel.vm);
  const mapping = mappings.find((m) => contains(m.underlay, vm));
  return {
    vm: formatAddress(vm),
    slice: mapping ? formatPrefix(mapping.sliceOf(vm)) : '',
    unreachable: tunnel.unreachable === undefined ? undefined : unreachableReason(tunnel.unreachable),
    outbound: tunnel.outbound,
    inbound: tunnel.inbound,
    idleSeconds: Math.round(now - tunnel.lastUse) / 1000,
  };
}

/** Bytes of the longest packet that a tunnel carries; `mtu` is that of the device. */
export function tunnelMtu(mtu: number, pathMtu: number | undefined, overhead: number): number {
  return pathMtu === undefined ? mtu : Math.min(mtu, pathMtu - overhead);
}

/** Codes of ICMP type 3 (RFC 792; RFC 1122 §3.2.2.1; RFC 1812 §5.2.7.1). */
const REASONS: Record<number, string> = {
  0: 'network unreachable',
  1: 'host unreachable',
  2: 'protocol unreachable',
  3: 'port unreachable',
  5: 'source route failed',
  6: 'network unknown',
  7: 'host unknown',
  9: 'network prohibited',
  10: 'host prohibited',
  11: 'network unreachable for this type of service',
  12: 'host unreachable for this type of service',
  13: 'communication prohibited',
};

/** What the code of an ICMP message, destination unreachable, means. */
export function unreachableReason(code: number): string {
  return REASONS[code] ?? `unreachable, code ${code}`;
}

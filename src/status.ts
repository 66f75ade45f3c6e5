/** What `status` and `tunnels` show: the documented JSON, and the same for people. */
import { contains, formatAddress, formatPrefix, ipv4 } from './address.ts';
import type { DirectionCounters } from './core/core.ts';
import type { Tunnel } from './core/tunnels.ts';
import { DROP_REASONS } from './core/verdict.ts';
import type { Mapping } from './mapping.ts';

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

export interface Status {
  state: 'starting' | 'running' | 'stopping';
  pid: number;
  vm: string;
  overlayAddress: string;
  mappings: { overlay: string; underlay: string; slice: string }[];
  device: string;
  core: string;
  engine: string;
  encapsulation: string;
  /** Who cuts TCP super-packets now. */
  segmentation: 'core' | 'kernel';
  /** Why it is not the kernel, if it was up to the daemon. */
  segmentationObstacle?: string | undefined;
  queues: number;
  mtu: number;
  tunnels: number;
  outbound: DirectionStatus;
  inbound: DirectionStatus;
}

export interface TunnelStatus {
  vm: string;
  slice: string;
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
export function tunnelStatus(mappings: readonly Mapping[], tunnel: Tunnel, now: number): TunnelStatus {
  const vm = ipv4(tunnel.vm);
  const mapping = mappings.find((m) => contains(m.underlay, vm));
  return {
    vm: formatAddress(vm),
    slice: mapping ? formatPrefix(mapping.sliceOf(vm)) : '',
    outbound: tunnel.outbound,
    inbound: tunnel.inbound,
    idleSeconds: Math.round(now - tunnel.lastUse) / 1000,
  };
}

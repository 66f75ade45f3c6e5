/** The seam between the daemon and what forwards its packets. */
import type { CoreConfig, CoreName, DirectionCounters, PacketCore } from '../core/core.ts';
import type { Tunnel } from '../core/tunnels.ts';
import type { Log } from '../log.ts';
import type { DataPlaneStatus } from '../observe/status.ts';
import type { TunnelListeners } from './wasm/forwarder.ts';

/** What forwards the VM's packets: this process, or the kernel. */
export interface DataPlane {
  /** What `status` says about it. */
  readonly status: DataPlaneStatus;
  /** Counters of both directions, and how many tunnels are open. */
  counters(): Promise<Counters>;
  /** All open tunnels, and the present time on the clock of their first and last use, in ms. */
  tunnels(): Promise<{ now: number; tunnels: Tunnel[] }>;
  close(): Promise<void>;
}

export interface DataPlaneListeners extends TunnelListeners {
  /** Called once if forwarding ends by itself, as when the device is deleted. */
  onFailure: (error: Error) => void;
}

/**
 * What forwards packets in this process: device, socket and core, in a thread or an event loop of their own. The device goes when it is closed. If it ends by itself,
 * all is closed before `onFailure` is called.
 */
export interface Engine extends Omit<DataPlane, 'status'> {
  /** Who cuts TCP super-packets now. */
  readonly segmenter: Segmenter;
  /**
   * Whether the kernel may forward what the engine writes back: the device then needs accept_local 1 and rp_filter 0. Whoever sets the device up sees to that.
   */
  readonly reinjects: boolean;
  /** Bytes of the longest inner packet from now on. */
  setMtu(mtu: number): void;
  /** What has been counted, also when the engine has ended; then there are no tunnels. */
  counters(): Promise<Counters>;
  /** To be called once, when the device has its addresses, routes and sysctls and is up. */
  deviceIsUp(): void;
}

export interface Segmenter {
  by: 'core' | 'kernel';
  /** Why it is not the kernel, if it was up to Inlay. */
  obstacle?: string;
}

export interface Counters {
  outbound: DirectionCounters;
  inbound: DirectionCounters;
  /** ICMP messages from the underlay; the kernel's data plane leaves them to the kernel. */
  icmp?: DirectionCounters;
  tunnels: number;
}

export interface EngineOptions extends DataPlaneListeners {
  device: string;
  core: CoreName;
  coreConfig: CoreConfig;
  /** Who cuts TCP super-packets of GRE (engine linux). */
  greSegmentation: 'auto' | 'core' | 'kernel';
  /** TUN queues, each with a worker of its own. */
  queues: number;
  /** ms */
  idleTimeout: number;
  /** ms that a worker looks for packets without sleeping, after it found some (engine linux). */
  busyPoll: number;
  log: Log;
}

/** What a data plane with one core has to tell. */
export function countersOf(core: PacketCore): Counters {
  const [outbound, inbound, icmp] = (['outbound', 'inbound', 'icmp'] as const).map((name) => core.counters(name));
  return { outbound, inbound, icmp, tunnels: core.tunnelCount } as Counters;
}

/** One direction of several data planes together. */
export function addCounters(parts: readonly DirectionCounters[]): DirectionCounters {
  const sum = (of: (part: DirectionCounters) => number) => parts.reduce((total, part) => total + of(part), 0);
  return {
    received: sum((p) => p.received),
    forwarded: sum((p) => p.forwarded),
    bytes: sum((p) => p.bytes),
    drops: (parts[0]?.drops ?? []).map((_, reason) => sum((p) => p.drops[reason] ?? 0)),
    replies: sum((p) => p.replies),
    suppressed: sum((p) => p.suppressed),
    anomalies: sum((p) => p.anomalies),
  };
}

/** How often idle tunnels are looked for, in ms. */
export function sweepInterval(idleTimeout: number): number {
  return Math.min(idleTimeout / 4, 1000);
}

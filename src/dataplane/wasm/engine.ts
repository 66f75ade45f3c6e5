/** The seam between the wasm data plane and its I/O engines: device, sockets and core, in a thread or an event loop of their own. */
import { LEAST_PATH_MTU } from '../../core/abi.ts';
import type { CoreConfig } from '../../core/config.ts';
import type { CoreName, PacketCore } from '../../core/core.ts';
import type { Log } from '../../log.ts';
import type { Counters, DataPlane, DataPlaneStatus } from '../dataplane.ts';
import type { ForwarderListeners } from './forwarder.ts';
import type { Refusals } from './refusals.ts';

/** What forwards packets in this process. Its TUN device goes when it is closed. */
export interface Engine extends Pick<DataPlane, 'counters' | 'tunnels' | 'close'> {
  /** Who cuts TCP super-packets now. */
  readonly segmenter: Segmenter;
  /** Whether the sizes of merged packets are known. */
  readonly segmentSizes: SegmentSizesStatus;
  /** Whether the kernel may forward what the engine writes back: the device then needs accept_local 1 and rp_filter 0. Whoever sets the device up sees to that. */
  readonly reinjects: boolean;
  /** To be called once, when the device has its addresses, routes and sysctls and is up. */
  deviceIsUp(): void;
  /** Bytes of the longest inner packet from now on. */
  setMtu(mtu: number): void;
}

export type SegmentSizesStatus = Pick<DataPlaneStatus, 'segmentSizes' | 'segmentSizesObstacle'>;

/** What it means that the kernel does not tell the sizes, and what helps. */
export function guarded(obstacle: string): SegmentSizesStatus {
  return {
    segmentSizes: 'guarded',
    segmentSizesObstacle: `${obstacle}, so the kernel does not tell how long merged packets were (Linux 5.7 and CAP_BPF): TCP is handed on in packets of ${LEAST_PATH_MTU} bytes, UDP must not be merged (ethtool -K DEV rx-udp-gro-forwarding off rx-gro-list off)`,
  };
}

export interface Segmenter {
  by: 'core' | 'kernel';
  /** Why it is not the kernel, if it was up to Inlay. */
  obstacle?: string;
}

export interface EngineOptions extends ForwarderListeners {
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
  /** Called once if forwarding ends by itself, as when the device is deleted. The counters keep their last values. */
  onFailure: (error: Error) => void;
}

/** What an engine with one core has to tell. */
export function countersOf(core: PacketCore, { counts }: Refusals): Counters {
  const [outbound, inbound, icmp] = (['outbound', 'inbound', 'icmp'] as const).map((name) => core.counters(name));
  return { outbound, inbound, icmp, refused: structuredClone(counts), tunnels: core.tunnels.count } as Counters;
}

/** How often idle tunnels are looked for, in ms. */
export function sweepInterval(idleTimeout: number): number {
  return Math.min(idleTimeout / 4, 1000);
}

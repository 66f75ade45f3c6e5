/** The seam between the daemon and what forwards its packets. */
import type { Config } from '../config/config.ts';
import type { DirectionCounters } from '../core/counters.ts';
import type { Tunnel, TunnelState } from '../core/tunnels.ts';
import type { Message } from '../linux/netlink/message.ts';
import type { Log } from '../log.ts';
import type { Machine, Outcome, Trouble } from '../machine/machine.ts';
import type { NetworkPlan, Thing } from '../machine/state.ts';
import type { DeviceName } from './drop-log.ts';

/** One way to forward packets, before anything is opened. */
export interface DataPlaneKind {
  /** What a daemon needs for it. */
  readonly capabilities: readonly ('CAP_NET_ADMIN' | 'CAP_NET_RAW')[];
  /** What lets it do more. */
  readonly wanted: readonly 'CAP_BPF'[];
  /** Whether it opens /dev/net/tun. */
  readonly usesTun: boolean;
  /** Whether what it makes on the machine goes on forwarding when the daemon ends. */
  readonly lasts: boolean;
  /** Bytes of all headers around a packet. */
  overhead(config: Config): number;
  /** What it makes on the machine, but for what only a running process has. */
  things(config: Config, plan: NetworkPlan): Thing[];
  /** What no command can do, for `--dry-run`, as comments. */
  remarks(config: Config, plan: NetworkPlan): string[];
  create(config: Config, options: DataPlaneOptions): DataPlane;
}

export interface DataPlaneOptions extends TunnelListeners {
  plan: NetworkPlan;
  machine: Machine;
  log: Log;
  /** The machine is to be looked at now, as when the device was deleted under its engine. */
  onDue: () => void;
}

/** What the underlay has said about a tunnel. */
export interface Learnt extends TunnelState {
  /** What was known until then, where the data plane remembers it. */
  before?: Omit<TunnelState, 'vm'>;
}

export interface TunnelListeners {
  /** Told which tunnels, by their VM's underlay address, have come and gone. */
  onTunnels: (change: 'opened' | 'closed', vms: number[]) => void;
  /** Told what the underlay has said about tunnels. */
  onLearnt: (tunnels: Learnt[]) => void;
}

/** Packets and bytes, of inner packets. */
export interface Traffic {
  packets: number;
  bytes: number;
}

export interface OpenTunnel extends Tunnel {
  /** What of both directions the fast path took; it counts in them. */
  fastPath?: { outbound: Traffic; inbound: Traffic };
}

/** What the fast path does (fast-path/fast-path.ts). */
export interface FastPathStatus {
  state: 'on' | 'off';
  /** Why it is off, if it was not the configuration. */
  obstacle?: string;
  /** Containers whose packets it takes. */
  containers: number;
  /** What it took. Between VMs, this counts in both directions of the data plane, too. */
  outbound: Traffic;
  inbound: Traffic;
  /** Between containers of this VM. */
  local: Traffic;
}

/** What forwards the VM's packets: this process, or the kernel. */
export interface DataPlane {
  /** What `status` says about it. */
  readonly status: DataPlaneStatus;
  /** What is in the way, beside what things tell. */
  readonly troubles: readonly Trouble[];
  /** Interface indexes of the devices that matter to it, beside the overlay's. */
  readonly links: readonly number[];
  /**
   * Makes what this process itself has to hold, such as a TUN device, where it is missing, and follows the plan. Returns what was missing, in words. To be
   * called before the machine is brought to what `things` says.
   */
  prepare(plan: NetworkPlan): Promise<string | undefined>;
  /** What the machine is to look like for it, in the order in which it is made. */
  things(): Thing[];
  /** Told what became of them. */
  settle(outcome: Outcome): Promise<void>;
  /** Whether a change of a route concerns it. */
  concerns(message: Message): boolean;
  /** Told that changes of routes were not heard: what it remembers of them may be wrong. */
  reload(): void;
  /** Counters of both directions, and how many tunnels are open. */
  counters(): Promise<Counters>;
  /** All open tunnels, and the present time on the clock of their last use, in ms; and why their packets are not counted, if they are not. */
  tunnels(): Promise<{ now: number; tunnels: OpenTunnel[]; uncounted?: string | undefined }>;
  close(): Promise<void>;
}

/** Packets of both directions that were not written: by the device that did not take them and the name of the error number. */
export type Refused = Record<DeviceName, Record<string, number>>;

export interface Counters {
  outbound: DirectionCounters;
  inbound: DirectionCounters;
  /** ICMP messages from the underlay; the kernel's data plane leaves them to the kernel. */
  icmp?: DirectionCounters;
  /** The kernel's data plane does not hear of them. */
  refused?: Refused;
  tunnels: number;
}

/** What only one of the data planes has to say; before it runs, none has. */
export interface DataPlaneStatus {
  core?: string;
  engine?: string;
  /** Who cuts TCP super-packets now. */
  segmentation?: 'core' | 'kernel';
  /** Why it is not the kernel, if it was up to the daemon. */
  segmentationObstacle?: string | undefined;
  /** Whether the kernel tells how long the packets were that it has merged: where it does not, they are handed on in sizes that surely fit. */
  segmentSizes?: 'known' | 'guarded';
  /** Why it does not, and what helps. */
  segmentSizesObstacle?: string | undefined;
  queues?: number;
  /** Absent where there can be none, as with VXLAN. */
  fastPath?: FastPathStatus;
  /** Whether packets are dropped whose inner source does not live where they come from. */
  sourceCheck?: 'on' | 'off';
  /** Why they are not. */
  sourceCheckObstacle?: string | undefined;
  /** Of the neighbour daemon: requests answered with a VM's address, refused because nobody can have the address, and not taken by the kernel; comparisons of all with the kernel, and VMs that were put right then. */
  neighbours?: { answered: number; refused: number; failed: number; resyncs: number; repaired: number };
}

/** What several data planes could not write, together. */
export function addRefused(parts: readonly Pick<Counters, 'refused'>[]): Refused {
  const sumOf = (device: DeviceName) => {
    const sums: Record<string, number> = {};
    for (const [errno, packets] of parts.flatMap(({ refused }) => Object.entries(refused?.[device] ?? {}))) {
      sums[errno] = (sums[errno] ?? 0) + packets;
    }
    return sums;
  };
  return { underlay: sumOf('underlay'), overlay: sumOf('overlay') };
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

/** ms between two looks for tunnels that are idle, at most. */
const MAX_SWEEP = 15_000;

/** ms between two looks for tunnels that are idle, or are to be kept from that. */
export function sweepInterval({ idleTimeout }: Pick<Config, 'idleTimeout'>): number {
  return Math.min(idleTimeout / 4, MAX_SWEEP);
}

/** What `status` and `tunnels` show: the documented JSON, and the same for people. */

import type { Config } from '../config/config.ts';
import type { DirectionCounters } from '../core/counters.ts';
import { DROP_REASONS } from '../core/verdict.ts';
import type { DataPlaneStatus, OpenTunnel, Refused, Traffic } from '../dataplane/dataplane.ts';
import { wireFormat } from '../dataplane/wire-format.ts';
import type { BarrierStatus } from '../machine/barrier/barrier.ts';
import type { Trouble } from '../machine/machine.ts';
import { contains, formatAddress, formatPrefix, ipv4 } from '../mesh/address.ts';
import type { Mapping } from '../mesh/mapping.ts';
import type { Rate } from './rates.ts';
import type { Knowledge, TunnelStateName } from './tunnel-watch.ts';

export interface DirectionStatus extends Traffic {
  /** packets + all drops. */
  received: number;
  /** By reason; reasons without a drop are left out. */
  drops: Record<string, number>;
  /** Averages of the last five seconds; bits are those of inner packets. */
  packetsPerSecond?: number;
  bitsPerSecond?: number;
  /** The same as `drops`, of the last minute. */
  recentDrops?: Record<string, number>;
}

/** What the daemon does: `waiting` for an underlay address, `degraded` while something cannot be put right. */
export type State = 'starting' | 'waiting' | 'running' | 'degraded' | 'stopping';

export interface ContainersStatus {
  /** How many are attached. */
  attached: number;
  /** Whether the daemon attaches for CNI's shim. */
  attach: 'on' | 'off';
}

export interface Status extends DataPlaneStatus {
  state: State;
  /** What is waited for, or cannot be put right, and what the operator can do about it. */
  troubles: readonly Trouble[];
  /** What does not stop Inlay, but hurts. */
  remarks?: readonly Trouble[];
  /** Since the daemon began, and since it is in this state. */
  uptimeSeconds?: number;
  stateSeconds?: number;
  /** Things on the machine that others changed, and that were put right. */
  repaired: number;
  pid: number;
  vm: string;
  overlayAddress: string;
  mappings: { overlay: string; underlay: string; slice: string }[];
  device: string;
  dataPlane: 'wasm' | 'kernel';
  encapsulation: Config['encapsulation'];
  mtu: number;
  /** Bytes of the longest packet that the underlay takes. */
  underlayMtu?: number;
  /** Containers on the mesh. */
  containers?: ContainersStatus;
  /** The rules that keep containers and others from speaking as VMs. */
  barrier?: BarrierStatus;
  tunnels: number;
  /** How many of them are in each state. */
  tunnelStates?: Record<TunnelStateName, number>;
  outbound: DirectionStatus;
  inbound: DirectionStatus;
  /** ICMP messages to containers whose packets did not get through: made, and not made because there were too many (data plane wasm, as the next two). */
  replies?: { sent: number; suppressed: number };
  /** Inbound packets with a combination of ECN fields that should not occur (RFC 6040 §4.2). */
  ecnAnomalies?: number;
  /** Packets that the kernel did not take (`not-written`), by device and the name of the error number (data plane wasm). */
  refused?: Refused;
  /** ICMP messages from the underlay; `packets` are those that were believed. */
  icmp?: DirectionStatus;
}

export interface TunnelStatus {
  vm: string;
  slice: string;
  /** Bytes of the longest packet that it carries. */
  mtu: number;
  /** Absent until the tunnel was looked at. */
  state?: TunnelStateName;
  /** Why the VM cannot be reached: what the underlay's ICMP says, or this machine. */
  unreachable?: string | undefined;
  /** Why the state is unknown. */
  unknown?: string;
  /** What may be in the way, and what helps. */
  hint?: string;
  /** Since a look first found it open. */
  openSeconds?: number;
  /** Since a packet came from the VM; absent if none did. */
  heardSeconds?: number;
  /** Packets sent to it since then, and since when. */
  unansweredPackets?: number;
  unansweredSeconds?: number;
  outbound: Traffic;
  inbound: Traffic;
  /** What of both the fast path took. */
  fastPath?: { outbound: Traffic; inbound: Traffic };
  idleSeconds: number;
}

export function directionStatus(counters: DirectionCounters, rate: Rate): DirectionStatus {
  const { packetsPerSecond, bitsPerSecond, recentDrops } = rate;
  return {
    received: counters.received,
    packets: counters.forwarded,
    bytes: counters.bytes,
    drops: byReason(counters.drops),
    ...{ packetsPerSecond, bitsPerSecond, recentDrops: byReason(recentDrops) },
  };
}

function byReason(drops: readonly number[]): Record<string, number> {
  const entries = DROP_REASONS.flatMap(({ verdict, name }) => {
    const count = drops[-verdict] ?? 0;
    return count > 0 ? [[name, count] as const] : [];
  });
  return Object.fromEntries(entries);
}

/** `now` is on the clock of the tunnel's times, in ms; `known` is what was found out about it, `encapsulation` what its packets look like. */
export function tunnelStatus(
  mappings: readonly Mapping[],
  tunnel: OpenTunnel,
  now: number,
  known: Knowledge | undefined,
  encapsulation: Config['encapsulation'],
): Omit<TunnelStatus, 'mtu'> {
  const vm = ipv4(tunnel.vm);
  const mapping = mappings.find((m) => contains(m.underlay, vm));
  const code = tunnel.unreachable;
  return {
    vm: formatAddress(vm),
    slice: mapping ? formatPrefix(mapping.sliceOf(vm)) : '',
    ...(known ? knownStatus(known, encapsulation) : { unreachable: code === undefined ? undefined : reasonText(code) }),
    outbound: tunnel.outbound,
    inbound: tunnel.inbound,
    ...(tunnel.fastPath && { fastPath: tunnel.fastPath }),
    idleSeconds: seconds(now - tunnel.lastUse),
  };
}

function knownStatus(known: Knowledge, encapsulation: Config['encapsulation']): Partial<TunnelStatus> {
  const { state, why, open, heard, unanswered } = known;
  const hint = silentHint(known, encapsulation);
  return {
    state,
    unreachable: state === 'unreachable' ? reasonText(why) : undefined,
    ...(state === 'unknown' && { unknown: reasonText(why) }),
    ...(hint && { hint }),
    openSeconds: seconds(open),
    ...(heard !== undefined && { heardSeconds: seconds(heard) }),
    unansweredPackets: unanswered.packets,
    unansweredSeconds: seconds(unanswered.since),
  };
}

function seconds(ms: number): number {
  return Math.round(ms) / 1000;
}

/** What may be in the way of a VM that was never heard. One that was may have nothing to say. */
export function silentHint({ state, heard }: Knowledge, encapsulation: Config['encapsulation']): string | undefined {
  if (state !== 'silent' || heard !== undefined) return undefined;
  const dropped = `does something drop ${wireFormat(encapsulation)}`;
  if (encapsulation === 'gre') return `${dropped}? Try --encapsulation gre-udp on all VMs`;
  return `${dropped}, or has that VM another format or key?`;
}

/** Bytes of the longest packet that a tunnel carries; `mtu` is that of the device. */
export function tunnelMtu(mtu: number, pathMtu: number | undefined, overhead: number): number {
  return pathMtu === undefined ? mtu : Math.min(mtu, pathMtu - overhead);
}

const [PROTOCOL_UNREACHABLE, PORT_UNREACHABLE] = [2, 3];
const FIREWALL = [9, 10, 13];
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

/** What the operator can do about a VM that is unreachable for the reason with this code, where something can be said. */
export function unreachableHint(code: number): string | undefined {
  if (code === PROTOCOL_UNREACHABLE || code === PORT_UNREACHABLE)
    return 'does that VM run Inlay, with the same --encapsulation?';
  if (FIREWALL.includes(code)) return 'a firewall on the way, or of that VM, rejects the packets';
  return undefined;
}

/** Why, as `Knowledge` has it: words, or the code of an ICMP message, destination unreachable. */
export function reasonText(why: Knowledge['why']): string {
  return typeof why === 'number' ? codeText(why) : (why ?? '');
}

function codeText(code: number): string {
  return REASONS[code] ?? `unreachable, code ${code}`;
}

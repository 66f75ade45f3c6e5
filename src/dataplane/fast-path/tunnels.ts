/**
 * Tunnels, as the data plane below has them and as the fast path does: what the one knows of a VM the other is told, and both
 * together are what there is to show.
 */
import type { Learnt, OpenTunnel, Traffic } from '../dataplane.ts';
import type { FastPathState } from './state.ts';

/** Codes of ICMP, destination unreachable (RFC 792): protocol and port. So answers a VM whose daemon has ended. */
const NO_DAEMON: readonly number[] = [2, 3];
/** ms since a packet came on the fast path, in which it goes on without a daemon there. */
const OF_LATE = 3000;
/** Bytes that no packet keeps within: all go their ordinary way, where senders are told what is in the way. */
const NO_PACKET = 1;

/** What of a tunnel the last look has seen. */
interface Seen {
  /** Packets that the data plane below got from the VM. */
  received: number;
  /** Packets that the fast path took to the VM and from it, and when the last of each was seen, in ms. */
  sent: number;
  sentAt: number;
  heard: number;
  heardAt: number;
}

const NOTHING: Seen = { received: 0, sent: 0, sentAt: -Infinity, heard: 0, heardAt: -Infinity };

export type TunnelState = Pick<FastPathState, 'traffic' | 'heard' | 'hear' | 'limit' | 'renew' | 'forget'>;

export class FastTunnels {
  readonly #state: TunnelState;
  /** Bytes of all headers around a packet. */
  readonly #overhead: number;
  /** By the key of the VM. */
  readonly #seen = new Map<number, Seen>();
  /** Of VMs that are said to be unreachable: packets that the fast path had taken from them when that was learnt. */
  readonly #heardBefore = new Map<number, number>();

  constructor(state: TunnelState, overhead: number) {
    this.#state = state;
    this.#overhead = overhead;
  }

  /** What the data plane below has learnt of the way to a VM. */
  follow({ vm, pathMtu, unreachable }: Pick<Learnt, 'vm' | 'pathMtu' | 'unreachable'>): void {
    if (unreachable === undefined) this.#heardBefore.delete(vm);
    else if (!this.#heardBefore.has(vm)) this.#heardBefore.set(vm, this.#state.heard(vm));
    const isLost = this.#isLost(vm, unreachable);
    const limit = pathMtu === undefined ? 0 : Math.max(pathMtu - this.#overhead, NO_PACKET);
    this.#state.limit(vm, isLost ? NO_PACKET : limit);
    // The next packet from the VM shows the data plane below that it can be reached again.
    if (isLost) this.#state.renew(vm);
  }

  /** Begins anew with a VM whose tunnel was closed: both count from 0 again. */
  forget(vm: number): void {
    this.#seen.delete(keyOf(vm));
    this.#heardBefore.delete(vm);
    this.#state.forget(vm);
  }

  /** The tunnels that the data plane below has, with what the fast path took; `now` in ms, on the clock of their times. */
  together(tunnels: readonly OpenTunnel[], now: number): OpenTunnel[] {
    const all = tunnels.map((tunnel) => {
      const taken = this.#state.traffic(tunnel.vm);
      return this.#sum(tunnel, taken, this.#look(tunnel, taken, now));
    });
    if (this.#seen.size > tunnels.length) this.#forgetOthers(new Set(tunnels.map(({ vm }) => keyOf(vm))));
    return all;
  }

  #forgetOthers(open: ReadonlySet<number>): void {
    for (const key of this.#seen.keys()) if (!open.has(key)) this.#seen.delete(key);
    for (const vm of this.#heardBefore.keys()) if (!open.has(keyOf(vm))) this.#heardBefore.delete(vm);
  }

  #look(tunnel: OpenTunnel, { outbound, inbound }: Taken, now: number): Seen {
    const key = keyOf(tunnel.vm);
    const known = this.#seen.get(key);
    const seen = known ?? { ...NOTHING };
    if (!known) this.#seen.set(key, seen);
    const received = tunnel.inbound.packets;
    this.follow(tunnel);
    if (received > seen.received) this.#state.hear(tunnel.vm);
    seen.received = received;
    if (outbound.packets > seen.sent) seen.sentAt = now;
    if (inbound.packets > seen.heard) seen.heardAt = now;
    seen.sent = outbound.packets;
    seen.heard = inbound.packets;
    return seen;
  }

  #sum(tunnel: OpenTunnel, fastPath: Taken, { sentAt, heardAt }: Seen): OpenTunnel {
    const together = {
      ...tunnel,
      lastUse: Math.max(tunnel.lastUse, sentAt, heardAt),
      outbound: sum(tunnel.outbound, fastPath.outbound),
      inbound: sum(tunnel.inbound, fastPath.inbound),
      fastPath,
    };
    if (tunnel.unreachable !== undefined && !this.#isLost(tunnel.vm, tunnel.unreachable)) delete together.unreachable;
    return together;
  }

  /** Whether a VM is as unreachable as the data plane below knows, which does not hear what the fast path does. */
  #isLost(vm: number, unreachable: number | undefined): unreachable is number {
    if (unreachable === undefined || this.#state.heard(vm) > (this.#heardBefore.get(vm) ?? 0)) return false;
    return !NO_DAEMON.includes(unreachable) || !this.#isHeardOfLate(vm);
  }

  #isHeardOfLate(vm: number): boolean {
    const { heard, heardAt } = this.#seen.get(keyOf(vm)) ?? NOTHING;
    return this.#state.heard(vm) > heard || performance.now() - heardAt < OF_LATE;
  }
}

type Taken = NonNullable<OpenTunnel['fastPath']>;

export function sum(a: Traffic, b: Traffic): Traffic {
  return { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
}

/** A signed number of 32 bits, which V8 does not allocate memory for. */
function keyOf(vm: number): number {
  return vm | 0;
}

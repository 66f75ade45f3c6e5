/**
 * Tunnels, as the data plane below has them and as the fast path does: what the one knows of a VM the other is told, and both
 * together are what there is to show.
 */
import type { Learnt, OpenTunnel, Traffic } from '../dataplane.ts';
import type { FastPathState } from './state.ts';

/** ms since a packet came on the fast path, in which its VM can be reached, whatever else is said. */
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

export class FastTunnels {
  readonly #state: FastPathState;
  /** Bytes of all headers around a packet. */
  readonly #overhead: number;
  #seen = new Map<number, Seen>();

  constructor(state: FastPathState, overhead: number) {
    this.#state = state;
    this.#overhead = overhead;
  }

  /**
   * What the data plane below has learnt of the way to a VM. A VM that is heard on the fast path can be reached,
   * though its daemon may have ended.
   */
  follow({ vm, pathMtu, unreachable }: Pick<Learnt, 'vm' | 'pathMtu' | 'unreachable'>): void {
    const isLost = unreachable !== undefined && !this.#isHeard(vm);
    const limit = pathMtu === undefined ? 0 : Math.max(pathMtu - this.#overhead, NO_PACKET);
    this.#state.limit(vm, isLost ? NO_PACKET : limit);
    // The next packet from the VM shows the data plane below that it can be reached again.
    if (isLost) this.#state.renew(vm);
  }

  /** The tunnels that the data plane below has, with what the fast path took; `now` in ms, on the clock of their times. */
  together(tunnels: readonly OpenTunnel[], now: number): OpenTunnel[] {
    const seen = new Map<number, Seen>();
    const all = tunnels.map((tunnel) => {
      const taken = this.#state.traffic(tunnel.vm);
      seen.set(tunnel.vm, this.#look(tunnel, taken, now));
      return this.#sum(tunnel, taken, seen.get(tunnel.vm) as Seen);
    });
    this.#seen = seen;
    return all;
  }

  #look(tunnel: OpenTunnel, { outbound, inbound }: Taken, now: number): Seen {
    const before = this.#seen.get(tunnel.vm) ?? NOTHING;
    const received = tunnel.inbound.packets;
    this.follow(tunnel);
    if (received > before.received) this.#state.hear(tunnel.vm);
    return {
      received,
      sent: outbound.packets,
      sentAt: outbound.packets > before.sent ? now : before.sentAt,
      heard: inbound.packets,
      heardAt: inbound.packets > before.heard ? now : before.heardAt,
    };
  }

  #sum({ unreachable, ...tunnel }: OpenTunnel, fastPath: Taken, { sentAt, heardAt }: Seen): OpenTunnel {
    const isLost = unreachable !== undefined && !this.#isHeard(tunnel.vm);
    return {
      ...tunnel,
      ...(isLost && { unreachable }),
      lastUse: Math.max(tunnel.lastUse, sentAt, heardAt),
      outbound: sum(tunnel.outbound, fastPath.outbound),
      inbound: sum(tunnel.inbound, fastPath.inbound),
      fastPath,
    };
  }

  /** Whether the fast path has taken something from a VM of late. */
  #isHeard(vm: number): boolean {
    const { heard, heardAt } = this.#seen.get(vm) ?? NOTHING;
    return this.#state.traffic(vm).inbound.packets > heard || performance.now() - heardAt < OF_LATE;
  }
}

type Taken = NonNullable<OpenTunnel['fastPath']>;

export function sum(a: Traffic, b: Traffic): Traffic {
  return { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
}

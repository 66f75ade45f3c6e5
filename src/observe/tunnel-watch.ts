/**
 * What is known about open tunnels beyond their counters: whether each VM answers. Made by comparing one look at the counters with the next, so that it is the
 * same for every data plane.
 */
import type { Tunnel } from '../core/tunnels.ts';

/** `new`: not heard yet, and too early to tell. `unknown`: nothing counts its packets. */
export type TunnelStateName = 'heard' | 'silent' | 'unreachable' | 'new' | 'unknown';

/** ms without an answer, and packets sent in that time, from which a VM is silent. */
const SILENT_AFTER = 5000;
const SILENT_PACKETS = 3;
/**
 * ms without an answer from which this machine is asked why. The kernel asks for a neighbour for three seconds
 * before it gives up (arp(7): mcast_solicit, retrans_time), and then says so by ICMP, which is to come first.
 */
const ASK_AFTER = 4000;
/** VMs that are asked about at one look. */
const MAX_ASKED = 64;

export interface Look {
  /** ms, on the clock of the tunnels' times. */
  now: number;
  tunnels: readonly Tunnel[];
  /** Why packets are not counted for each VM, if they are not. */
  uncounted?: string | undefined;
}

export interface Knowledge {
  state: TunnelStateName;
  /** Code of the ICMP message that says why the VM is unreachable, or words. */
  why?: number | string;
  /** ms since it was first seen open. */
  open: number;
  /** ms since a packet came from the VM; undefined if none did. */
  heard?: number;
  /** Packets sent to it since then, and ms since the first of them. */
  unanswered: { packets: number; since: number };
}

/** `silent` and `unreachable` are told once, `heard` when that is over. */
export interface TunnelChange extends Knowledge {
  vm: number;
}

export interface TunnelWatchOptions {
  /** Why this machine itself cannot send to the VM, in words. */
  obstacle: (vm: number) => string | undefined;
  /** Told what one look has found, if anything. */
  onChanges: (changes: TunnelChange[]) => void;
}

/** What is kept about one tunnel; times in ms. */
interface Seen {
  openedAt: number;
  /** Packets at the last look. */
  sent: number;
  received: number;
  heardAt?: number;
  /** Packets sent by the time that the VM was last heard. */
  answered: number;
  /** When the first packet after those was seen. */
  unansweredAt?: number | undefined;
  /** Bytes of outer packets, as the core has learnt them. */
  pathMtu?: number | undefined;
  /** What the underlay's ICMP says. */
  code?: number | undefined;
  /** What this machine says. */
  obstacle?: string | undefined;
  lastUse: number;
  told?: 'silent' | 'unreachable' | undefined;
}

export class TunnelWatch {
  readonly #options: TunnelWatchOptions;
  #seen = new Map<number, Seen>();
  /** When the last look was. */
  #lookedAt = -Infinity;
  #uncounted: string | undefined;
  /** How many VMs were asked about so far: they take turns. */
  #asked = 0;

  constructor(options: TunnelWatchOptions) {
    this.#options = options;
  }

  /** Compares with the look before. One that comes too late is left out. */
  observe({ now, tunnels, uncounted }: Look): void {
    if (now < this.#lookedAt) return;
    const seen = new Map<number, Seen>();
    const heardAgain: number[] = [];
    for (const tunnel of tunnels) {
      const { vm, inbound } = tunnel;
      const isHeard = inbound.packets > (this.#seen.get(vm)?.received ?? 0);
      const known = this.#follow(tunnel, now);
      seen.set(vm, known);
      if (known.told && isHeard) heardAgain.push(vm);
    }
    this.#seen = seen;
    this.#lookedAt = now;
    this.#uncounted = uncounted;
    this.#askAbout(now);
    this.#tell(heardAgain, now);
  }

  /** What is known about the tunnel to a VM, as of the last look; undefined if there was none. */
  of(vm: number, now: number): Knowledge | undefined {
    const known = this.#seen.get(vm);
    return known && this.#knowledge(known, now);
  }

  /** Bytes of outer packets to a VM, as of the last look. */
  pathMtu(vm: number): number | undefined {
    return this.#seen.get(vm)?.pathMtu;
  }

  /** How many tunnels are in each state. */
  summary(now: number): Record<TunnelStateName, number> {
    const counts = { heard: 0, silent: 0, unreachable: 0, new: 0, unknown: 0 };
    for (const known of this.#seen.values()) counts[this.#stateOf(known, now)]++;
    return counts;
  }

  #follow(tunnel: Tunnel, now: number): Seen {
    const { outbound, inbound, lastUse } = tunnel;
    const before = this.#seen.get(tunnel.vm);
    // Counters that go back are those of another tunnel to the same VM.
    const isSame = before && outbound.packets >= before.sent && inbound.packets >= before.received;
    // Between the two looks, and of its packets the last is the one whose time is known.
    const at = Math.min(Math.max(lastUse, this.#lookedAt), now);
    const known = isSame ? before : { openedAt: at, sent: 0, received: 0, answered: 0, lastUse };
    const hasSent = outbound.packets > known.sent;
    const hasHeard = inbound.packets > known.received;
    if (hasHeard) {
      known.heardAt = at;
      known.answered = outbound.packets;
      known.unansweredAt = undefined;
    } else if (hasSent) known.unansweredAt ??= at;
    // The underlay says it again only when it gets another packet.
    if (tunnel.unreachable !== undefined || hasSent || hasHeard) known.code = tunnel.unreachable;
    known.sent = outbound.packets;
    known.received = inbound.packets;
    known.lastUse = lastUse;
    known.pathMtu = tunnel.pathMtu;
    return known;
  }

  /** Asks this machine about VMs that do not answer; so many at a time. */
  #askAbout(now: number): void {
    const waiting: [number, Seen][] = [];
    for (const [vm, known] of this.#seen) {
      if (this.#waits(known, now) >= ASK_AFTER) waiting.push([vm, known]);
      else known.obstacle = undefined;
    }
    const count = Math.min(waiting.length, MAX_ASKED);
    for (let i = 0; i < count; i++) {
      const [vm, known] = waiting[(this.#asked + i) % waiting.length] as [number, Seen];
      known.obstacle = this.#options.obstacle(vm);
    }
    this.#asked = waiting.length === 0 ? 0 : (this.#asked + count) % waiting.length;
  }

  /** How long, in ms, nothing has come back. Where nothing is counted, a VM that is sent to may be one that does not answer. */
  #waits({ unansweredAt, openedAt, lastUse }: Seen, now: number): number {
    if (this.#uncounted !== undefined) return now - lastUse < SILENT_AFTER ? now - openedAt : 0;
    return unansweredAt === undefined ? 0 : now - unansweredAt;
  }

  #tell(heardAgain: readonly number[], now: number): void {
    const changes: TunnelChange[] = [];
    const tell = (vm: number, known: Seen, told: Seen['told']) => {
      changes.push({ vm, ...this.#knowledge(known, now) });
      known.told = told;
    };
    for (const vm of heardAgain) {
      const known = this.#seen.get(vm) as Seen;
      if (this.#stateOf(known, now) === 'heard') tell(vm, known, undefined);
    }
    for (const [vm, known] of this.#seen) {
      const state = this.#stateOf(known, now);
      if (state === 'unreachable' && known.told !== 'unreachable') tell(vm, known, 'unreachable');
      else if (state === 'silent' && known.told === undefined) tell(vm, known, 'silent');
    }
    if (changes.length > 0) this.#options.onChanges(changes);
  }

  #stateOf(known: Seen, now: number): TunnelStateName {
    if (known.code !== undefined || known.obstacle !== undefined) return 'unreachable';
    if (this.#uncounted !== undefined) return 'unknown';
    const isLong = known.unansweredAt !== undefined && now - known.unansweredAt >= SILENT_AFTER;
    if (isLong && known.sent - known.answered >= SILENT_PACKETS) return 'silent';
    return known.heardAt === undefined ? 'new' : 'heard';
  }

  #knowledge(known: Seen, now: number): Knowledge {
    const state = this.#stateOf(known, now);
    const why = known.code ?? known.obstacle ?? this.#uncounted;
    const { heardAt, unansweredAt } = known;
    return {
      state,
      ...(why === undefined ? {} : { why }),
      open: now - known.openedAt,
      ...(heardAt === undefined ? {} : { heard: now - heardAt }),
      unanswered: {
        packets: known.sent - known.answered,
        since: unansweredAt === undefined ? 0 : now - unansweredAt,
      },
    };
  }
}

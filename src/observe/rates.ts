/** Traffic of the last seconds and drops of the last minute, from looks at the counters. */
import type { DirectionCounters } from '../core/counters.ts';
import type { Counters } from '../dataplane/dataplane.ts';

/** ms that the traffic of now is an average of, and that recent drops are of. */
const NOW = 5000;
const RECENT = 60_000;

export interface Rate {
  packetsPerSecond: number;
  /** Of inner packets. */
  bitsPerSecond: number;
  /** Packets of the last minute by drop reason, as in DirectionCounters. */
  recentDrops: number[];
}

type Name = 'outbound' | 'inbound' | 'icmp';

interface Look {
  /** ms */
  at: number;
  counters: Counters;
}

export class Rates {
  /** Those of the last minute, the oldest first. */
  readonly #looks: Look[] = [];

  add(at: number, counters: Counters): void {
    this.#looks.push({ at, counters });
    // One older than a minute is kept: the minute begins with it.
    while ((this.#looks[1]?.at ?? at) <= at - RECENT) this.#looks.shift();
  }

  /** What `counters`, those of now, say beyond the looks before. */
  of(name: Name, now: number, counters: Counters): Rate {
    const current = counters[name];
    // A whole second away at least, so that a packet or two are no rate.
    const settled = this.#looks.filter(({ at }) => at <= now - 1000);
    const recent = settled.find(({ at }) => at >= now - NOW) ?? settled.at(-1);
    const before = recent?.counters[name];
    const seconds = recent ? (now - recent.at) / 1000 : 1;
    const perSecond = (of: (counters: DirectionCounters) => number) =>
      current && before ? Math.max(of(current) - of(before), 0) / seconds : 0;
    const first = this.#looks[0]?.counters[name];
    return {
      packetsPerSecond: Math.round(perSecond((c) => c.forwarded)),
      bitsPerSecond: Math.round(perSecond((c) => 8 * c.bytes)),
      recentDrops: (current?.drops ?? []).map((count, i) => Math.max(count - (first?.drops[i] ?? count), 0)),
    };
  }
}

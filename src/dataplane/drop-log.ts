/** Log lines about dropped packets: an example, what it means, and what can be done. So few of them that no sender can fill the log. */
import type { Direction } from '../core/counters.ts';
import { dropReason } from '../core/verdict.ts';
import type { Log } from '../log.ts';
import { formatAddress, ipv4 } from '../mesh/address.ts';
import { dropHint, isRoutineDrop } from './drop-hints.ts';
import { refusalCause } from './refusal-causes.ts';

export type DeviceName = 'underlay' | 'overlay';

/** One dropped packet as an example; addresses are u32 numbers, and what the packet was too short for is missing. */
export interface DropSample {
  direction: Direction;
  /** The drop reason, a verdict. */
  verdict: number;
  /** Packets that were dropped for this reason since the last example of it, this one included. */
  packets: number;
  outerSource?: number;
  outerDestination?: number;
  innerSource?: number;
  innerDestination?: number;
  /** IP protocol of the inner packet. */
  protocol?: number;
  /** Bytes of the inner packet. */
  length?: number;
  /** Of packets that were not written: the name of the error number, and which device did not take them. */
  refusal?: { errno: string; device: DeviceName };
}

/** ms; each kind of drop has one line in this time. */
const INTERVAL = 60_000;

interface Waiting {
  sample: DropSample;
  /** Packets since the last line. */
  packets: number;
}

export class DropLog {
  readonly #log: Log;
  readonly #kinds = new Map<string, Waiting>();
  readonly #interval: number;

  /** `interval` is ms between two lines about one kind of drop. */
  constructor(log: Log, interval: number = INTERVAL) {
    this.#log = log;
    this.#interval = interval;
  }

  /** Each example is a line of the level debug. The first of a kind is a line of the kind's own level, and then there is one an interval. */
  add(sample: DropSample): void {
    const { direction, verdict, refusal, packets } = sample;
    this.#log.debug(factsOf(sample), 'packet dropped');
    const kind = `${direction} ${verdict} ${refusal?.device} ${refusal?.errno}`;
    const waiting = this.#kinds.get(kind);
    if (waiting) {
      waiting.packets += packets;
      waiting.sample = sample;
      return;
    }
    this.#kinds.set(kind, { sample, packets: 0 });
    this.#write(sample, packets);
    this.#awaitMore(kind);
  }

  /** The next line of a kind comes at the end of the interval, if there was something to say. */
  #awaitMore(kind: string): void {
    const end = () => {
      const { sample, packets } = this.#kinds.get(kind) as Waiting;
      if (packets === 0) {
        this.#kinds.delete(kind);
        return;
      }
      this.#kinds.set(kind, { sample, packets: 0 });
      this.#write(sample, packets);
      this.#awaitMore(kind);
    };
    setTimeout(end, this.#interval).unref();
  }

  #write(sample: DropSample, packets: number): void {
    const { verdict, refusal } = sample;
    if (isRoutineDrop(verdict)) return;
    const { meaning } = dropReason(verdict);
    const found = refusal ? refusalCause(refusal.device, refusal.errno) : { hint: dropHint(verdict) };
    const level = found.hint === undefined ? 'info' : 'warn';
    this.#log[level]({ packets, ...factsOf(sample), meaning, ...found, code: undefined }, 'packets dropped');
  }
}

function factsOf({ direction, verdict, packets: _, refusal, protocol, length, ...addresses }: DropSample): object {
  const written = Object.entries(addresses).map(([name, value]) => [name, formatAddress(ipv4(value))]);
  return { direction, reason: dropReason(verdict).name, ...refusal, ...Object.fromEntries(written), protocol, length };
}

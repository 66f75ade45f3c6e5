/** Looks at the data plane's counters and tunnels all the time, so that `status` and `tunnels` can tell what goes on now, and since when. */
import type { DataPlane } from '../dataplane/dataplane.ts';
import { Rates } from './rates.ts';
import type { State } from './status.ts';
import { TunnelWatch, type TunnelWatchOptions } from './tunnel-watch.ts';

/** ms between two looks. */
const INTERVAL = 1000;
/** Looks at tunnels take at most one part in so many of the time: with very many tunnels they are rarer. */
const SHARE = 100;
/** ms of that time for one tunnel, at most. A look that takes longer has waited, on a machine that does much else. */
const MAX_COST = 0.1;

export interface ObserverOptions extends TunnelWatchOptions {
  /** Undefined until there is one. */
  dataPlane: () => DataPlane | undefined;
  state: () => State;
  /** ms; the clock of the tunnels' times. */
  clock?: () => number;
}

export class Observer {
  readonly tunnels: TunnelWatch;
  readonly rates = new Rates();
  readonly #options: ObserverOptions;
  readonly #clock: () => number;
  readonly #startedAt: number;
  #state: State;
  #stateAt: number;
  /** When tunnels are looked at next, in ms. */
  #due = 0;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: ObserverOptions) {
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.now());
    this.tunnels = new TunnelWatch(options);
    this.#startedAt = this.#stateAt = this.#clock();
    this.#state = options.state();
  }

  /** Looks every second from now on. */
  start(): void {
    this.#timer = setTimeout(async () => {
      await this.look();
      if (!this.#isClosed) this.start();
    }, INTERVAL).unref();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  get now(): number {
    return this.#clock();
  }

  /** Seconds since the start, and since the daemon is in this state. */
  get ages(): { uptimeSeconds: number; stateSeconds: number } {
    this.#noteState();
    const seconds = (since: number) => Math.round((this.#clock() - since) / 1000);
    return { uptimeSeconds: seconds(this.#startedAt), stateSeconds: seconds(this.#stateAt) };
  }

  /** One look. A data plane that does not answer now will at the next. */
  async look(): Promise<void> {
    this.#noteState();
    const dataPlane = this.#options.dataPlane();
    if (!dataPlane || this.#isClosed) return;
    const now = this.#clock();
    const counters = await dataPlane.counters().catch(() => undefined);
    if (counters) this.rates.add(now, counters);
    if (now < this.#due) return;
    const found = await dataPlane.tunnels().catch(() => undefined);
    if (found && !this.#isClosed) this.tunnels.observe(found);
    const cost = Math.min(this.#clock() - now, MAX_COST * (found?.tunnels.length ?? 0));
    this.#due = now + SHARE * cost;
  }

  #noteState(): void {
    const state = this.#options.state();
    if (state === this.#state) return;
    this.#state = state;
    this.#stateAt = this.#clock();
  }
}

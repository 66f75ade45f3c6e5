/** The end of the daemon. It comes in time whatever is stuck: a worker, a file system, this thread itself. */
import * as native from '../linux/native.ts';

/** ms that what is under way may take, and from a second signal on. */
const PATIENCE = 1500;
const LESS_PATIENCE = 500;
/**
 * Seconds until the kernel ends the process, even if the main thread sits in a system call, and from a second
 * signal on.
 */
const ALARM = 2;
const EARLIER_ALARM = 1;

export class Ending {
  readonly #controller = new AbortController();
  #alarmAt = Infinity;
  readonly #timers: NodeJS.Timeout[] = [];
  #isOver = false;
  #giveUp: () => void = () => {};
  readonly #over = new Promise<undefined>((resolve) => {
    this.#giveUp = () => {
      this.#isOver = true;
      resolve(undefined);
    };
  });

  /** Resolves when the daemon is to end. */
  readonly begun: Promise<void> = new Promise((resolve) => {
    this.signal.addEventListener('abort', () => resolve());
  });

  /** Aborted when the daemon is to end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether something was not done in time. */
  get isOver(): boolean {
    return this.#isOver;
  }

  begin(): void {
    this.#limit(PATIENCE, ALARM);
    this.#controller.abort();
  }

  /**
   * A second signal comes from somebody in a hurry, or from a shell that tells a group of processes: the
   * daemon still cleans up.
   */
  hurry(): void {
    this.#limit(LESS_PATIENCE, EARLIER_ALARM);
  }

  #limit(patience: number, alarm: number): void {
    const alarmAt = performance.now() + 1000 * alarm;
    if (alarmAt >= this.#alarmAt) return;
    this.#alarmAt = alarmAt;
    native.alarm(alarm);
    this.#timers.push(setTimeout(this.#giveUp, patience));
  }

  /** Waits for `work`, but no longer than there is time; the answer is undefined then. */
  async within<T>(work: T | Promise<T>): Promise<T | undefined> {
    return await Promise.race([work, this.#over]);
  }

  /** All is done. The alarm stays, in case a thread keeps the process from ending. */
  done(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }
}

/** The seam between the guard and what knows of attached containers. */
import type { DeviceSettings } from '../linux/netlink/device-settings.ts';

/** What attaching made, and is to be there as long as a container is attached. */
export interface Attachments {
  /** Interface indexes of the devices of containers, be it that no route leads to them any more. */
  find(): number[];
  /**
   * Puts right what others took away from a device of an attached container; returns that, in words. Throws
   * what cannot be put right.
   */
  keep(found: DeviceSettings): string | undefined;
  /**
   * Puts back the routes of many containers at once; returns what was wrong, in words, by interface index. The
   * others are to be looked at one by one.
   */
  keepRoutes(found: readonly DeviceSettings[]): Map<number, string>;
  /** The same for what the routes of all containers need. */
  keepSource(): string | undefined;
}

/** The devices of attached containers: which there are, and at which something may be missing. */
export class AttachedDevices {
  readonly #attachments: Attachments;
  readonly #onRepaired: (what: string) => void;
  /** By interface index. */
  readonly #all = new Set<number>();
  /** Those that may have lost their routes. */
  readonly #lost = new Set<number>();
  #isSourceDue = false;

  constructor(attachments: Attachments, onRepaired: (what: string) => void) {
    this.#attachments = attachments;
    this.#onRepaired = onRepaired;
  }

  get count(): number {
    return this.#all.size;
  }

  has(index: number): boolean {
    return this.#all.has(index);
  }

  add(index: number): void {
    if (this.#all.has(index)) return;
    this.#all.add(index);
    // From the first one on, what all need has to be there.
    if (this.#all.size === 1) this.keepSource();
  }

  /** The device has gone. */
  forget(index: number): void {
    this.#all.delete(index);
  }

  /** The route to a device may have gone. */
  lose(index: number): void {
    if (this.#all.has(index)) this.#lost.add(index);
  }

  /** The routes of all may have gone. */
  loseAll(): void {
    for (const index of this.#all) this.#lost.add(index);
  }

  /** What the routes of all need may have gone. */
  loseSource(): void {
    this.#isSourceDue = this.#all.size > 0;
  }

  /** Whether a look is needed. */
  get isDue(): boolean {
    return this.#isSourceDue || this.#lost.size > 0;
  }

  /** Without it all routes go at once, of which the kernel does not tell. */
  keepSource(): void {
    this.#isSourceDue = false;
    if (this.#all.size === 0) return;
    try {
      const wrong = this.#attachments.keepSource();
      if (wrong === undefined) return;
      this.#onRepaired(wrong);
      this.loseAll();
    } catch {} // What follows from it is said of each device.
  }

  /**
   * Puts back lost routes, all at once: there may be thousands. `foundOf` is how a device was found last.
   * Returns what was wrong, in words, and the devices that are to be looked at one by one.
   */
  keepRoutes(foundOf: (index: number) => DeviceSettings | undefined): { repaired: string[]; due: number[] } {
    if (this.#isSourceDue) this.keepSource();
    const lost = [...this.#lost];
    this.#lost.clear();
    const repaired = this.#attachments.keepRoutes(lost.flatMap((index) => foundOf(index) ?? []));
    return { repaired: [...repaired.values()], due: lost.filter((index) => !repaired.has(index)) };
  }

  /** What was wrong at one, in words. Throws what cannot be put right. */
  keep(found: DeviceSettings): string | undefined {
    return this.#attachments.keep(found);
  }
}

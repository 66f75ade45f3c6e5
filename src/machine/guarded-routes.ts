/** Which containers' routes lead to which devices, and which of their neighbour entries are not kept yet. */
import type { ContainerRoute } from './table.ts';

/** A container that has a route of its own. */
export interface Container {
  address: Uint8Array;
  link: number;
}

const HOST = 32;

export class GuardedRoutes {
  readonly #routes = new Map<string, ContainerRoute>();
  /** The prefixes of the routes to each device. */
  readonly #byLink = new Map<number, Set<string>>();
  /** The prefixes of containers whose neighbour entries are to be kept; the longest looked for come first. */
  readonly #waiting = new Set<string>();

  has(link: number): boolean {
    return this.#byLink.has(link);
  }

  /** Takes a change. Returns the device that was left without a route, if one was. */
  take(prefix: string, change: ContainerRoute): number | undefined {
    const known = this.#routes.get(prefix);
    // A route that was replaced may still be told to have gone.
    if (change.hasGone && known?.link !== change.link) return undefined;
    const isSame = known?.link === change.link && !change.hasGone;
    if (isSame) return undefined;
    const left = known && this.#remove(prefix, known.link) ? known.link : undefined;
    if (!change.hasGone) this.#add(prefix, change);
    return left;
  }

  /** Forgets a device that has gone. */
  drop(link: number): void {
    for (const prefix of this.#byLink.get(link) ?? []) this.#remove(prefix, link);
  }

  /** The containers behind a device whose neighbour entries were kept when they were looked at last. */
  settled(link: number): Container[] {
    const prefixes = [...(this.#byLink.get(link) ?? [])].filter((prefix) => !this.#waiting.has(prefix));
    return prefixes.flatMap((prefix) => this.#container(prefix));
  }

  /** Those whose neighbour entries are to be kept, up to `count`, the next time others. */
  waiting(count: number): Container[] {
    const found: Container[] = [];
    for (const prefix of this.#waiting) {
      if (found.length === count) break;
      found.push(...this.#container(prefix));
    }
    for (const container of found) this.settle(container, false);
    return found;
  }

  /** Whether a neighbour entry is kept; if not, it is looked for again. */
  settle({ address, link }: Container, isKept: boolean): void {
    const prefix = `${address.join('.')}/${HOST}`;
    this.#waiting.delete(prefix);
    if (!isKept && this.#routes.get(prefix)?.link === link) this.#waiting.add(prefix);
  }

  #container(prefix: string): Container[] {
    const route = this.#routes.get(prefix);
    return route?.dst && route.dstLength === HOST ? [{ address: route.dst, link: route.link }] : [];
  }

  #add(prefix: string, route: ContainerRoute): void {
    this.#routes.set(prefix, route);
    const prefixes = this.#byLink.get(route.link) ?? new Set();
    this.#byLink.set(route.link, prefixes.add(prefix));
    if (route.dstLength === HOST) this.#waiting.add(prefix);
  }

  /** Returns whether it was the last route to the device. */
  #remove(prefix: string, link: number): boolean {
    this.#routes.delete(prefix);
    this.#waiting.delete(prefix);
    const prefixes = this.#byLink.get(link);
    prefixes?.delete(prefix);
    if (prefixes?.size !== 0) return false;
    return this.#byLink.delete(link);
  }
}

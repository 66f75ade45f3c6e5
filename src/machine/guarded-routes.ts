/** Which containers' routes lead to which devices, and which of their neighbour entries are not kept yet. */
import type { ContainerRoute } from './table.ts';

/** A container that has a route of its own. */
export interface Container {
  /** The name of its route. */
  route: string;
  address: Uint8Array;
  link: number;
}

const HOST = 32;

export class GuardedRoutes {
  /** By their names, as MainTable has them. */
  readonly #routes = new Map<string, ContainerRoute>();
  /** The names of the routes to each device. */
  readonly #byLink = new Map<number, Set<string>>();
  /** The names of the routes of containers whose neighbour entries are to be kept; the longest looked for come first. */
  readonly #waiting = new Set<string>();

  has(link: number): boolean {
    return this.#byLink.has(link);
  }

  /** Takes a change of the route of this name. Returns the device that was left without a route, if one was. */
  take(name: string, change: ContainerRoute): number | undefined {
    const known = this.#routes.get(name);
    // A route that was replaced may still be told to have gone.
    if (change.hasGone && known?.link !== change.link) return undefined;
    const isSame = known?.link === change.link && !change.hasGone;
    if (isSame) return undefined;
    const left = known && this.#remove(name, known.link) ? known.link : undefined;
    if (!change.hasGone) this.#add(name, change);
    return left;
  }

  /** Forgets a device that has gone. */
  drop(link: number): void {
    for (const name of this.#byLink.get(link) ?? []) this.#remove(name, link);
  }

  /** The containers behind a device whose neighbour entries were kept when they were looked at last. */
  settled(link: number): Container[] {
    const names = [...(this.#byLink.get(link) ?? [])].filter((name) => !this.#waiting.has(name));
    return names.flatMap((name) => this.#container(name));
  }

  /** Those whose neighbour entries are to be kept, up to `count`, the next time others. */
  waiting(count: number): Container[] {
    const found: Container[] = [];
    for (const name of this.#waiting) {
      if (found.length === count) break;
      found.push(...this.#container(name));
    }
    for (const container of found) this.settle(container, false);
    return found;
  }

  /** Whether a neighbour entry is kept; if not, it is looked for again. */
  settle({ route, link }: Container, isKept: boolean): void {
    this.#waiting.delete(route);
    if (!isKept && this.#routes.get(route)?.link === link) this.#waiting.add(route);
  }

  #container(name: string): Container[] {
    const route = this.#routes.get(name);
    return route?.dst && route.dstLength === HOST ? [{ route: name, address: route.dst, link: route.link }] : [];
  }

  #add(name: string, route: ContainerRoute): void {
    this.#routes.set(name, route);
    const names = this.#byLink.get(route.link) ?? new Set();
    this.#byLink.set(route.link, names.add(name));
    if (route.dstLength === HOST) this.#waiting.add(name);
  }

  /** Returns whether it was the last route to the device. */
  #remove(name: string, link: number): boolean {
    this.#routes.delete(name);
    this.#waiting.delete(name);
    const names = this.#byLink.get(link);
    names?.delete(name);
    if (names?.size !== 0) return false;
    return this.#byLink.delete(link);
  }
}

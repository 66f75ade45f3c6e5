/** What keeps the fast path from taking packets. */
export interface Obstacle {
  /** In words, as `status` has it. */
  what: string;
  /** Whether `fast-path: on` takes packets nevertheless, and has them go past it. */
  mayGoPast: boolean;
}

/** One that packets never go past. */
export function cannot(what: string): Obstacle {
  return { what, mayGoPast: false };
}

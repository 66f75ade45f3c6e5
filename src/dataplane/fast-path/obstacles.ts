/** What the fast path would go past, or cannot do, on this machine as it is now. */
export interface Obstacle {
  /** In words, as `status` has it. */
  what: string;
  /** Whether `fast-path: on` takes packets nevertheless. */
  mayBePassed: boolean;
}

/** The seam between packets and the kernel: a TUN, a socket, or memory. */
import type { PacketCore } from '../../core/core.ts';

/** Where IP packets come from. No call blocks. */
export interface PacketSource {
  /**
   * Puts what waits, at most BATCH_SIZE packets, into the core's slots and describes it; returns the number of descriptors. A device may take fewer at once where they
   * are long, but not if `deep` is set.
   */
  read(core: PacketCore, deep?: boolean): number;
  /** Whether the last read left packets there, as far as it can tell. */
  readonly more?: boolean;
}

/** A source and sink of IP packets. */
export interface PacketDevice extends PacketSource {
  /** Writes messages `first` to `end` - 1, all of one port, and refuses each that is not taken (`core.refuse`, or Refusals, which also counts why). */
  write(core: PacketCore, first: number, end: number): void;
}

/** The seam between packets and the kernel: a TUN, a socket, or memory. */
import type { PacketCore } from '../core/core.ts';

/** A source and sink of IP packets. Neither call blocks. */
export interface PacketDevice {
  /** Puts what waits, at most BATCH_SIZE packets, into the core's slots and describes it; returns the number of descriptors. */
  read(core: PacketCore): number;
  /** Writes all messages that the core's last call made, and calls `core.refuse` for each that is not taken. */
  write(core: PacketCore): void;
  close(): void;
}

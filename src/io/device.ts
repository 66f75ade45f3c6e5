/** The seam between packets and the kernel: a TUN, a socket, or memory. */
import type { PacketCore } from '../core/core.ts';

/** A source and sink of IP packets, which lie in a core's slots. Neither call blocks. */
export interface PacketDevice {
  /** Puts waiting packets, at most BATCH_SIZE, into the core's slots and describes them; returns their number. */
  read(core: PacketCore): number;
  /** Writes those of the first `count` packets whose verdict is FORWARD, and calls `core.refuse` for each that is not taken; returns the number taken. */
  write(core: PacketCore, count: number): number;
  close(): void;
}

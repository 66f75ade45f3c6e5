/** The seam between packets and the kernel: a TUN, a socket, or memory. */
import type { PacketCore } from '../../core/core.ts';

/** Where IP packets come from. No call blocks. */
export interface PacketSource {
  /** Puts what waits, at most BATCH_SIZE packets, into the core's slots and describes it; returns the number of descriptors. */
  read(core: PacketCore): number;
  close(): void;
}

/** A source and sink of IP packets. */
export interface PacketDevice extends PacketSource {
  /** Writes all messages that the core's last call made, and calls `core.refuse` for each that is not taken. */
  write(core: PacketCore): void;
}

export interface OverlayDevice extends PacketDevice {
  /** Writes the replies to containers that the core's last call made; they may get lost. */
  reply(core: PacketCore): void;
}

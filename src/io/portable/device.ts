/** A device that gets its packets from events, one at a time. */
import { FORWARD } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { PacketDevice } from '../device.ts';

export interface DeviceListeners {
  /** Called for each packet; has to read it before it returns. */
  onReadable: () => void;
  onError: (error: Error) => void;
  /** Called when a packet of this length, which was taken, could not be sent after all. */
  onLost?: (length: number) => void;
}

export abstract class EventDevice implements PacketDevice {
  readonly #listeners: DeviceListeners;
  #received: Uint8Array | undefined;

  constructor(listeners: DeviceListeners) {
    this.#listeners = listeners;
  }

  /** Hands over one packet, whose bytes need to last only for this call. */
  protected receive(packet: Uint8Array): void {
    this.#received = packet;
    this.#listeners.onReadable();
    this.#received = undefined;
  }

  protected lose(length: number): void {
    this.#listeners.onLost?.(length);
  }

  protected fail(error: Error): void {
    this.#listeners.onError(error);
  }

  read(core: PacketCore): number {
    if (!this.#received) return 0;
    core.put(0, this.#received);
    this.#received = undefined;
    return 1;
  }

  write(core: PacketCore, count: number): number {
    let taken = 0;
    for (let i = 0; i < count; i++) {
      if (core.verdict(i) !== FORWARD) continue;
      if (this.send(core.packet(i), core.peer(i))) taken++;
      else core.refuse(i);
    }
    return taken;
  }

  /** Writes one packet, whose bytes last only for this call; false if it was not taken. `peer` is as in `PacketCore.peer`. */
  protected abstract send(packet: Uint8Array, peer: number): boolean;
  abstract close(): void;
}

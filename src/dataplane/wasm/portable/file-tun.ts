/** TUN device in the event loop, made by ioctl(2). */
import fs from 'node:fs';
import type { PacketCore } from '../../../core/core.ts';
import { errorCode } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import { endWait, onReadable } from '../../../linux/readable.ts';
import { openTun } from '../../../linux/tun.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';

const MAX_PACKET = 65535;
/** Packets that are read in one go. */
const MAX_BURST = 64;

export function openFileTun(name: string, listeners: DeviceListeners): EventDevice {
  return new FileTun(openTun(name)[0] as number, listeners);
}

/** A non-blocking descriptor. */
class FileTun extends EventDevice {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(MAX_PACKET);
  #closed = false;

  constructor(fd: number, listeners: DeviceListeners) {
    super(listeners);
    this.#fd = fd;
    this.#wait();
  }

  #wait(): void {
    onReadable(this.#fd, () => {
      try {
        this.#drain();
      } catch (error) {
        // What is left to wait for is `close`.
        this.fail(error as Error);
        return;
      }
      if (!this.#closed) this.#wait();
    });
  }

  /** Reads what waits, but lets others have their turn. */
  #drain(): void {
    for (let i = 0; i < MAX_BURST && !this.#closed; i++) {
      // Not by node:fs, which has no name for EBADFD: the device is gone.
      const length = native.read(this.#fd, native.pointer(this.#buffer), MAX_PACKET);
      if (length < 0 && native.errno() === native.EAGAIN) return;
      native.must(length, 'read', 'from the TUN device');
      this.receive(this.#buffer.subarray(0, length));
    }
  }

  protected send(core: PacketCore, message: number): Refusal {
    try {
      fs.writeSync(this.#fd, core.messages.bytes(message));
      return undefined;
    } catch (error) {
      return errorCode(error) ?? 'EIO';
    }
  }

  /** The descriptor is closed, and the device gone, when nobody waits for it any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    endWait(this.#fd, () => native.close(this.#fd));
  }
}

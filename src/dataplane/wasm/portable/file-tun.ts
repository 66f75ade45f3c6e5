/** TUN device in the event loop, made by ioctl(2). */
import fs from 'node:fs';
import type { PacketCore } from '../../../core/core.ts';
import { errorCode } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import { openTun } from '../../../linux/tun.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';

const MAX_PACKET = 65535;
/** Packets that are read in one go. */
const MAX_BURST = 64;

export function openFileTun(name: string, listeners: DeviceListeners): EventDevice {
  const fd = openTun(name)[0] as number;
  try {
    const wakeFd = native.must(native.eventfd(0, native.O_CLOEXEC), 'eventfd', 'for the TUN device');
    return new FileTun(fd, wakeFd, listeners);
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/** A non-blocking descriptor; a thread of Node's pool waits in poll(2) until there is something to read. */
class FileTun extends EventDevice {
  readonly #fd: number;
  /** eventfd that ends the wait. */
  readonly #wakeFd: number;
  readonly #buffer = Buffer.alloc(MAX_PACKET);
  /** Two `struct pollfd` (poll(2)). */
  readonly #waitFor: Int32Array;
  #closed = false;

  constructor(fd: number, wakeFd: number, listeners: DeviceListeners) {
    super(listeners);
    this.#fd = fd;
    this.#wakeFd = wakeFd;
    this.#waitFor = Int32Array.of(fd, native.POLLIN, this.#wakeFd, native.POLLIN);
    this.#wait();
  }

  #wait(): void {
    native.pollAsync(native.pointer(this.#waitFor), 2, -1, () => {
      if (this.#closed) {
        native.close(this.#fd);
        native.close(this.#wakeFd);
        return;
      }
      try {
        this.#drain();
      } catch (error) {
        // What is left to wait for is `close`: poll(2) ignores negative descriptors.
        this.#waitFor[0] = -1;
        this.fail(error as Error);
      }
      this.#wait();
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

  /** Ends the wait; the descriptor is closed, and the device gone, when the thread has come back. */
  close(): void {
    this.#closed = true;
    fs.writeSync(this.#wakeFd, BigUint64Array.of(1n));
  }
}

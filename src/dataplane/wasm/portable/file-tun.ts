/** TUN device in the event loop, made by ioctl(2) and read by node:fs. */
import fs from 'node:fs';
import type { PacketCore } from '../../../core/core.ts';
import { errorCode } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import { openTun } from '../../../linux/tun.ts';
import { type DeviceListeners, EventDevice } from './device.ts';

const MAX_PACKET = 65535;
/** Packets that are read in one go. */
const MAX_BURST = 64;

export function openFileTun(name: string, listeners: DeviceListeners): EventDevice {
  return new FileTun(openTun(name)[0] as number, listeners);
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

  constructor(fd: number, listeners: DeviceListeners) {
    super(listeners);
    this.#fd = fd;
    this.#wakeFd = native.must(native.eventfd(0, native.O_CLOEXEC), 'eventfd', 'for the TUN device');
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
        this.fail(error as Error);
        return;
      }
      this.#wait();
    });
  }

  /** Reads what waits, but lets others have their turn. */
  #drain(): void {
    for (let i = 0; i < MAX_BURST && !this.#closed; i++) {
      let length: number;
      try {
        length = fs.readSync(this.#fd, this.#buffer);
      } catch (error) {
        if (errorCode(error) === 'EAGAIN') return;
        throw error;
      }
      this.receive(this.#buffer.subarray(0, length));
    }
  }

  protected send(core: PacketCore, message: number): boolean {
    try {
      fs.writeSync(this.#fd, core.messageBytes(message));
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the wait; the descriptor is closed, and the device gone, when the thread has come back. */
  close(): void {
    this.#closed = true;
    fs.writeSync(this.#wakeFd, BigUint64Array.of(1n));
  }
}

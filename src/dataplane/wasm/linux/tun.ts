/** TUN device (Documentation/networking/tuntap.rst): the kernel's side of the overlay. */
import * as abi from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import type { PacketDevice } from '../device.ts';

/** Bytes that one batch brings at most, about: what a core's cache holds next to everything else. */
const BATCH_BYTES = 256 << 10;
const MAX_READ = abi.SLOT_SIZE - abi.HEADROOM;

/** Packets to and from the kernel, with virtio headers, straight in the core's memory: one read(2) or writev(2) each. */
export class TunDevice implements PacketDevice {
  readonly #fd: number;
  readonly #base: native.Pointer;
  readonly #onRefused: (errno: number, message: number) => void;

  more = false;

  /** `onRefused` is told the errno for each message that was not taken. */
  constructor(fd: number, core: PacketCore, onRefused: (errno: number, message: number) => void) {
    this.#fd = fd;
    this.#onRefused = onRefused;
    this.#base = native.pointer(core.bytes);
  }

  read(core: PacketCore, deep = false): number {
    const most = deep ? Infinity : BATCH_BYTES;
    let count = 0;
    this.more = true;
    for (let bytes = 0; count < abi.BATCH_SIZE && bytes < most; count++) {
      // The packet itself begins at the slot's, so that it is aligned.
      const address = core.slot(count) - abi.VIRTIO_SIZE;
      const length = native.read(this.#fd, this.#base + address, MAX_READ);
      if (length < 0) {
        const errno = native.errno();
        if (errno !== native.EAGAIN && errno !== native.EINTR) native.must(length, 'read', 'from the TUN device');
        this.more = false;
        break;
      }
      core.describe(count, length, address);
      bytes += length;
    }
    return count;
  }

  write(core: PacketCore, first: number, end: number): void {
    for (let i = first; i < end; i++) if (!this.#take(core, i)) this.#onRefused(native.errno(), i);
  }

  #take(core: PacketCore, message: number): boolean {
    const iovs = this.#base + abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE;
    return native.writev(this.#fd, iovs, core.messages.pieces(message)) >= 0;
  }
}

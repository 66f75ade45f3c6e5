/** TUN device (Documentation/networking/tuntap.rst): the kernel's side of the overlay. */
import { BATCH_SIZE, FORWARD, HEADROOM, SLOT_SIZE } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import { errorCode, InlayError } from '../../errors.ts';
import type { PacketDevice } from '../device.ts';
import * as native from './native.ts';

const PATH = '/dev/net/tun';
const IFREQ_SIZE = 40; // struct ifreq, <linux/if.h>
const IFREQ_FLAGS = 16;

/** Creates the TUN device `name`, which goes when the descriptor is closed; returns the descriptor, non-blocking. */
export function openTun(name: string): number {
  let fd: number;
  try {
    fd = native.must(native.open(PATH, native.O_RDWR | native.O_CLOEXEC | native.O_NONBLOCK), 'open', PATH);
  } catch (cause) {
    const missing = ['ENOENT', 'ENODEV', 'ENXIO'].includes(errorCode(cause) ?? '');
    throw new InlayError(missing ? 'ERR_FAILED' : 'ERR_PERMISSION', `${PATH} cannot be opened: ${errorCode(cause)}`, {
      hint: missing
        ? 'modprobe tun; in a container, also hand the device in (--device /dev/net/tun)'
        : 'run as root, or let this user read and write /dev/net/tun',
      cause,
    });
  }
  const request = new Uint8Array(IFREQ_SIZE);
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(IFREQ_FLAGS, native.IFF_TUN | native.IFF_NO_PI, true);
  try {
    native.must(native.ioctl(fd, native.TUNSETIFF, request), 'TUNSETIFF', name);
  } catch (cause) {
    native.close(fd);
    const code = errorCode(cause);
    if (code === 'EPERM') {
      throw new InlayError('ERR_PERMISSION', `device ${name} cannot be made: CAP_NET_ADMIN is missing`, { cause });
    }
    const why =
      code === 'EBUSY'
        ? 'another process uses it'
        : code === 'EINVAL'
          ? 'a device of another kind has that name'
          : code;
    throw new InlayError('ERR_FAILED', `device ${name} cannot be made: ${why}`, {
      hint: `choose another name with --device, or look who has it: ip -d link show ${name}`,
      cause,
    });
  }
  return fd;
}

/** Packets to and from the kernel, one read(2) or write(2) each, straight in the core's memory. */
export class TunDevice implements PacketDevice {
  readonly #fd: number;
  readonly #base: native.Pointer;

  constructor(fd: number, core: PacketCore) {
    this.#fd = fd;
    this.#base = native.pointer(core.bytes);
  }

  read(core: PacketCore): number {
    for (let i = 0; i < BATCH_SIZE; i++) {
      const length = native.read(this.#fd, this.#base + core.slot(i), SLOT_SIZE - HEADROOM);
      if (length < 0) {
        const errno = native.errno();
        if (errno !== native.EAGAIN && errno !== native.EINTR) native.must(length, 'read', 'from the TUN device');
        return i;
      }
      core.describe(i, length);
    }
    return BATCH_SIZE;
  }

  write(core: PacketCore, count: number): number {
    let taken = 0;
    for (let i = 0; i < count; i++) {
      if (core.verdict(i) !== FORWARD) continue;
      if (native.write(this.#fd, this.#base + core.address(i), core.length(i)) < 0) core.refuse(i);
      else taken++;
    }
    return taken;
  }

  close(): void {
    native.close(this.#fd);
  }
}

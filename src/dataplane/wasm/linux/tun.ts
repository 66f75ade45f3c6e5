/** TUN device (Documentation/networking/tuntap.rst): the kernel's side of the overlay. */
import * as abi from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import { errorCode, InlayError } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import type { OverlayDevice } from '../device.ts';

const PATH = '/dev/net/tun';
const IFREQ_SIZE = 40; // struct ifreq, <linux/if.h>
const IFREQ_FLAGS = 16;

/** Bytes that one batch brings at most, about: what a core's cache holds next to everything else. */
const BATCH_BYTES = 256 << 10;
const MAX_READ = abi.SLOT_SIZE - abi.HEADROOM;

/**
 * Creates the TUN device `name`, which goes when its descriptors are closed; returns one non-blocking descriptor for each queue. With `virtio` each packet has
 * a virtio header before it.
 */
export function openTun(name: string, { queues = 1, virtio = false } = {}): number[] {
  const flags =
    native.IFF_TUN | native.IFF_NO_PI | (virtio ? native.IFF_VNET_HDR : 0) | (queues > 1 ? native.IFF_MULTI_QUEUE : 0);
  const fds: number[] = [];
  try {
    for (let i = 0; i < queues; i++) fds.push(openQueue(name, flags));
  } catch (error) {
    for (const fd of fds) native.close(fd);
    throw error;
  }
  return fds;
}

function openQueue(name: string, flags: number): number {
  let fd: number;
  try {
    fd = native.must(native.open(PATH, native.O_RDWR | native.O_CLOEXEC | native.O_NONBLOCK), 'open', PATH);
  } catch (cause) {
    throw openError(cause);
  }
  const request = new Uint8Array(IFREQ_SIZE);
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(IFREQ_FLAGS, flags, true);
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

function openError(cause: unknown): InlayError {
  const code = errorCode(cause);
  const message = `${PATH} cannot be opened: ${code}`;
  switch (code) {
    case 'EACCES': // By its mode: the hint is up to whoever knows what else is needed.
      return new InlayError('ERR_PERMISSION', message, { cause });
    case 'EPERM': // By the device controller of a control group.
      return new InlayError('ERR_PERMISSION', message, {
        hint: `let it in: docker run --device ${PATH}, or in a systemd unit DeviceAllow=${PATH} rw`,
        cause,
      });
    default:
      return new InlayError('ERR_FAILED', message, {
        hint: `modprobe tun; in a container, also hand the device in (--device ${PATH})`,
        cause,
      });
  }
}

/** Lets the kernel hand over super-packets and partial checksums; returns the OFFLOAD_ bits for the core. UDP needs Linux 6.2. */
export function enableOffloads(fd: number): number {
  const tcp = native.TUN_F_CSUM | native.TUN_F_TSO4 | native.TUN_F_TSO_ECN;
  const udp = native.TUN_F_USO4 | native.TUN_F_USO6;
  if (native.ioctlNumber(fd, native.TUNSETOFFLOAD, tcp | udp) === 0) return abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_MERGE;
  native.must(native.ioctlNumber(fd, native.TUNSETOFFLOAD, tcp), 'TUNSETOFFLOAD', 'of the TUN device');
  return abi.OFFLOAD_VIRTIO;
}

/** Packets to and from the kernel, with virtio headers, straight in the core's memory: one read(2) or writev(2) each. */
export class TunDevice implements OverlayDevice {
  readonly #fd: number;
  readonly #base: native.Pointer;

  constructor(fd: number, core: PacketCore) {
    this.#fd = fd;
    this.#base = native.pointer(core.bytes);
  }

  read(core: PacketCore): number {
    let count = 0;
    for (let bytes = 0; count < abi.BATCH_SIZE && bytes < BATCH_BYTES; count++) {
      // The packet itself begins at the slot's, so that it is aligned.
      const address = core.slot(count) - abi.VIRTIO_SIZE;
      const length = native.read(this.#fd, this.#base + address, MAX_READ);
      if (length < 0) {
        const errno = native.errno();
        if (errno !== native.EAGAIN && errno !== native.EINTR) native.must(length, 'read', 'from the TUN device');
        break;
      }
      core.describe(count, length, address);
      bytes += length;
    }
    return count;
  }

  write(core: PacketCore): void {
    const count = core.messageCount();
    for (let i = 0; i < count; i++) this.writeMessage(core, i);
  }

  writeMessage(core: PacketCore, message: number): void {
    if (!this.#take(core, message)) core.refuse(message);
  }

  reply(core: PacketCore): void {
    const first = abi.REPLY_PORT * abi.MESSAGES_PER_PORT;
    const count = core.messageCount(abi.REPLY_PORT);
    for (let i = first; i < first + count; i++) this.#take(core, i);
  }

  #take(core: PacketCore, message: number): boolean {
    const iovs = this.#base + abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE;
    return native.writev(this.#fd, iovs, core.messagePieces(message)) >= 0;
  }

  close(): void {
    native.close(this.#fd);
  }
}

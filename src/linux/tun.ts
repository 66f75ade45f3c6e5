/** Makes TUN devices (Documentation/networking/tuntap.rst). */
import { errorCode, InlayError } from '../errors.ts';
import * as native from './native.ts';

const PATH = '/dev/net/tun';
const IFREQ_SIZE = 40; // struct ifreq, <linux/if.h>
const IFREQ_FLAGS = 16;

/**
 * Creates the TUN device `name`, which goes when its descriptors are closed; returns one non-blocking
 * descriptor for each queue. With `virtio` each packet has a virtio header before it.
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
    case 'EMFILE':
      return new InlayError('ERR_FAILED', message, { hint: 'let this process open more files: ulimit -n', cause });
    default:
      return new InlayError('ERR_FAILED', message, {
        hint: `modprobe tun; in a container, also hand the device in (--device ${PATH})`,
        cause,
      });
  }
}

/**
 * Lets the kernel hand over super-packets (GSO) and open checksums. Returns whether UDP is among them, which
 * needs Linux 6.2.
 */
export function enableOffloads(fd: number): { udp: boolean } {
  const tcp = native.TUN_F_CSUM | native.TUN_F_TSO4 | native.TUN_F_TSO_ECN;
  const udp = native.TUN_F_USO4 | native.TUN_F_USO6;
  if (native.ioctlNumber(fd, native.TUNSETOFFLOAD, tcp | udp) === 0) return { udp: true };
  native.must(native.ioctlNumber(fd, native.TUNSETOFFLOAD, tcp), 'TUNSETOFFLOAD', 'of the TUN device');
  return { udp: false };
}

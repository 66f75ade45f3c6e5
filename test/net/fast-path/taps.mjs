/**
 * Joins two namespaces by a program that reads what the one's tap sends and writes it into the other's: node taps.mjs NAMESPACE NAMESPACE whole|cut. With `whole`
 * the kernel hands super-packets over as they are, with a virtio header; with `cut` each frame is a packet as on a wire, its checksums complete. Both taps are
 * called tap0. Prints `ready`, and goes on until its standard input ends; then how many frames were longer than 1,514 bytes.
 */
import koffi from 'koffi';
import { inNamespace } from '../../uml/sockets.mjs';

const lib = koffi.load(null);
const open = lib.func('int open(const char *path, int flags)');
const read = lib.func('intptr_t read(int fd, void *bytes, size_t count)');
const write = lib.func('intptr_t write(int fd, void *bytes, size_t count)');
const poll = lib.func('int poll(void *fds, unsigned long count, int timeout)');
const setInterface = lib.func('int ioctl(int fd, unsigned long request, void *argument)');
const setOffload = lib.func('int ioctl(int fd, unsigned long request, unsigned long argument)');

// <asm-generic/fcntl.h>, <asm-generic/poll.h>, <linux/if_tun.h>.
const [O_RDWR, O_NONBLOCK, O_CLOEXEC, POLLIN] = [2, 0o4000, 0o2000000, 1];
const [TUNSETIFF, TUNSETOFFLOAD] = [0x400454ca, 0x400454d0];
const [IFF_TAP, IFF_NO_PI, IFF_VNET_HDR] = [0x2, 0x1000, 0x4000];
const [TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO_ECN] = [0x1, 0x2, 0x8];
const [ETHERNET_FRAME, VIRTIO_SIZE, EAGAIN, EINTR] = [1514, 10, 11, 4];
/** ms until it looks whether it is to end. */
const LOOK = 50;

const [, , one, other, kind] = process.argv;
const isWhole = kind === 'whole';

function must(result, what) {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return Number(result);
}

function tapIn(namespace) {
  return inNamespace(namespace, () => {
    const fd = must(open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC), '/dev/net/tun');
    const request = new Uint8Array(40); // struct ifreq
    request.set(new TextEncoder().encode('tap0'));
    new DataView(request.buffer).setUint16(16, IFF_TAP | IFF_NO_PI | (isWhole ? IFF_VNET_HDR : 0), true);
    must(setInterface(fd, TUNSETIFF, request), 'TUNSETIFF');
    must(setOffload(fd, TUNSETOFFLOAD, isWhole ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN : 0), 'TUNSETOFFLOAD');
    return fd;
  });
}

const taps = [tapIn(one), tapIn(other)];
const frame = new Uint8Array(70_000);
let long = 0;

/** Hands on what there is. */
function relay(from, to) {
  for (;;) {
    const length = Number(read(from, frame, frame.length));
    if (length < 0) {
      if ([EAGAIN, EINTR].includes(koffi.errno())) return;
      must(length, 'read');
    }
    if (length - (isWhole ? VIRTIO_SIZE : 0) > ETHERNET_FRAME) long++;
    // A device that is down takes nothing, as a wire whose end is pulled.
    write(to, frame, length);
  }
}

let isOver = false;
process.stdin.resume().once('end', () => {
  isOver = true;
});
process.stdout.write('ready\n');
const fds = new DataView(new ArrayBuffer(16));
for (const [i, fd] of taps.entries()) {
  fds.setInt32(8 * i, fd, true);
  fds.setInt16(8 * i + 4, POLLIN, true);
}
while (!isOver) {
  poll(new Uint8Array(fds.buffer), 2, LOOK);
  relay(taps[0], taps[1]);
  relay(taps[1], taps[0]);
  await new Promise((resolve) => setImmediate(resolve));
}
process.stdout.write(`${long}\n`);
process.exit();

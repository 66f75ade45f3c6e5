/**
 * Lets the kernel forward packets: each line on standard input is one frame in hex, a virtio header and a packet, that comes in through
 * a device with offloads; each line on standard output is a list of the packets in hex that leave through a device without.
 * To be run in a network namespace of its own: argv[2] names the one that it may not be (readlink /proc/self/ns/net).
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import koffi from 'koffi';

const lib = koffi.load(null);
const open = lib.func('int open(const char *path, int flags)');
const read = lib.func('intptr_t read(int fd, void *bytes, size_t count)');
const write = lib.func('intptr_t write(int fd, void *bytes, size_t count)');
const poll = lib.func('int poll(void *fds, unsigned long count, int timeout)');
const setInterface = lib.func('int ioctl(int fd, unsigned long request, void *argument)');
const setOffload = lib.func('int ioctl(int fd, unsigned long request, unsigned long argument)');

// <asm-generic/fcntl.h>, <asm-generic/poll.h>, <linux/if_tun.h>
const [O_RDWR, O_NONBLOCK, O_CLOEXEC, POLLIN] = [2, 0o4000, 0o2000000, 1];
const [TUNSETIFF, TUNSETOFFLOAD] = [0x400454ca, 0x400454d0];
const [IFF_TUN, IFF_NO_PI, IFF_VNET_HDR] = [0x1, 0x1000, 0x4000];
const [TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6] = [0x1, 0x2, 0x8, 0x20, 0x40];

function must(result, what) {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

function openTun(name, flags, offloads) {
  const fd = must(open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC), '/dev/net/tun');
  const request = new Uint8Array(40); // struct ifreq
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(16, IFF_TUN | IFF_NO_PI | flags, true);
  must(setInterface(fd, TUNSETIFF, request), `TUNSETIFF ${name}`);
  // Kernels before 6.2 have no USO.
  if (offloads.every((offload) => setOffload(fd, TUNSETOFFLOAD, offload) < 0)) must(-1, `TUNSETOFFLOAD ${name}`);
  return fd;
}

if (readlinkSync('/proc/self/ns/net') === process.argv[2]) throw new Error('not in a namespace of its own');

writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
const TSO = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN;
const incoming = openTun('uncut', IFF_VNET_HDR, [TSO | TUN_F_USO4 | TUN_F_USO6, TSO]);
const outgoing = openTun('cut', 0, [0]);
writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
// Whatever comes in through one goes out through the other, wherever it claims to be from.
for (const name of ['all', 'uncut', 'cut']) writeFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, '0');
const setup = [
  'link set dev uncut mtu 65535 up',
  'link set dev cut mtu 65535 txqueuelen 2000 up',
  'route add 10.0.0.0/8 dev cut',
];
execFileSync('ip', ['-batch', '-'], { input: `${setup.join('\n')}\n` });

/** The last packet of each line, which says that all before it have come: an IPv4 header of protocol 253 (RFC 3692) without a payload. */
const sentinel = Buffer.from('00000000000000000000450000140000000040fd00000a0000010a000002', 'hex');
let sum = 0;
for (let i = 10; i < 30; i += 2) sum += sentinel.readUInt16BE(i);
sentinel.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 20);

const bytes = new Uint8Array(65536);
function packetsUntilSentinel() {
  const packets = [];
  for (;;) {
    const length = read(outgoing, bytes, bytes.length);
    if (length < 0) {
      const fds = new Uint8Array(8);
      new DataView(fds.buffer).setInt32(0, outgoing, true);
      new DataView(fds.buffer).setInt16(4, POLLIN, true);
      poll(fds, 1, -1);
      continue;
    }
    if (bytes[9] === 253) return packets;
    packets.push(Buffer.from(bytes.subarray(0, length)).toString('hex'));
  }
}

for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line === '') continue;
  const frame = Buffer.from(line, 'hex');
  // A frame that the kernel refuses makes no packet.
  write(incoming, frame, frame.length);
  must(write(incoming, sentinel, sentinel.length), 'write');
  process.stdout.write(`${JSON.stringify(packetsUntilSentinel())}\n`);
}

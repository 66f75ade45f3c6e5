/**
 * Sends the packets on standard input, one a line in hex. With an address in argv[2] they begin with their outer IPv4 header. With the name of a device they are
 * Ethernet frames; those of more than a page have nothing but the Ethernet header where the kernel looks first, so that it has to copy what is behind it. With a
 * number in argv[3], too, they are super-packets of TCP or UDP, to be cut into segments of so many bytes.
 */
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import koffi from 'koffi';

const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const setsockopt = lib.func('int setsockopt(int fd, int level, int name, void *value, unsigned int size)');
const ifNameToIndex = lib.func('unsigned int if_nametoindex(const char *name)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const [AF_INET, AF_PACKET, SOCK_RAW, IPPROTO_RAW, SOL_PACKET, PACKET_VNET_HDR] = [2, 17, 3, 255, 263, 15];
const [ETHERNET_HEADER, IPV4_HEADER] = [14, 20];
// <linux/virtio_net.h>, and the headers of TCP and UDP: their length, and where the checksum is.
const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
const SUPER_PACKETS = new Map([
  [6, { type: 1, header: 20, checksum: 16 }],
  [17, { type: 5, header: 8, checksum: 6 }],
]);

/** A socket, the address to send to, and what to put before each packet. */
function toAddress(text) {
  const address = Uint8Array.of(AF_INET, 0, 0, 0, ...text.split('.').map(Number), 0, 0, 0, 0, 0, 0, 0, 0);
  return { fd: socket(AF_INET, SOCK_RAW, IPPROTO_RAW), address, before: () => Buffer.alloc(0) };
}

function byDevice(name) {
  const fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, Int32Array.of(1), 4) < 0) throw new Error(`errno ${koffi.errno()}`);
  // struct sockaddr_ll (packet(7)).
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeInt32LE(ifNameToIndex(name), 4);
  return { fd, address, before: (frame) => virtio(frame, Number(segment)) };
}

/** struct virtio_net_hdr, whose hdr_len is what the kernel keeps in one piece. */
function virtio(frame, size) {
  const header = Buffer.alloc(10);
  const kind = size ? SUPER_PACKETS.get(frame[ETHERNET_HEADER + 9]) : undefined;
  header.writeUInt16LE(ETHERNET_HEADER + (kind ? IPV4_HEADER + kind.header : 0), 2);
  if (!kind) return header;
  header.set([VIRTIO_NET_HDR_F_NEEDS_CSUM, kind.type]);
  header.writeUInt16LE(size, 4);
  header.writeUInt16LE(ETHERNET_HEADER + IPV4_HEADER, 6);
  header.writeUInt16LE(kind.checksum, 8);
  return header;
}

const [, , where, segment = 0] = process.argv;
const { fd, address, before } = isIPv4(where) ? toAddress(where) : byDevice(where);
if (fd < 0) throw new Error(`socket: errno ${koffi.errno()}`);
let sent = 0;
for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line === '') continue;
  const bytes = Buffer.from(line, 'hex');
  const packet = Buffer.concat([before(bytes), bytes]);
  if (sendto(fd, packet, packet.length, 0, address, address.length) === packet.length) sent++;
}
process.stdout.write(`${sent}\n`);

/** Sockets in network namespaces: packet(7), what crosses the devices there, and packets sent as they are, however broken; raw(7), packets from anybody. */
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

const lib = koffi.load(null);
const setns = lib.func('int setns(int fd, int type)');
const socket = lib.func('int socket(int domain, int type, int protocol)');
const indexOf = lib.func('unsigned int if_nametoindex(const char *name)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const ioctl = lib.func('int ioctl(int fd, unsigned long request, void *record)');
const recvfrom = lib.func(
  'intptr_t recvfrom(int fd, void *packet, size_t length, int flags, void *address, void *size)',
);

const CLONE_NEWNET = 0x40000000;
const [AF_PACKET, SOCK_DGRAM, SOCK_RAW, MSG_DONTWAIT] = [17, 2, 3, 0x40];
const IPPROTO_RAW = 255;
const [ETH_P_ALL, ETH_P_IP] = [0x0003, 0x0800];
/** Also an error of `recvfrom`: there is nothing more. */
const EAGAIN = 11;
// struct sockaddr_ll (<linux/if_packet.h>).
const [PROTOCOL, IFINDEX, HATYPE, PKTTYPE, HALEN, ADDR, SIZE] = [2, 4, 8, 10, 11, 12, 20];
const PACKET_OUTGOING = 4;
/** The kind of a device of the kernel's GRE (<linux/if_arp.h>). */
export const ARPHRD_IPGRE = 778;

// <linux/sockios.h>, <linux/ethtool.h>.
const [AF_INET, SIOCETHTOOL, ETHTOOL_STXCSUM] = [2, 0x8946, 0x17];

function must(result, what) {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

/** Does something in a namespace. A namespace is that of a thread, and all calls here are made by one. */
export function inNamespace(name, work) {
  const [own, other] = [openSync('/proc/self/ns/net', 'r'), openSync(`/run/netns/${name}`, 'r')];
  must(setns(other, CLONE_NEWNET), `setns to ${name}`);
  try {
    return work();
  } finally {
    must(setns(own, CLONE_NEWNET), 'setns');
    closeSync(own);
    closeSync(other);
  }
}

/** Makes checksums complete on a device, which a veth leaves open otherwise. */
export function completeChecksums(namespace, device) {
  // struct ifreq { name, address of what is behind it }, and struct ethtool_value { command, data } in the same memory, which lives as long as the call.
  const request = Buffer.alloc(48);
  request.write(device);
  request.writeBigUInt64LE(BigInt(koffi.address(request)) + 40n, 16);
  request.writeUInt32LE(ETHTOOL_STXCSUM, 40);
  inNamespace(namespace, () => {
    const fd = must(socket(AF_INET, SOCK_DGRAM, 0), 'socket');
    must(ioctl(fd, SIOCETHTOOL, request), 'ioctl SIOCETHTOOL');
    closeSync(fd);
  });
}

/** Whole IPv4 packets that the kernel routes, whoever is their source; and what it receives of one protocol. */
export class RawSocket {
  #fd;
  #buffer = Buffer.alloc(65536);

  /** Without a protocol it only sends. */
  constructor(namespace, protocol = IPPROTO_RAW) {
    inNamespace(namespace, () => {
      this.#fd = must(socket(AF_INET, SOCK_RAW, protocol), 'socket');
    });
  }

  /** The kernel completes the header's checksum. */
  send(packet) {
    // struct sockaddr_in.
    const to = Buffer.alloc(16);
    to.writeUInt16LE(AF_INET);
    packet.copy(to, 4, 16, 20);
    must(sendto(this.#fd, packet, packet.length, 0, to, to.length), 'sendto');
  }

  /** Since the last call. */
  received() {
    const packets = [];
    for (;;) {
      const length = recvfrom(this.#fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT, null, null);
      if (length < 0 && koffi.errno() === EAGAIN) return packets;
      packets.push(Buffer.from(this.#buffer.subarray(0, Number(must(length, 'recvfrom')))));
    }
  }
}

/** Of one namespace and all its devices, without link layer headers. */
export class PacketSocket {
  #fd;
  #device;
  #buffer = Buffer.alloc(65536);
  #from = Buffer.alloc(SIZE);
  #size = Buffer.alloc(4);

  /** `device` is the one to send by. */
  constructor(namespace, device) {
    inNamespace(namespace, () => {
      // In network order.
      this.#fd = must(socket(AF_PACKET, SOCK_DGRAM, ETH_P_ALL << 8), 'socket');
      this.#device = indexOf(device);
    });
  }

  /** Sends bytes as the payload of an IPv4 frame to a link layer address. */
  send(packet, mac) {
    const to = Buffer.alloc(SIZE);
    to.writeUInt16LE(AF_PACKET);
    to.writeUInt16BE(ETH_P_IP, PROTOCOL);
    to.writeInt32LE(this.#device, IFINDEX);
    to.writeUInt8(mac.length, HALEN);
    to.set(mac, ADDR);
    must(sendto(this.#fd, packet, packet.length, 0, to, SIZE), 'sendto');
  }

  /** What devices have received since the last call: { bytes, kind }, where `kind` is that of the device. */
  received() {
    const packets = [];
    for (;;) {
      this.#size.writeUInt32LE(SIZE);
      const length = recvfrom(this.#fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT, this.#from, this.#size);
      if (length < 0 && koffi.errno() === EAGAIN) return packets;
      must(length, 'recvfrom');
      if (this.#from.readUInt8(PKTTYPE) === PACKET_OUTGOING) continue;
      packets.push({
        bytes: Buffer.from(this.#buffer.subarray(0, Number(length))),
        kind: this.#from.readUInt16LE(HATYPE),
      });
    }
  }
}

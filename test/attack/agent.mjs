/**
 * Sockets in all namespaces of a lab, held by one process that takes messages (test/net/faults/told.mjs): it
 * sends frames by a device, and tells which packets came by the devices that it watches, and which datagrams
 * came to the UDP port that it has in the VMs.
 */
import koffi from 'koffi';
import { inNamespace } from '../uml/sockets.mjs';

const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const bind = lib.func('int bind(int fd, void *address, unsigned int size)');
const listen = lib.func('int listen(int fd, int backlog)');
const setsockopt = lib.func('int setsockopt(int fd, int level, int name, void *value, unsigned int size)');
const indexOf = lib.func('unsigned int if_nametoindex(const char *name)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const recvfrom = lib.func(
  'intptr_t recvfrom(int fd, void *packet, size_t length, int flags, void *address, void *size)',
);

const [AF_INET, AF_PACKET, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, MSG_DONTWAIT] = [2, 17, 1, 2, 3, 0x40];
const [SOL_SOCKET, SO_RCVBUFFORCE, SOL_PACKET, PACKET_VNET_HDR, ETH_P_ALL] = [1, 33, 263, 15, 3];
const EAGAIN = 11;
// struct sockaddr_ll (<linux/if_packet.h>).
const [PROTOCOL, IFINDEX, PKTTYPE, SIZE] = [2, 4, 10, 20];
const PACKET_OUTGOING = 4;
/** Bytes of a packet that are told unless more is asked for; and of the memory for what was not yet asked for. */
const [SHOWN, ROOM] = [400, 64 << 20];

function must(result, what) {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return Number(result);
}

/** Does something in a namespace, the lab's own if it has no name. */
const within = (name, work) => (name === undefined ? work() : inNamespace(name, work));

/** By name: where to send. */
const senders = new Map();
/** What is asked for what came. */
const receivers = [];

function packetSocket(namespace, device, protocol) {
  return within(namespace, () => {
    const fd = must(socket(AF_PACKET, SOCK_RAW, 0), 'socket');
    const link = Buffer.alloc(SIZE);
    link.writeUInt16LE(AF_PACKET);
    link.writeUInt16BE(protocol, PROTOCOL);
    link.writeInt32LE(indexOf(device), IFINDEX);
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, Int32Array.of(ROOM), 4), 'SO_RCVBUFFORCE');
    if (protocol !== 0) must(bind(fd, link, SIZE), 'bind');
    return { fd, link };
  });
}

/** From now on `at` can send by this device, and what comes by it is told. */
function watch({ at, namespace, device, shown = SHOWN }) {
  receivers.push({ at, shown, ...packetSocket(namespace, device, ETH_P_ALL) });
  senders.set(at, packetSocket(namespace, device, 0));
  const large = packetSocket(namespace, device, 0);
  must(setsockopt(large.fd, SOL_PACKET, PACKET_VNET_HDR, Int32Array.of(1), 4), 'PACKET_VNET_HDR');
  senders.set(`${at} super-packets`, large);
}

/**
 * A namespace takes datagrams to a UDP port of any address of it, and connections to the TCP port of the same
 * number.
 */
function serve({ at, namespace, port, shown = SHOWN }) {
  const local = Uint8Array.of(AF_INET, 0, port >> 8, port & 255, ...new Uint8Array(12));
  within(namespace, () => {
    const datagrams = must(socket(AF_INET, SOCK_DGRAM, 0), 'socket');
    must(setsockopt(datagrams, SOL_SOCKET, SO_RCVBUFFORCE, Int32Array.of(ROOM), 4), 'SO_RCVBUFFORCE');
    must(bind(datagrams, local, local.length), `bind UDP ${port}`);
    receivers.push({ at, fd: datagrams, shown, isUdp: true });
    const stream = must(socket(AF_INET, SOCK_STREAM, 0), 'socket');
    must(bind(stream, local, local.length), `bind TCP ${port}`);
    must(listen(stream, 16), 'listen');
  });
}

/** Sends frames, a list of { at, hex }; resolves to how many the kernel refused. */
function send(frames) {
  let refused = 0;
  for (const { at, hex } of frames) {
    const { fd, link } = senders.get(at);
    const bytes = Buffer.from(hex, 'hex');
    if (Number(sendto(fd, bytes, bytes.length, 0, link, SIZE)) !== bytes.length) refused++;
  }
  return refused;
}

const buffer = Buffer.alloc(70_000);
const from = Buffer.alloc(SIZE);
const size = Buffer.alloc(4);

/** Everything that came since it was last asked for. */
function collect() {
  const seen = [];
  for (const { at, fd, shown, isUdp } of receivers) {
    for (;;) {
      size.writeUInt32LE(SIZE);
      const length = Number(recvfrom(fd, buffer, buffer.length, MSG_DONTWAIT, from, size));
      if (length < 0 && koffi.errno() === EAGAIN) break;
      must(length, `recvfrom at ${at}`);
      const hex = buffer.subarray(0, Math.min(length, shown)).toString('hex');
      if (isUdp) seen.push({ at, hex, length, datagramFrom: from.subarray(4, 8).join('.') });
      else if (from[PKTTYPE] !== PACKET_OUTGOING) seen.push({ at, hex, length });
    }
  }
  return seen;
}

const COMMANDS = { watch, serve, send, collect };
process.on('message', ([id, name, options]) => process.send([id, COMMANDS[name](options)]));
process.on('disconnect', () => process.exit());
process.send('ready');

/** Counts the IPv4 packets from or to 10.0.0.0/8 that are seen in plain on any device of this namespace; answers each message with their number and the last one. */
import koffi from 'koffi';
import { ALL, attachSocketFilter, JUMP_IF_EQUAL, LD_BYTE, RETURN } from '../../../dist/linux/socket-filter.js';

const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const getsockopt = lib.func('int getsockopt(int fd, int level, int name, void *value, void *size)');
const recv = lib.func('intptr_t recv(int fd, void *buffer, size_t length, int flags)');
const [AF_PACKET, SOCK_DGRAM, ETH_P_IP, MSG_DONTWAIT] = [17, 2, 0x0800, 0x40];
/** packet(7). */
const [SOL_PACKET, PACKET_STATISTICS] = [263, 6];
const OVERLAY = 10;
/** Where the addresses are in an IPv4 header, with which a packet begins here. */
const [SOURCE, DESTINATION] = [12, 16];

const fd = socket(AF_PACKET, SOCK_DGRAM, ((ETH_P_IP & 0xff) << 8) | (ETH_P_IP >> 8));
if (fd < 0) throw new Error(`socket: errno ${koffi.errno()}`);
attachSocketFilter(fd, [
  [LD_BYTE, SOURCE],
  [JUMP_IF_EQUAL, OVERLAY, 2],
  [LD_BYTE, DESTINATION],
  [JUMP_IF_EQUAL, OVERLAY, 0, 1],
  [RETURN, ALL],
  [RETURN, 0],
]);

let [packets, last] = [0, undefined];
process.on('message', ([id]) => {
  // struct tpacket_stats: those that the filter took, and how many of them were dropped for want of room. Asking begins anew.
  const statistics = new Uint32Array(2);
  getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, statistics, Uint32Array.of(8));
  packets += statistics[0];
  const packet = Buffer.alloc(64);
  while (recv(fd, packet, packet.length, MSG_DONTWAIT) > 0) {
    const address = (at) => packet.subarray(at, at + 4).join('.');
    last = `${address(SOURCE)} > ${address(DESTINATION)} protocol ${packet[9]}`;
  }
  process.send([id, { packets, last }]);
});
process.on('disconnect', () => process.exit());
process.send('ready');

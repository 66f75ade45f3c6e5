/**
 * Sends small UDP packets to containers of VMs that do not exist, to one after the other: node nobody.mjs VMS COUNT, COUNT to
 * each of the VMs 192.168.100.0, 192.168.100.1 and so on.
 */
import koffi from 'koffi';

const [vms, count] = process.argv.slice(2).map(Number);
const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const [AF_INET, SOCK_DGRAM] = [2, 2];

const fd = socket(AF_INET, SOCK_DGRAM, 0);
if (fd < 0) throw new Error(`socket: errno ${koffi.errno()}`);
const payload = Buffer.alloc(32, 'x');
const names = Array.from({ length: vms }, (_, i) =>
  // Port 9: discard.
  Uint8Array.of(AF_INET, 0, 0, 9, 10, 100 + (i >> 8), i & 255, 7, 0, 0, 0, 0, 0, 0, 0, 0),
);
for (let n = 0; n < count; n++) {
  for (const name of names) {
    if (sendto(fd, payload, payload.length, 0, name, name.length) < 0)
      throw new Error(`sendto: errno ${koffi.errno()}`);
  }
}

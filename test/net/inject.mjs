/** Sends the packets on standard input, one a line in hex, outer IPv4 header included, to the address in argv[2]. */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';

const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const [AF_INET, SOCK_RAW, IPPROTO_RAW] = [2, 3, 255];

const address = Uint8Array.of(AF_INET, 0, 0, 0, ...process.argv[2].split('.').map(Number), 0, 0, 0, 0, 0, 0, 0, 0);
const fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
if (fd < 0) throw new Error(`socket: errno ${koffi.errno()}`);
let sent = 0;
for (const line of readFileSync(0, 'utf8').split('\n')) {
  if (line === '') continue;
  const packet = Buffer.from(line, 'hex');
  if (sendto(fd, packet, packet.length, 0, address, address.length) === packet.length) sent++;
}
process.stdout.write(`${sent}\n`);

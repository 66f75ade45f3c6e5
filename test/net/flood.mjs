/**
 * Sends COUNT packets that no VM may accept to the VM at ADDRESS, of all shapes in turn, in GRE and in GRE-in-UDP: node flood.mjs ADDRESS SOCKET COUNT SEED.
 * No faster than the daemon, whose control socket is SOCKET, takes them. Prints how many of them each drop reason is to count.
 */
import http from 'node:http';
import koffi from 'koffi';

const [address, socketPath, count, seed] = process.argv.slice(2);
const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const sendto = lib.func(
  'intptr_t sendto(int fd, void *packet, size_t length, int flags, void *address, unsigned int size)',
);
const [AF_INET, SOCK_RAW, IPPROTO_RAW] = [2, 3, 255];
/** Packets that a socket buffer holds for sure. */
const BURST = 2000;

// The victim is VM 192.168.16.32, whose container is 10.16.32.91; 192.168.16.33 is another VM.
const [VICTIM, OTHER] = [0xc0a81020, 0xc0a81021];
const [OURS, THEIRS, THIRD] = [0x0a10205b, 0x0a102107, 0x0a102207];

let state = Number(seed) >>> 0 || 1;
function random(below) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}
const host = () => 2 + random(253);
/** An address outside of both networks that the kernel takes as a source. */
const outside = () => ((1 + random(9)) * 0x1000000 + random(0x1000000)) >>> 0;
const SCOPED = [0x7f000001, 0xe0000005, 0xffffffff, 0x00000001, 0xef010203];
const scoped = () => SCOPED[random(SCOPED.length)];

/** What makes each shape: outer source, inner source and destination, and the reason for which it is to be dropped. */
const SHAPES = [
  () => [OTHER, 0x0a102200 + host(), OURS, 'spoofed-source'], // a third VM's container
  () => [OTHER, 0x0a102000 + host(), OURS, 'spoofed-source'], // the victim's own container
  () => [OTHER, outside(), OURS, 'spoofed-source'], // nobody of the overlay: amplification, whose answer would go there
  () => [OTHER, scoped(), OURS, 'spoofed-source'],
  () => [0xc0a80000 + 0x2000 + random(0x8000), THEIRS, OURS, 'spoofed-source'], // a VM that the source is not on
  () => [outside(), THEIRS, OURS, 'foreign-underlay'], // no VM at all
  () => [OTHER, THEIRS, outside(), 'foreign-destination'], // one-way proxy (CVE-2020-10136)
  () => [OTHER, THEIRS, 0x0a102100 + host(), 'foreign-destination'], // ping-pong between two endpoints (CVE-2024-7595)
  () => [OTHER, THEIRS, THIRD, 'foreign-destination'], // on to a third VM: temporal lensing over chosen paths (CVE-2024-7595)
  () => [OTHER, THEIRS, VICTIM, 'foreign-destination'], // into the underlay
  () => [OTHER, THEIRS, scoped(), 'foreign-destination'],
  () => [OTHER, THEIRS, random(2) === 0 ? 0x0a102000 : 0x0a1020ff, 'reserved-address'],
  () => [OTHER, THEIRS, OURS, 'nested-gre', 47], // a tunnel in the tunnel
];

function ipv4(packet, at, length, protocol, source, destination) {
  packet.writeUInt16BE(0x4500, at);
  packet.writeUInt16BE(length, at + 2);
  packet.writeUInt32BE((random(0x10000) << 16) >>> 0, at + 4);
  packet.writeUInt16BE(0x4000 | protocol, at + 8);
  packet.writeUInt16BE(0, at + 10);
  packet.writeUInt32BE(source, at + 12);
  packet.writeUInt32BE(destination, at + 16);
  let sum = 0;
  for (let i = at; i < at + 20; i += 2) sum += packet.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, at + 10);
}

const buffer = Buffer.alloc(2048);
/** Writes the packet of a shape; answers its length and the reason. */
function make(shape) {
  const [outer, source, destination, reason, protocol = 17] = shape();
  const isUdp = random(2) === 0;
  const gre = isUdp ? 28 : 20;
  const inner = 28 + random(200);
  const length = gre + 4 + inner;
  ipv4(buffer, 0, length, isUdp ? 17 : 47, outer, VICTIM);
  if (isUdp) {
    buffer.writeUInt16BE(1024 + random(60000), 20);
    buffer.writeUInt16BE(4754, 22);
    buffer.writeUInt16BE(length - 20, 24);
    buffer.writeUInt16BE(0, 26); // no checksum
  }
  buffer.writeUInt32BE(0x0800, gre);
  ipv4(buffer, gre + 4, inner, protocol, source, destination);
  for (let i = gre + 24; i < length; i++) buffer[i] = random(256);
  return { length, reason };
}

function received() {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: '/status' }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => resolve(JSON.parse(Buffer.concat(chunks).toString()).inbound.received));
    });
    request.on('error', reject);
  });
}

const to = Uint8Array.of(AF_INET, 0, 0, 0, ...address.split('.').map(Number), 0, 0, 0, 0, 0, 0, 0, 0);
const fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
if (fd < 0) throw new Error(`socket: errno ${koffi.errno()}`);
const expected = {};
const start = await received();
for (let sent = 0; sent < Number(count); ) {
  for (const end = Math.min(sent + BURST, Number(count)); sent < end; sent++) {
    const { length, reason } = make(SHAPES[sent % SHAPES.length]);
    if (sendto(fd, buffer, length, 0, to, to.length) !== length) throw new Error(`sendto: errno ${koffi.errno()}`);
    expected[reason] = (expected[reason] ?? 0) + 1;
  }
  const deadline = performance.now() + 10_000;
  while ((await received()) < start + sent) {
    if (performance.now() > deadline)
      throw new Error(`${start + sent - (await received())} of ${sent} packets got lost`);
  }
}
process.stdout.write(JSON.stringify(expected));

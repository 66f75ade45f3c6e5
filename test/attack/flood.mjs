/**
 * Sends the frames on its standard input, one a line in hex, again and again by a device: node flood.mjs
 * DEVICE SECONDS RATE, as many a second as RATE says or as can be. `super` as the fourth word: each begins
 * with a virtio header. Prints how many were sent.
 */
import { readFileSync } from 'node:fs';
import koffi from 'koffi';

const lib = koffi.load(null);
const socket = lib.func('int socket(int domain, int type, int protocol)');
const bind = lib.func('int bind(int fd, void *address, unsigned int size)');
const setsockopt = lib.func('int setsockopt(int fd, int level, int name, void *value, unsigned int size)');
const indexOf = lib.func('unsigned int if_nametoindex(const char *name)');
const sendmmsg = lib.func('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)');
const [AF_PACKET, SOCK_RAW, SOL_PACKET, PACKET_VNET_HDR, PACKET_QDISC_BYPASS] = [17, 3, 263, 15, 20];
/** struct mmsghdr and struct iovec of 64-bit machines (<sys/socket.h>). */
const [MMSGHDR, IOVEC, IOV_AT, IOVLEN_AT] = [64, 16, 16, 24];
/** Frames that one call sends, at most; ms to wait where that was too early. */
const [BATCH, PAUSE] = [64, 0.2];

const [device, seconds, rate, kind] = process.argv.slice(2);
const frames = readFileSync(0, 'utf8')
  .trim()
  .split('\n')
  .map((line) => Buffer.from(line, 'hex'));
// A whole number of batches: each starts at a batch's beginning.
const count = Math.ceil(frames.length / BATCH) * BATCH;
const memory = Buffer.concat(frames);
const starts = [];
for (let i = 0, at = 0; i < frames.length; at += frames[i++].length) starts.push(at);
const vectors = Buffer.alloc(count * IOVEC);
const messages = Buffer.alloc(count * MMSGHDR);
const [base, vectorBase] = [BigInt(koffi.address(memory)), BigInt(koffi.address(vectors))];
for (let i = 0; i < count; i++) {
  const frame = i % frames.length;
  vectors.writeBigUInt64LE(base + BigInt(starts[frame]), i * IOVEC);
  vectors.writeBigUInt64LE(BigInt(frames[frame].length), i * IOVEC + 8);
  messages.writeBigUInt64LE(vectorBase + BigInt(i * IOVEC), i * MMSGHDR + IOV_AT);
  messages.writeBigUInt64LE(1n, i * MMSGHDR + IOVLEN_AT);
}

const fd = socket(AF_PACKET, SOCK_RAW, 0);
const link = Buffer.alloc(20);
link.writeUInt16LE(AF_PACKET);
link.writeInt32LE(indexOf(device), 4);
const option = kind === 'super' ? PACKET_VNET_HDR : PACKET_QDISC_BYPASS;
if (setsockopt(fd, SOL_PACKET, option, Int32Array.of(1), 4) < 0 || bind(fd, link, link.length) < 0)
  throw new Error(`errno ${koffi.errno()}`);

const clock = new Int32Array(new SharedArrayBuffer(4));
const address = Number(koffi.address(messages));
const [start, length] = [performance.now(), Number(seconds) * 1000];
let [sent, tried] = [0, 0];
for (let passed = 0; passed < length; passed = performance.now() - start) {
  if (tried >= (passed / 1000) * Number(rate)) {
    Atomics.wait(clock, 0, 0, PAUSE);
    continue;
  }
  const result = sendmmsg(fd, address + (tried % count) * MMSGHDR, BATCH, 0);
  if (result > 0) sent += result;
  tried += BATCH;
}
process.stdout.write(String(sent));

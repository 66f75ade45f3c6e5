/** The doorway to the system calls, through koffi; the only file that touches native code. */
import os from 'node:os';
import koffi from 'koffi';
import { InlayError } from '../errors.ts';
import { SystemError } from './system-error.ts';

// <asm-generic/fcntl.h>, <linux/socket.h>, <linux/sockios.h>, <linux/in.h>, <linux/udp.h>, <asm-generic/poll.h>, <sys/file.h>,
// <linux/if_tun.h>, <sys/eventfd.h>, <linux/prctl.h>, <linux/sched.h>, <linux/nsfs.h>, <linux/time.h>
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_NOCTTY = 0o400;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_REUSEPORT = 15;
export const SO_PEERCRED = 17;
export const SO_SNDTIMEO = 21;
export const SO_ATTACH_FILTER = 26;
export const SO_ATTACH_BPF = 50;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const IPPROTO_IP = 0;
export const IPPROTO_ICMP = 1;
export const IP_TOS = 1;
export const IP_TTL = 2;
export const IP_HDRINCL = 3;
export const IP_MTU_DISCOVER = 10;
export const IP_RECVTOS = 13;
export const IP_PMTUDISC_DONT = 0;
export const IP_PMTUDISC_PROBE = 3;
export const SOL_RAW = 255;
export const ICMP_FILTER = 1;
export const SOL_UDP = 17;
export const UDP_GRO = 104;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const POLLIN = 1;
export const POLLOUT = 4;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const PR_SET_KEEPCAPS = 8;
export const CLONE_NEWNET = 0x40000000;
export const NS_GET_NSTYPE = 0xb703;
const CLOCK_BOOTTIME = 7;
export const SIOCOUTQ = 0x5411;
export const TUNSETIFF = 0x400454ca;
export const IFF_TUN = 0x0001;
export const TUNSETOFFLOAD = 0x400454d0;
export const IFF_MULTI_QUEUE = 0x0100;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

// The C library that Node itself is linked with, whatever its name.
const lib = koffi.load(null);

/** An address in this process, as system calls take it. */
export type Pointer = number;

/**
 * The address of a view's first byte. It stays the same as long as the view lives: koffi moves small arrays
 * off the garbage-collected heap. The address does not keep the view alive, so keep a reference in a field or
 * a module for as long as the kernel uses the address. For memory that only one call looks at, use
 * `structure`.
 */
export function pointer(view: ArrayBufferView): Pointer {
  return Number(koffi.address(view));
}

/**
 * Memory for a C structure of `size` bytes with pointers in it. `pointed` has the bytes behind each pointer,
 * by the pointer's offset. Structure and bytes are one allocation, so nothing of it goes before the system
 * call that got `bytes` has come back. The `pointed` of the result are the copies, each aligned to 8 bytes.
 */
export function structure<Offset extends number>(
  size: number,
  pointed: Record<Offset, Uint8Array>,
): { bytes: Uint8Array<ArrayBuffer>; view: DataView<ArrayBuffer>; pointed: Record<Offset, Uint8Array<ArrayBuffer>> } {
  const aligned = (length: number) => Math.ceil(length / 8) * 8;
  const parts = Object.entries<Uint8Array>(pointed);
  const bytes = new Uint8Array(parts.reduce((sum, [, part]) => sum + aligned(part.length), aligned(size)));
  const view = new DataView(bytes.buffer, 0, size);
  const base = BigInt(pointer(bytes));
  const copies: Partial<Record<string, Uint8Array<ArrayBuffer>>> = {};
  let end = aligned(size);
  for (const [offset, part] of parts) {
    view.setBigUint64(Number(offset), base + BigInt(end), true);
    const copy = bytes.subarray(end, end + part.length);
    copy.set(part);
    copies[offset] = copy;
    end += aligned(part.length);
  }
  return { bytes, view, pointed: copies as Record<Offset, Uint8Array<ArrayBuffer>> };
}

export const open = lib.func('int open(const char *path, int flags)') as (path: string, flags: number) => number;
export const close = lib.func('int close(int fd)') as (fd: number) => number;
export const read = lib.func('intptr_t read(int fd, uintptr_t buf, size_t count)') as (
  fd: number,
  buf: Pointer,
  count: number,
) => number;
export const write = lib.func('intptr_t write(int fd, void *buf, size_t count)') as (
  fd: number,
  buf: ArrayBufferView,
  count: number,
) => number;
export const send = lib.func('intptr_t send(int fd, void *buf, size_t count, int flags)') as (
  fd: number,
  buf: ArrayBufferView,
  count: number,
  flags: number,
) => number;
export const ioctl = lib.func('int ioctl(int fd, unsigned long request, void *argument)') as (
  fd: number,
  request: number,
  argument: Uint8Array,
) => number;
/** ioctl(2) with a number as its argument. */
export const ioctlNumber = lib.func('int ioctl(int fd, unsigned long request, unsigned long argument)') as (
  fd: number,
  request: number,
  argument: number,
) => number;
export const writev = lib.func('intptr_t writev(int fd, uintptr_t iovs, int count)') as (
  fd: number,
  iovs: Pointer,
  count: number,
) => number;
export const socket = lib.func('int socket(int domain, int type, int protocol)') as (
  domain: number,
  type: number,
  protocol: number,
) => number;
export const bind = lib.func('int bind(int fd, void *address, unsigned int length)') as (
  fd: number,
  address: Uint8Array,
  length: number,
) => number;
export const connect = lib.func('int connect(int fd, void *address, unsigned int length)') as (
  fd: number,
  address: Uint8Array,
  length: number,
) => number;
export const getsockname = lib.func('int getsockname(int fd, void *address, void *length)') as (
  fd: number,
  address: Uint8Array,
  length: Uint8Array,
) => number;
export const setsockopt = lib.func('int setsockopt(int fd, int level, int name, void *value, unsigned int length)') as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: number,
) => number;
export const getsockopt = lib.func('int getsockopt(int fd, int level, int name, void *value, void *length)') as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: Uint8Array,
) => number;
export const sendmmsg = lib.func('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)') as (
  fd: number,
  messages: Pointer,
  count: number,
  flags: number,
) => number;
export const recvmmsg = lib.func(
  'int recvmmsg(int fd, uintptr_t messages, unsigned int count, int flags, uintptr_t timeout)',
) as (fd: number, messages: Pointer, count: number, flags: number, timeout: number) => number;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const mmap = lib.func(
  'intptr_t mmap(uintptr_t near, size_t size, int protection, int flags, int fd, intptr_t offset)',
) as (near: Pointer, size: number, protection: number, flags: number, fd: number, offset: number) => number;
const munmap = lib.func('int munmap(uintptr_t address, size_t size)') as (address: Pointer, size: number) => number;
/** `size` bytes of what `fd` stands for, as they are at any time. After `unmap` nothing may look at them. */
export function mapped(
  fd: number,
  size: number,
  what: string,
  isWritable = false,
): { bytes: ArrayBuffer; unmap: () => void } {
  const protection = isWritable ? PROT_READ | PROT_WRITE : PROT_READ;
  const address = must(mmap(0, size, protection, MAP_SHARED, fd, 0), 'mmap', what);
  return { bytes: koffi.view(BigInt(address), size), unmap: () => must(munmap(address, size), 'munmap', what) };
}
const pollFunction = lib.func('int poll(uintptr_t fds, unsigned long count, int timeout)');
export const poll = pollFunction as (fds: Pointer, count: number, timeout: number) => number;
/** poll(2) in a thread of Node's pool. */
export function pollAsync(fds: Pointer, count: number, timeout: number, done: () => void): void {
  pollFunction.async(fds, count, timeout, done);
}
export const schedYield = lib.func('int sched_yield()') as () => number;
export const eventfd = lib.func('int eventfd(unsigned int initial, int flags)') as (
  initial: number,
  flags: number,
) => number;
/** setns(2): the calling thread is in another namespace from then on. */
export const setns = lib.func('int setns(int fd, int kind)') as (fd: number, kind: number) => number;
const clockGettime = lib.func('int clock_gettime(int clock, void *time)') as (
  clock: number,
  time: Uint8Array,
) => number;
/** Seconds since the machine was started, those in which it slept included (CLOCK_BOOTTIME, time(7)). */
export function secondsSinceBoot(): number {
  const time = new Uint8Array(16);
  must(clockGettime(CLOCK_BOOTTIME, time), 'clock_gettime', 'of CLOCK_BOOTTIME');
  return Number(new DataView(time.buffer).getBigInt64(0, true));
}
/** if_nametoindex(3): 0 if there is no such device. */
export const ifNameToIndex = lib.func('unsigned int if_nametoindex(const char *name)') as (name: string) => number;
export const syscall = lib.func('long syscall(long number, int command, void *attributes, unsigned int size)') as (
  number: number,
  command: number,
  attributes: Uint8Array,
  size: number,
) => number;
export const flock = lib.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;
export const prctl = lib.func('int prctl(int option, unsigned long argument)') as (
  option: number,
  argument: number,
) => number;
/** capset(2), for the calling thread. */
export const capset = lib.func('int capset(void *header, void *data)') as (
  header: Uint8Array,
  data: Uint8Array,
) => number;

/** alarm(2): SIGALRM after so many seconds, which ends the process whatever its threads do. */
export const alarm = lib.func('unsigned int alarm(unsigned int seconds)') as (seconds: number) => number;
/** _exit(2): ends the process at once, without waiting for its threads. */
export const exitNow = lib.func('void _exit(int status)') as (status: number) => void;

/** Throws ERR_FAILED where the structures that the linux engine fills look different. */
export function requireLinux64(): void {
  if (os.platform() === 'linux' && os.endianness() === 'LE' && koffi.sizeof('void *') === 8) return;
  throw new InlayError(
    'ERR_FAILED',
    `no linux engine on ${os.platform()} ${os.arch()}: expected 64-bit little-endian Linux`,
    { hint: '--engine portable' },
  );
}

/** The last call's errno as a number: cheaper than its name. */
export function errno(): number {
  return koffi.errno();
}

export const { EADDRINUSE, EAGAIN, ECONNREFUSED, EINTR, EINVAL, EIO, EMSGSIZE, ENOSPC } = os.constants.errno;

/** Throws the last call's error if `result` is negative; else returns it. `what` says on what it was done. */
export function must(result: number, syscall: string, what: string): number {
  if (result < 0) throw new SystemError(syscall, koffi.errno(), what);
  return result;
}

/** A C int, in memory. */
export function int(value: number): Uint8Array {
  return new Uint8Array(Int32Array.of(value).buffer);
}

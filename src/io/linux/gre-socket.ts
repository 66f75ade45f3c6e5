/** Raw socket (raw(7)) for IP protocol 47: whole packets, outer IPv4 header included, in batches. */

import { rawSocketError } from '../../capabilities.ts';
import { BATCH_SIZE, FORWARD, HEADROOM, SLOT_SIZE } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { PacketDevice } from '../device.ts';
import * as native from './native.ts';

// struct mmsghdr, struct iovec and struct sockaddr_in of a 64-bit Linux, offsets in 32-bit words.
const MESSAGE_WORDS = 16;
const MESSAGE_NAME = 0;
const MESSAGE_NAME_LENGTH = 2;
const MESSAGE_IOV = 4;
const MESSAGE_IOV_COUNT = 6;
const MESSAGE_LENGTH = 14;
const IOV_WORDS = 4;
const IOV_BASE = 0;
const IOV_LENGTH = 2;
const SOCKADDR_WORDS = 4;
const SOCKADDR_ADDRESS = 1;
const SOCKADDR_SIZE = 16;

/** Bytes each socket buffer may hold: bursts of many VMs at once. */
const SOCKET_BUFFER = 8 << 20;

/** Opens a socket for GRE packets to and from `local`, a u32 number; returns the descriptor. */
export function openGreSocket(local: number): number {
  let fd: number;
  try {
    fd = native.must(
      native.socket(native.AF_INET, native.SOCK_RAW | native.SOCK_CLOEXEC, native.IPPROTO_GRE),
      'socket',
      'for IP protocol 47',
    );
  } catch (cause) {
    throw rawSocketError(cause);
  }
  const address = new Uint8Array(SOCKADDR_SIZE);
  const view = new DataView(address.buffer);
  view.setUint16(0, native.AF_INET, true);
  view.setUint32(4, local);
  native.must(native.bind(fd, address, SOCKADDR_SIZE), 'bind', 'to the underlay address');
  native.must(
    native.setsockopt(fd, native.IPPROTO_IP, native.IP_HDRINCL, native.int(1), 4),
    'setsockopt',
    'IP_HDRINCL',
  );
  for (const option of [native.SO_SNDBUFFORCE, native.SO_RCVBUFFORCE]) {
    // Only a wish: without CAP_NET_ADMIN the system's default size stays.
    native.setsockopt(fd, native.SOL_SOCKET, option, native.int(SOCKET_BUFFER), 4);
  }
  return fd;
}

/** A table of `struct mmsghdr`, each with one iovec and one address. */
class Messages {
  readonly words = new Uint32Array(BATCH_SIZE * MESSAGE_WORDS);
  readonly iovs = new Uint32Array(BATCH_SIZE * IOV_WORDS);
  readonly names = new Uint32Array(BATCH_SIZE * SOCKADDR_WORDS);
  readonly pointer = native.pointer(this.words);

  constructor() {
    const iovs = native.pointer(this.iovs);
    const names = native.pointer(this.names);
    for (let i = 0; i < BATCH_SIZE; i++) {
      const m = i * MESSAGE_WORDS;
      putPointer(this.words, m + MESSAGE_NAME, names + i * SOCKADDR_SIZE);
      this.words[m + MESSAGE_NAME_LENGTH] = SOCKADDR_SIZE;
      putPointer(this.words, m + MESSAGE_IOV, iovs + i * IOV_WORDS * 4);
      this.words[m + MESSAGE_IOV_COUNT] = 1;
      this.names[i * SOCKADDR_WORDS] = native.AF_INET;
    }
  }
}

export class GreSocket implements PacketDevice {
  readonly #fd: number;
  readonly #base: native.Pointer;
  readonly #outgoing = new Messages();
  readonly #incoming = new Messages();
  /** Which packet each outgoing message carries. */
  readonly #packets = new Uint16Array(BATCH_SIZE);

  constructor(fd: number, core: PacketCore) {
    this.#fd = fd;
    this.#base = native.pointer(core.bytes);
    for (let i = 0; i < BATCH_SIZE; i++) {
      putPointer(this.#incoming.iovs, i * IOV_WORDS + IOV_BASE, this.#base + core.slot(i));
      this.#incoming.iovs[i * IOV_WORDS + IOV_LENGTH] = SLOT_SIZE - HEADROOM;
    }
  }

  read(core: PacketCore): number {
    const { words, pointer } = this.#incoming;
    const count = native.recvmmsg(this.#fd, pointer, BATCH_SIZE, native.MSG_DONTWAIT, 0);
    for (let i = 0; i < count; i++) {
      core.describe(i, words[i * MESSAGE_WORDS + MESSAGE_LENGTH] as number);
      words[i * MESSAGE_WORDS + MESSAGE_NAME_LENGTH] = SOCKADDR_SIZE;
    }
    return Math.max(count, 0);
  }

  write(core: PacketCore, count: number): number {
    const total = this.#fill(core, count);
    const { pointer } = this.#outgoing;
    let taken = 0;
    for (let i = 0; i < total; ) {
      const sent = native.sendmmsg(this.#fd, pointer + i * MESSAGE_WORDS * 4, total - i, native.MSG_DONTWAIT);
      if (sent > 0) {
        i += sent;
        taken += sent;
        continue;
      }
      // A full socket takes none of the rest; any other error, such as EMSGSIZE, is about the first message alone.
      const end = native.errno() === native.EAGAIN ? total : i + 1;
      for (; i < end; i++) core.refuse(this.#packets[i] as number);
    }
    return taken;
  }

  /** Lets one message after the other point to a packet that is to be forwarded; returns their number. */
  #fill(core: PacketCore, count: number): number {
    const { iovs, names } = this.#outgoing;
    let n = 0;
    for (let i = 0; i < count; i++) {
      if (core.verdict(i) !== FORWARD) continue;
      putPointer(iovs, n * IOV_WORDS + IOV_BASE, this.#base + core.address(i));
      iovs[n * IOV_WORDS + IOV_LENGTH] = core.length(i);
      names[n * SOCKADDR_WORDS + SOCKADDR_ADDRESS] = core.peer(i);
      this.#packets[n++] = i;
    }
    return n;
  }

  close(): void {
    native.close(this.#fd);
  }
}

/** Stores a 64-bit pointer as two words, so that no BigInt is made. */
function putPointer(words: Uint32Array, at: number, value: native.Pointer): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

/** What the underlay sockets have in common: batches of messages by sendmmsg(2) and recvmmsg(2), in arrays that are filled once. */

import * as abi from '../../../core/abi.ts';
import { networkOrder } from '../../../core/address.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import { rawSocketError } from '../raw-socket-error.ts';
import type { SegmentSizes } from './segment-sizes.ts';

// struct mmsghdr, struct iovec, struct sockaddr_in and struct cmsghdr of a 64-bit Linux, offsets in 32-bit words; as in src/core/abi.ts.
const MESSAGE_WORDS = abi.MESSAGE_SIZE / 4;
const IOV_WORDS = abi.IOV_SIZE / 4;
const NAME_WORDS = abi.NAME_SIZE / 4;
/** Room for two control messages with an int each: UDP_GRO and IP_TOS. CMSG_SPACE(4), CMSG_LEN(1) and so on (cmsg(3)) are rounded up to 24. */
const ITEM_BYTES = 24;
const ITEM_WORDS = ITEM_BYTES / 4;
const CONTROL_BYTES = 2 * ITEM_BYTES;
const CONTROL_WORDS = CONTROL_BYTES / 4;

/** Bytes each socket buffer may hold: bursts of many VMs at once. */
const SOCKET_BUFFER = 8 << 20;

/** A `struct sockaddr_in`; `address` is a u32 number. */
export function socketAddress(address: number, port: number): Uint8Array {
  const bytes = new Uint8Array(abi.NAME_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(abi.NAME_FAMILY, native.AF_INET, true);
  view.setUint16(abi.NAME_PORT, port);
  view.setUint32(abi.NAME_ADDRESS, address);
  return bytes;
}

/** Opens a raw socket (raw(7)) for what comes to `local`, a u32 number, in this IP protocol; returns the descriptor. */
export function openRawSocket(local: number, protocol: number): number {
  let fd: number;
  try {
    const type = native.SOCK_RAW | native.SOCK_CLOEXEC;
    fd = native.must(native.socket(native.AF_INET, type, protocol), 'socket', `for IP protocol ${protocol}`);
  } catch (cause) {
    throw rawSocketError(cause);
  }
  return prepared(fd, () => {
    const address = socketAddress(local, 0);
    native.must(native.bind(fd, address, address.length), 'bind', 'to the underlay address');
  });
}

/** The descriptor after `prepare`; closed if that throws. */
export function prepared(fd: number, prepare: () => void): number {
  try {
    prepare();
    return fd;
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/** Sets an int option; throws if the kernel refuses it. */
export function setOption(fd: number, level: number, option: number, value: number, name: string): void {
  native.must(native.setsockopt(fd, level, option, native.int(value), 4), 'setsockopt', name);
}

/** Asks for large buffers. Only a wish: without CAP_NET_ADMIN the system's default size stays. */
export function enlargeBuffers(fd: number): void {
  for (const option of [native.SO_SNDBUFFORCE, native.SO_RCVBUFFORCE]) {
    native.setsockopt(fd, native.SOL_SOCKET, option, native.int(SOCKET_BUFFER), 4);
  }
}

/** Receives messages into the core's slots, one each. */
export class Receiver {
  readonly #fd: number;
  readonly #capacity: number;
  readonly #messages: Uint32Array;
  readonly #names: Uint32Array;
  readonly #controls: Int32Array;
  readonly #pointer: native.Pointer;
  /** Whether the last call took as many messages as it might. */
  more = false;

  /** Takes up to `capacity` messages at once. */
  constructor(fd: number, core: PacketCore, capacity: number) {
    this.#fd = fd;
    this.#capacity = capacity;
    this.#messages = new Uint32Array(capacity * MESSAGE_WORDS);
    this.#names = new Uint32Array(capacity * NAME_WORDS);
    this.#controls = new Int32Array(capacity * CONTROL_WORDS);
    this.#pointer = native.pointer(this.#messages);
    const base = native.pointer(core.bytes);
    const [names, controls] = [native.pointer(this.#names), native.pointer(this.#controls)];
    this.#iovs = new Uint32Array(capacity * IOV_WORDS);
    const iovs = native.pointer(this.#iovs);
    for (let i = 0; i < capacity; i++) {
      const m = i * MESSAGE_WORDS;
      putPointer(this.#messages, m + abi.MESSAGE_NAME / 4, names + i * abi.NAME_SIZE);
      putPointer(this.#messages, m + abi.MESSAGE_IOV / 4, iovs + i * abi.IOV_SIZE);
      this.#messages[m + abi.MESSAGE_IOV_COUNT / 4] = 1;
      putPointer(this.#messages, m + abi.MESSAGE_CONTROL / 4, controls + i * CONTROL_BYTES);
      putPointer(this.#iovs, i * IOV_WORDS, base + core.slot(i));
      this.#iovs[i * IOV_WORDS + abi.IOV_LENGTH / 4] = abi.SLOT_SIZE - abi.HEADROOM;
      this.rearm(i);
    }
  }

  /** The kernel reads these only through pointers: the field keeps them alive. */
  readonly #iovs: Uint32Array;

  /** Receives what waits, up to `most` messages; returns how many that are. */
  receive(most = this.#capacity): number {
    const count = native.recvmmsg(this.#fd, this.#pointer, most, native.MSG_DONTWAIT, 0);
    this.more = count === most;
    return Math.max(count, 0);
  }

  /** Receives what waits on a raw socket, where a message is a packet, and describes it to the core; returns how many. */
  receivePackets(core: PacketCore, sizes?: SegmentSizes): number {
    const count = this.receive();
    const unmerged = sizes === undefined ? 0 : abi.NOT_MERGED;
    const mayBeMerged = sizes?.mayBeMerged(count < this.#capacity);
    for (let i = 0; i < count; i++) {
      const address = core.slot(i);
      const length = this.length(i);
      core.describe(i, length, address, mayBeMerged ? sizes?.of(address, length) : unmerged);
      this.rearm(i);
    }
    return count;
  }

  /** Bytes of message `i`. */
  length(i: number): number {
    return this.#messages[i * MESSAGE_WORDS + abi.MESSAGE_LENGTH / 4] as number;
  }

  /** The address of who sent message `i`. */
  peer(i: number): number {
    return networkOrder(this.#names[i * NAME_WORDS + abi.NAME_ADDRESS / 4] as number);
  }

  /** Bytes of each datagram in message `i`, if UDP_GRO put several together; else its length. */
  segment(i: number): number {
    return this.#control(i, native.SOL_UDP, native.UDP_GRO) ?? this.length(i);
  }

  /** Type of service of message `i`, if the socket was asked for it; else 0. */
  tos(i: number): number {
    return (this.#control(i, native.IPPROTO_IP, native.IP_TOS) ?? 0) & 0xff; // A byte: what lies behind it is older.
  }

  /** The value of a control message of message `i`, if there is one; the kernel writes them one after the other. */
  #control(i: number, level: number, type: number): number | undefined {
    const filled = this.#messages[i * MESSAGE_WORDS + abi.MESSAGE_CONTROL_LENGTH / 4] as number;
    for (let n = 0; (n + 1) * ITEM_BYTES <= filled; n++) {
      const c = i * CONTROL_WORDS + n * ITEM_WORDS;
      if (this.#controls[c + 2] === level && this.#controls[c + 3] === type) return this.#controls[c + 4];
    }
    return undefined;
  }

  /** Makes message `i` ready for the next `receive`: recvmmsg(2) overwrites both lengths. */
  rearm(i: number): void {
    this.#messages[i * MESSAGE_WORDS + abi.MESSAGE_NAME_LENGTH / 4] = abi.NAME_SIZE;
    this.#messages[i * MESSAGE_WORDS + abi.MESSAGE_CONTROL_LENGTH / 4] = CONTROL_BYTES;
  }
}

/** Stores a 64-bit pointer as two words, so that no BigInt is made. */
function putPointer(words: Uint32Array, at: number, value: native.Pointer): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

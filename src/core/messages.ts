/** Messages: what the last call made of packets, for the host to write. Read from the records that docs/abi.md describes. */
import * as abi from './abi.ts';
import { networkOrder } from './address.ts';

const MESSAGE_WORDS = abi.MESSAGE_SIZE / 4;
const FIRST_SLOT = abi.SLOTS + abi.HEADROOM;

export class Messages {
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;

  constructor(memory: ArrayBuffer) {
    this.#bytes = new Uint8Array(memory);
    this.#words = new Uint32Array(memory);
  }

  /** All messages of the last call but replies, port by port; allocates, so it is not for the fast path. */
  all(): number[] {
    return Array.from({ length: abi.MAX_PORTS }, (_, port) => this.#of(port)).flat();
  }

  /** The last call's ICMP messages to containers: to be written to the overlay device, after `all`. */
  replies(): number[] {
    return this.#of(abi.REPLY_PORT);
  }

  /** The replies have been written. */
  forgetReplies(): void {
    this.#words[abi.MESSAGE_COUNTS / 4 + abi.REPLY_PORT] = 0;
  }

  #of(port: number): number[] {
    return Array.from({ length: this.count(port) }, (_, i) => port * abi.MESSAGES_PER_PORT + i);
  }

  /** How many messages the last call made for `port`; they begin with message `port * MESSAGES_PER_PORT`. */
  count(port = 0): number {
    return this.#words[abi.MESSAGE_COUNTS / 4 + port] as number;
  }

  /** How many pieces a message has. */
  pieces(message: number): number {
    return this.#field(message, abi.MESSAGE_IOV_COUNT);
  }

  /** Bytes of a message. */
  length(message: number): number {
    return this.#field(message, abi.MESSAGE_LENGTH);
  }

  /** A copy of a message's bytes. */
  bytes(message: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.length(message));
    const pieces = this.pieces(message);
    const base = this.#words[(abi.CONFIG + abi.CONFIG_BASE) / 4] as number;
    for (let i = 0, at = 0; i < pieces; i++) {
      const iov = (abi.IOVS + (message * abi.IOVS_PER_MESSAGE + i) * abi.IOV_SIZE) / 4;
      // Memory is less than 4 GiB: the low words tell how far a pointer is from the base.
      const from = ((this.#words[iov] as number) - base) >>> 0;
      const length = this.#words[iov + abi.IOV_LENGTH / 4] as number;
      bytes.set(this.#bytes.subarray(from, from + length), at);
      at += length;
    }
    return bytes;
  }

  /** Bytes of each datagram in a message of GRE-in-UDP, but the last. */
  segment(message: number): number {
    if (this.#field(message, abi.MESSAGE_CONTROL_LENGTH) === 0) return this.length(message);
    const segment = (this.#control(message, abi.CONTROL_SEGMENT) as number) & 0xffff;
    return segment === 0 ? this.length(message) : segment;
  }

  /** Type of service and time to live of a message of GRE-in-UDP, for its outer IPv4 header; undefined where that is as usual. */
  tos(message: number): number | undefined {
    const length = this.#field(message, abi.MESSAGE_CONTROL_LENGTH);
    return length > abi.CONTROL_ITEM_SIZE ? this.#control(message, abi.CONTROL_TOS) : undefined;
  }

  ttl(message: number): number | undefined {
    const length = this.#field(message, abi.MESSAGE_CONTROL_LENGTH);
    return length > 2 * abi.CONTROL_ITEM_SIZE ? this.#control(message, abi.CONTROL_TTL) : undefined;
  }

  #control(message: number, field: number): number {
    return this.#words[(abi.CONTROLS + message * abi.CONTROL_SIZE + field) / 4] as number;
  }

  /** The underlay address of the VM that a message is for. */
  peer(message: number): number {
    return networkOrder(this.#words[(abi.NAMES + message * abi.NAME_SIZE + abi.NAME_ADDRESS) / 4] as number);
  }

  /** Packets that a message carries, and their bytes. */
  content(message: number): { packets: number; bytes: number } {
    const content = (abi.CONTENTS + message * abi.CONTENT_SIZE) / 4;
    return { packets: this.#words[content] as number, bytes: this.#words[content + 1] as number };
  }

  /** Whether a message is a super-packet that is to be written to the overlay device. */
  isWhole(message: number): boolean {
    return (this.#flags(message) & abi.FLAG_WHOLE) !== 0;
  }

  /** Whether an outbound message goes to a VM that nothing was ever heard of. */
  isUnheard(message: number): boolean {
    return (this.#flags(message) & abi.FLAG_UNHEARD) !== 0;
  }

  #flags(message: number): number {
    return this.#words[(abi.CONTENTS + message * abi.CONTENT_SIZE + abi.CONTENT_FLAGS) / 4] as number;
  }

  #field(message: number, field: number): number {
    return this.#words[abi.MESSAGE_TABLE / 4 + message * MESSAGE_WORDS + field / 4] as number;
  }

  /** Where the container's packet lies that an outbound message is made of, or begins with; 0 for an inbound message. */
  packet(message: number): number {
    return this.#words[(abi.CONTENTS + message * abi.CONTENT_SIZE + abi.CONTENT_PACKET) / 4] as number;
  }

  /**
   * Makes a container's packet that an earlier call has encapsulated for `vm` message 0 again, the only one, so that `refuse` can be told of it: for hosts that hear
   * only later that it was not sent. It takes the first slot.
   */
  recall(vm: number, packet: Uint8Array): void {
    this.#bytes.set(packet, FIRST_SLOT);
    this.#words.fill(0, abi.MESSAGE_COUNTS / 4, abi.MESSAGE_COUNTS / 4 + abi.MAX_PORTS + 1);
    this.#words[abi.MESSAGE_COUNTS / 4] = 1;
    this.#words[(abi.NAMES + abi.NAME_ADDRESS) / 4] = networkOrder(vm);
    this.#words.set([1, packet.length, 0, FIRST_SLOT], abi.CONTENTS / 4);
  }
}

/** Batches of messages to a socket by sendmmsg(2). */
import * as abi from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import { SendRoom } from './send-room.ts';

export interface SendListeners {
  /** Told the errno for each message that was not taken. */
  onRefused: (errno: number, message: number) => void;
  /** Told that messages `first` to `end` - 1 were. */
  onSent: (first: number, end: number) => void;
}

/** Bytes that the kernel takes for a small packet beside what is in it: a `struct sk_buff`, a `struct skb_shared_info`, and room for headers. */
const KERNEL_BYTES = 768;

export class Sender {
  readonly #fd: number;
  readonly #core: PacketCore;
  readonly #base: native.Pointer;
  readonly #listeners: SendListeners;
  readonly #room: SendRoom;

  /** `listeners` hear which messages were sent. */
  constructor(fd: number, core: PacketCore, listeners: SendListeners) {
    this.#fd = fd;
    this.#core = core;
    this.#base = native.pointer(core.bytes);
    this.#listeners = listeners;
    this.#room = new SendRoom(fd);
  }

  /** Sends the core's messages `first` to `end` - 1; those to VMs never heard from only if that leaves room for the others. */
  send(first: number, end: number): void {
    const bytes = this.#unheardBytes(first, end);
    if (bytes === 0 || this.#room.has(bytes, performance.now())) this.#send(first, end);
    else this.#sendHeard(first, end);
  }

  /** What the messages to VMs never heard from take of the send buffer, about. */
  #unheardBytes(first: number, end: number): number {
    const core = this.#core;
    let bytes = 0;
    for (let i = first; i < end; i++) if (core.messages.isUnheard(i)) bytes += core.messages.length(i) + KERNEL_BYTES;
    return bytes;
  }

  /** Refuses the messages to VMs never heard from, as a full socket would. */
  #sendHeard(first: number, end: number): void {
    const core = this.#core;
    for (let i = first, next = first; i < end; i = next) {
      while (next < end && !core.messages.isUnheard(next)) next++;
      if (next > i) this.#send(i, next);
      for (; next < end && core.messages.isUnheard(next); next++) this.#listeners.onRefused(native.EAGAIN, next);
    }
  }

  #send(first: number, end: number): void {
    const { onRefused, onSent } = this.#listeners;
    for (let i = first; i < end; ) {
      const table = this.#base + abi.MESSAGE_TABLE + i * abi.MESSAGE_SIZE;
      const sent = native.sendmmsg(this.#fd, table, end - i, native.MSG_DONTWAIT);
      if (sent > 0) {
        onSent(i, i + sent);
        i += sent;
        continue;
      }
      // A full socket takes none of the rest; any other error, such as EMSGSIZE, is about the first message alone.
      const errno = native.errno();
      for (const stop = errno === native.EAGAIN ? end : i + 1; i < stop; i++) onRefused(errno, i);
    }
  }
}

/** A netlink socket of the fake kernel. */
import os from 'node:os';
import { Writer } from '../../src/linux/netlink/codec.ts';
import { type Message, messagesIn } from '../../src/linux/netlink/message.ts';
import type { Transport } from '../../src/linux/netlink/transport.ts';
import { SystemError } from '../../src/linux/system-error.ts';

const { EBADF, ENOBUFS } = os.constants.errno;

/** Writes the messages of a datagram. */
export type Datagram = (writer: Writer) => void;

export interface SocketOptions {
  port: number;
  groups: readonly number[];
  /** What it wants of its groups. */
  filter: (message: Message) => boolean;
  onSend(datagram: Uint8Array): void;
  onClose(): void;
}

export class FakeSocket implements Transport {
  readonly port: number;
  readonly #options: SocketOptions;
  readonly #queue: Uint8Array[] = [];
  /** As of a real one: what was received lies here until something else is. */
  readonly #buffer = new Uint8Array(64 << 10);
  #dump: Iterator<Datagram> | undefined;
  #waiter: (() => void) | undefined;
  #hasLost = false;
  #isClosed = false;

  constructor(options: SocketOptions) {
    this.port = options.port;
    this.#options = options;
  }

  send(datagram: Uint8Array): void {
    this.#mustBeOpen('write');
    this.#options.onSend(datagram.slice());
  }

  receive(): Uint8Array | undefined {
    this.#mustBeOpen('read');
    if (this.#hasLost) {
      this.#hasLost = false;
      throw new SystemError('read', ENOBUFS, 'from netlink');
    }
    const datagram = this.#queue.shift();
    if (!datagram) return undefined;
    this.#continueDump();
    this.#buffer.set(datagram);
    return this.#buffer.subarray(0, datagram.length);
  }

  wait(done: () => void): void {
    this.#waiter = done;
    this.#wake();
  }

  close(): void {
    this.#isClosed = true;
    this.#options.onClose();
    this.#wake();
  }

  push(put: Datagram): void {
    const writer = new Writer();
    put(writer);
    this.#queue.push(writer.bytes);
    this.#wake();
  }

  /** A multicast notification. */
  hear(group: number, put: Datagram): void {
    const writer = new Writer();
    put(writer);
    const isWanted = [...messagesIn(writer.bytes)].every(this.#options.filter);
    if (isWanted && this.#options.groups.includes(group)) this.push(put);
  }

  overrun(): void {
    this.#queue.length = 0;
    this.#hasLost = true;
    this.#wake();
  }

  get isDumping(): boolean {
    return this.#dump !== undefined;
  }

  /** Each part is made when the one before was read. */
  startDump(parts: Iterator<Datagram>): void {
    this.#dump = parts;
    this.#continueDump();
  }

  #continueDump(): void {
    const next = this.#dump?.next();
    if (next?.done) this.#dump = undefined;
    else if (next) this.push(next.value);
  }

  #mustBeOpen(syscall: string): void {
    if (this.#isClosed) throw new SystemError(syscall, EBADF, 'of netlink');
  }

  #wake(): void {
    if (!this.#waiter || !(this.#queue.length > 0 || this.#hasLost || this.#isClosed)) return;
    setImmediate(this.#waiter);
    this.#waiter = undefined;
  }
}

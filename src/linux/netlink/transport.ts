/** Netlink sockets (netlink(7)): what carries datagrams to and from the kernel. */
import os from 'node:os';
import * as native from '../native.ts';
import { endWait, onReadable } from '../readable.ts';
import { attachSocketFilter, type SocketFilter } from '../socket-filter.ts';
import { SystemError } from '../system-error.ts';

// <linux/netlink.h>
export const NETLINK_ROUTE = 0;
export const NETLINK_XFRM = 6;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SOCKADDR_SIZE = 12;

/** The kernel makes datagrams of up to 32 KiB. All sockets of a thread share the buffer: some live for one request. */
const BUFFER = new Uint8Array(64 << 10);
const POINTER = native.pointer(BUFFER);
/** Receive buffer in bytes of a socket that listens: thousands of notifications may come at once. */
const RECEIVE_BUFFER = 16 << 20;
const { EAGAIN, ENOBUFS } = os.constants.errno;
const ON = native.int(1);

/** What carries datagrams to and from the kernel. */
export interface Transport {
  /** The socket's number. The kernel puts it into the notifications that our requests cause. */
  readonly port: number;
  send(datagram: Uint8Array<ArrayBuffer>): void;
  /**
   * The next datagram, good until the next call, of any transport; undefined if none waits. Throws ENOBUFS,
   * once, if some were lost.
   */
  receive(): Uint8Array | undefined;
  /** Calls back, once, when something waits, or the transport was closed. */
  wait(done: () => void): void;
  close(): void;
}

/**
 * Opens a socket in this process's network namespace that hears these multicast groups, of what the filter
 * lets through.
 */
export function openTransport(
  protocol: number,
  groups: readonly number[] = [],
  filter?: (port: number) => SocketFilter,
): Transport {
  const type = native.SOCK_RAW | native.SOCK_CLOEXEC | native.SOCK_NONBLOCK;
  const fd = native.must(native.socket(native.AF_NETLINK, type, protocol), 'socket', 'of netlink');
  try {
    // Since Linux 4.20; without them errors say less and dumps more.
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK])
      native.setsockopt(fd, SOL_NETLINK, option, ON, 4);
    const transport = new SocketTransport(fd);
    if (groups.length === 0) return transport;
    // The filter comes before the socket joins, so that nothing else gets in.
    if (filter) attachSocketFilter(fd, filter(transport.port));
    native.setsockopt(fd, native.SOL_SOCKET, native.SO_RCVBUFFORCE, native.int(RECEIVE_BUFFER), 4);
    transport.join(groups);
    return transport;
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

class SocketTransport implements Transport {
  readonly #fd: number;
  /** 0 as long as nobody has asked. */
  #port = 0;
  /** Whom a wait is to call back. */
  #done: (() => void) | undefined;
  #closed = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The kernel gives a socket its number with the first request, unless it is asked for before. */
  get port(): number {
    this.#port ||= this.#boundTo();
    if (this.#port === 0) {
      this.#bind(0, []);
      this.#port = this.#boundTo();
    }
    return this.#port;
  }

  #boundTo(): number {
    const name = new Uint8Array(SOCKADDR_SIZE);
    native.must(native.getsockname(this.#fd, name, native.int(SOCKADDR_SIZE)), 'getsockname', 'of netlink');
    return new DataView(name.buffer).getUint32(4, true);
  }

  join(groups: readonly number[]): void {
    this.#bind(this.port, groups);
  }

  /** struct sockaddr_nl: family, port and groups, one bit each. */
  #bind(port: number, groups: readonly number[]): void {
    const name = new Uint8Array(SOCKADDR_SIZE);
    const view = new DataView(name.buffer);
    view.setUint16(0, native.AF_NETLINK, true);
    view.setUint32(4, port, true);
    view.setUint32(
      8,
      groups.reduce((bits, group) => bits | (1 << (group - 1)), 0),
      true,
    );
    native.must(native.bind(this.#fd, name, SOCKADDR_SIZE), 'bind', 'to netlink');
  }

  send(datagram: Uint8Array<ArrayBuffer>): void {
    if (this.#closed) throw new Error('the netlink socket is closed'); // Its number may be somebody else's by now.
    native.must(native.write(this.#fd, datagram, datagram.length), 'write', 'to netlink');
  }

  receive(): Uint8Array | undefined {
    const length = native.read(this.#fd, POINTER, BUFFER.length);
    if (length < 0 && native.errno() === EAGAIN) return undefined;
    return BUFFER.subarray(0, native.must(length, 'read', 'from netlink'));
  }

  wait(done: () => void): void {
    this.#done = done;
    onReadable(this.#fd, () => this.#call());
  }

  #call(): void {
    const done = this.#done;
    this.#done = undefined;
    done?.();
  }

  /** If a thread waits on the descriptor, it is closed only when it has come back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (!this.#done) native.close(this.#fd);
    else
      endWait(this.#fd, () => {
        native.close(this.#fd);
        this.#call();
      });
  }
}

/** True if the error says that notifications were lost. */
export function isOverrun(error: unknown): boolean {
  return error instanceof SystemError && error.errno === ENOBUFS;
}

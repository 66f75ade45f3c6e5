/** UDP sockets (udp(7)) for GRE-in-UDP (RFC 8086): the kernel cuts long messages into datagrams, and puts datagrams together. */

import { GRE_UDP_PORT, MAX_PORTS, MESSAGES_PER_PORT } from '../../core/abi.ts';
import { type CoreConfig, DEFAULT_TTL, type PacketCore } from '../../core/core.ts';
import type { PacketDevice } from '../device.ts';
import { portError, sourcePorts } from '../gre-udp.ts';
import * as native from './native.ts';
import { enlargeBuffers, Receiver, sendMessages, setOption, socketAddress } from './socket.ts';

/** Messages that are received at once: each may be 64 KiB. */
const RECEIVED_AT_ONCE = 16;

/** Opens the socket that receives datagrams for `local`, a u32 number; with `shared` several can. Throws ERR_FAILED if the port is taken. */
export function openGreUdpSocket(local: number, shared: boolean): number {
  const fd = openUdpSocket();
  if (shared) setOption(fd, native.SOL_SOCKET, native.SO_REUSEPORT, 1, 'SO_REUSEPORT');
  const address = socketAddress(local, GRE_UDP_PORT);
  try {
    native.must(native.bind(fd, address, address.length), 'bind', `to UDP port ${GRE_UDP_PORT}`);
  } catch (cause) {
    native.close(fd);
    throw portError(cause);
  }
  setOption(fd, native.IPPROTO_IP, native.IP_RECVTOS, 1, 'IP_RECVTOS');
  // A kernel before 5.0 delivers datagrams one by one.
  native.setsockopt(fd, native.SOL_UDP, native.UDP_GRO, native.int(1), 4);
  return fd;
}

/** Opens the sockets that datagrams are sent from: the underlay spreads flows by their ports. */
export function openSourceSockets({ local, ttl, mayFragment }: CoreConfig): number[] {
  const fds: number[] = [];
  for (const port of sourcePorts()) {
    const fd = openUdpSocket();
    // The core knows each path's MTU: what the kernel remembers of it does not count, or would outlive what the core knows (ip(7)).
    const discovery = mayFragment ? native.IP_PMTUDISC_DONT : native.IP_PMTUDISC_PROBE;
    setOption(fd, native.IPPROTO_IP, native.IP_MTU_DISCOVER, discovery, 'IP_MTU_DISCOVER');
    setOption(fd, native.IPPROTO_IP, native.IP_TTL, typeof ttl === 'number' ? ttl : DEFAULT_TTL, 'IP_TTL');
    // Nobody reads what comes to it: the least there is room for, which is one datagram (socket(7)).
    setOption(fd, native.SOL_SOCKET, native.SO_RCVBUF, 0, 'SO_RCVBUF');
    const address = socketAddress(local, port);
    if (native.bind(fd, address, address.length) === 0) {
      fds.push(fd);
    } else {
      const taken = native.errno() === native.EADDRINUSE;
      native.close(fd);
      if (!taken) native.must(-1, 'bind', `to UDP port ${port}`);
    }
    if (fds.length === MAX_PORTS) break;
  }
  return fds;
}

function openUdpSocket(): number {
  const fd = native.must(
    native.socket(native.AF_INET, native.SOCK_DGRAM | native.SOCK_CLOEXEC, 0),
    'socket',
    'for UDP',
  );
  enlargeBuffers(fd);
  return fd;
}

export class GreUdpSocket implements PacketDevice {
  readonly #fd: number;
  readonly #sources: readonly number[];
  readonly #base: native.Pointer;
  readonly #receiver: Receiver;
  readonly #onRefused: (errno: number) => void;

  /** `sources` are the sockets of the ports; `onRefused` hears the errno of messages that cannot be sent. */
  constructor(fd: number, sources: readonly number[], core: PacketCore, onRefused: (errno: number) => void) {
    this.#fd = fd;
    this.#sources = sources;
    this.#base = native.pointer(core.bytes);
    this.#receiver = new Receiver(fd, core, RECEIVED_AT_ONCE);
    this.#onRefused = onRefused;
  }

  read(core: PacketCore): number {
    const count = this.#receiver.receive();
    for (let i = 0; i < count; i++) {
      const receiver = this.#receiver;
      core.describeDatagrams(i, receiver.length(i), receiver.segment(i), receiver.peer(i), receiver.tos(i));
      receiver.rearm(i);
    }
    return count;
  }

  write(core: PacketCore): void {
    for (let port = 0; port < this.#sources.length; port++) {
      const first = port * MESSAGES_PER_PORT;
      const fd = this.#sources[port] as number;
      sendMessages(fd, core, this.#base, first, first + core.messageCount(port), this.#onRefused);
    }
  }

  close(): void {
    for (const fd of [this.#fd, ...this.#sources]) native.close(fd);
  }
}

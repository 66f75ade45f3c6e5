/** UDP sockets (udp(7)) for GRE-in-UDP (RFC 8086): the kernel cuts long messages into datagrams, and puts datagrams together. */

import { BATCH_SIZE, GRE_UDP_PORT, MAX_PORTS, MESSAGES_PER_PORT } from '../../../core/abi.ts';
import { type CoreConfig, DEFAULT_TTL } from '../../../core/config.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import type { PacketDevice } from '../device.ts';
import { portError, sourcePorts } from '../gre-udp.ts';
import { Sender, type SendListeners } from './sender.ts';
import { enlargeBuffers, prepared, Receiver, setOption, socketAddress } from './socket.ts';

/** Messages that are received at once, if not more are asked for: each may be 64 KiB. */
const RECEIVED_AT_ONCE = 16;

/** Opens the socket that receives datagrams for `local`, a u32 number; with `shared` several can. Throws ERR_FAILED if the port is taken. */
export function openGreUdpSocket(local: number, shared: boolean): number {
  const fd = openUdpSocket();
  return prepared(fd, () => {
    if (shared) setOption(fd, native.SOL_SOCKET, native.SO_REUSEPORT, 1, 'SO_REUSEPORT');
    const address = socketAddress(local, GRE_UDP_PORT);
    try {
      native.must(native.bind(fd, address, address.length), 'bind', `to UDP port ${GRE_UDP_PORT}`);
    } catch (cause) {
      throw portError(cause);
    }
    setOption(fd, native.IPPROTO_IP, native.IP_RECVTOS, 1, 'IP_RECVTOS');
    // A kernel before 5.0 delivers datagrams one by one.
    native.setsockopt(fd, native.SOL_UDP, native.UDP_GRO, native.int(1), 4);
  });
}

/** Opens the sockets that datagrams are sent from: the underlay spreads flows by their ports. */
export function openSourceSockets(config: CoreConfig): number[] {
  const fds: number[] = [];
  try {
    for (const port of sourcePorts()) {
      const fd = openSourceSocket(config, port);
      if (fd !== undefined) fds.push(fd);
      if (fds.length === MAX_PORTS) break;
    }
  } catch (error) {
    for (const fd of fds) native.close(fd);
    throw error;
  }
  return fds;
}

/** Undefined if the port is taken. */
function openSourceSocket({ local, ttl, pathMtuDiscovery = true }: CoreConfig, port: number): number | undefined {
  const fd = openUdpSocket();
  let isTaken = false;
  prepared(fd, () => {
    // The core knows each path's MTU: what the kernel remembers of it does not count, or would outlive what the core knows (ip(7)).
    const discovery = pathMtuDiscovery ? native.IP_PMTUDISC_PROBE : native.IP_PMTUDISC_DONT;
    setOption(fd, native.IPPROTO_IP, native.IP_MTU_DISCOVER, discovery, 'IP_MTU_DISCOVER');
    setOption(fd, native.IPPROTO_IP, native.IP_TTL, typeof ttl === 'number' ? ttl : DEFAULT_TTL, 'IP_TTL');
    // Nobody reads what comes to it: the least there is room for, which is one datagram (socket(7)).
    setOption(fd, native.SOL_SOCKET, native.SO_RCVBUF, 0, 'SO_RCVBUF');
    const address = socketAddress(local, port);
    const result = native.bind(fd, address, address.length);
    isTaken = result < 0 && native.errno() === native.EADDRINUSE;
    if (!isTaken) native.must(result, 'bind', `to UDP port ${port}`);
  });
  if (!isTaken) return fd;
  native.close(fd);
  return undefined;
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
  readonly #senders: readonly Sender[];
  readonly #receiver: Receiver;

  /** `sources` are the sockets of the ports; `listeners` hear which messages were sent. */
  constructor(fd: number, sources: readonly number[], core: PacketCore, listeners: SendListeners) {
    this.#senders = sources.map((source) => new Sender(source, core, listeners));
    this.#receiver = new Receiver(fd, core, BATCH_SIZE);
  }

  read(core: PacketCore, deep = false): number {
    const count = this.#receiver.receive(deep ? BATCH_SIZE : RECEIVED_AT_ONCE);
    for (let i = 0; i < count; i++) {
      const receiver = this.#receiver;
      core.describeDatagrams(i, receiver.length(i), receiver.segment(i), receiver.peer(i), receiver.tos(i));
      receiver.rearm(i);
    }
    return count;
  }

  get more(): boolean {
    return this.#receiver.more;
  }

  write(_: PacketCore, first: number, end: number): void {
    this.#senders[Math.floor(first / MESSAGES_PER_PORT)]?.send(first, end);
  }
}

/** Opens what all queues need, or nothing: a descriptor that was left open would keep the device and the ports. */
import { overhead } from '../../../core/config.ts';
import { InlayError } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import { openTun } from '../../../linux/tun.ts';
import type { EngineOptions } from '../engine.ts';
import { WITHOUT_PORT } from '../gre-udp.ts';
import { openGreSocket } from './gre-socket.ts';
import { openGreUdpSocket, openSourceSockets } from './gre-udp-socket.ts';
import { openIcmpSocket } from './icmp-socket.ts';
import type { SizeTable } from './segment-sizes.ts';

/** One queue's descriptors. The main thread opens and closes them, the worker uses them. */
export interface QueueFds {
  tun: number;
  gre: number;
  /** What the kernel notes of the packets that come there; undefined if it cannot. */
  sizes: SizeTable | undefined;
  /** -1 if the port is taken. */
  greUdp: number;
  /** Sockets of the source ports; none unless packets go out as GRE-in-UDP. */
  sources: number[];
  /** ICMP messages from the underlay. */
  icmp: number;
  /** eventfd that ends the worker's wait. */
  wake: number;
}

/** `obstacle` is why segment sizes are not noted, if they are not. */
export function openQueues(options: EngineOptions): { opened: QueueFds[]; obstacle: unknown } {
  const { device, queues, coreConfig, log } = options;
  const { local } = coreConfig;
  const isGreUdp = coreConfig.encapsulation === 'gre-udp';
  const opened: QueueFds[] = openTun(device, { queues, virtio: true }).map((tun) => ({
    ...{ tun, gre: -1, sizes: undefined, greUdp: -1, sources: [], icmp: -1, wake: -1 },
  }));
  let obstacle: unknown;
  try {
    for (const [index, fds] of opened.entries()) {
      const gre = openGreSocket(local, { index, count: queues, header: overhead('gre', coreConfig) });
      fds.gre = gre.fd;
      fds.sizes = gre.sizes;
      obstacle ??= gre.obstacle;
      fds.greUdp = openReceiver(local, queues > 1, isGreUdp, log);
      fds.sources = isGreUdp ? openSourceSockets(coreConfig) : [];
      fds.icmp = openIcmpSocket(local);
      const flags = native.O_NONBLOCK | native.O_CLOEXEC;
      fds.wake = native.must(native.eventfd(0, flags), 'eventfd', 'for a forwarding worker');
    }
  } catch (error) {
    closeQueues(opened);
    throw error;
  }
  return { opened, obstacle };
}

export function closeQueues(opened: readonly QueueFds[]): void {
  for (const { tun, gre, sizes, greUdp, icmp, sources, wake } of opened) {
    for (const fd of [tun, gre, sizes?.fd ?? -1, greUdp, icmp, ...sources, wake]) if (fd >= 0) native.close(fd);
  }
}

/** The socket for datagrams from VMs that send GRE-in-UDP; needed only where this one does, too. */
function openReceiver(local: number, shared: boolean, needed: boolean, log: EngineOptions['log']): number {
  try {
    return openGreUdpSocket(local, shared);
  } catch (error) {
    if (needed || !(error instanceof InlayError)) throw error;
    log.warn({ hint: error.hint }, `${error.message}: ${WITHOUT_PORT}`);
    return -1;
  }
}

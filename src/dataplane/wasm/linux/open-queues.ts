/** Opens what all queues need, or nothing: a descriptor that was left open would keep the device and the ports. */
import { overhead } from '../../../core/core.ts';
import { InlayError } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import { openTun } from '../../../linux/tun.ts';
import type { EngineOptions } from '../../dataplane.ts';
import { WITHOUT_PORT } from '../gre-udp.ts';
import { openGreSocket } from './gre-socket.ts';
import { openGreUdpSocket, openSourceSockets } from './gre-udp-socket.ts';
import { openIcmpSocket } from './icmp-socket.ts';
import type { QueueFds } from './worker.ts';

export type OpenFds = Omit<QueueFds, 'wake'>;

export function openQueues({ device, queues, coreConfig, log }: EngineOptions): OpenFds[] {
  const { local } = coreConfig;
  const isGreUdp = coreConfig.encapsulation === 'gre-udp';
  const opened: OpenFds[] = openTun(device, { queues, virtio: true }).map((tun) => ({
    ...{ tun, gre: -1, greUdp: -1, sources: [], icmp: -1 },
  }));
  try {
    for (const [index, fds] of opened.entries()) {
      fds.gre = openGreSocket(local, { index, count: queues, header: overhead('gre', coreConfig) });
      fds.greUdp = openReceiver(local, queues > 1, isGreUdp, log);
      fds.sources = isGreUdp ? openSourceSockets(coreConfig) : [];
      fds.icmp = openIcmpSocket(local);
    }
  } catch (error) {
    closeQueues(opened);
    throw error;
  }
  return opened;
}

export function closeQueues(opened: readonly OpenFds[]): void {
  for (const { tun, gre, greUdp, sources, icmp } of opened) {
    for (const fd of [tun, gre, greUdp, icmp, ...sources]) if (fd >= 0) native.close(fd);
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

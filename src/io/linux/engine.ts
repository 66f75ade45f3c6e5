/** The linux engine, as the main thread sees it: opens device and sockets, and hands them to one forwarding worker for each queue. */
import { overhead } from '../../core/core.ts';
import { mergeTunnels } from '../../core/tunnels.ts';
import { addCounters, type Counters, type DataPlane, type DataPlaneOptions, type Segmenter } from '../../dataplane.ts';
import { InlayError } from '../../errors.ts';
import { WITHOUT_PORT } from '../gre-udp.ts';
import { openGreSocket } from './gre-socket.ts';
import { openGreUdpSocket, openSourceSockets } from './gre-udp-socket.ts';
import { openIcmpSocket } from './icmp-socket.ts';
import * as native from './native.ts';
import { Queue, type QueueListeners } from './queue.ts';
import { Segmentation } from './segmentation.ts';
import { enableOffloads, openTun } from './tun.ts';

export async function startLinuxEngine(options: DataPlaneOptions): Promise<DataPlane> {
  native.requireLinux64();
  const engine = new LinuxEngine(options);
  try {
    await engine.ready;
  } catch (error) {
    await engine.close();
    throw error;
  }
  return engine;
}

class LinuxEngine implements DataPlane {
  readonly ready: Promise<unknown>;
  readonly #segmentation: Segmentation;
  readonly #queues: Queue[];
  /** How many queues have a tunnel to a VM. */
  readonly #tunnels = new Map<number, number>();
  #closing = false;
  #failed = false;
  #segments = true;

  constructor(options: DataPlaneOptions) {
    const { device, queues, coreConfig, log } = options;
    const { local } = coreConfig;
    const tuns = openTun(device, { queues, virtio: true });
    this.#segmentation = new Segmentation(options);
    const offloads = enableOffloads(tuns[0] as number) | this.#segmentation.offload;
    const listeners: QueueListeners = {
      onTunnels: (change, vms) => options.onTunnels(change, this.#countTunnels(change, vms)),
      onLearnt: options.onLearnt,
      onNoSegmentation: () => {
        if (this.#segments)
          log.warn('the underlay takes no UDP_SEGMENT, as through IPsec: packets are sent one by one');
        this.#segments = false;
      },
      onFailure: (error) => {
        if (!this.#closing && !this.#failed) options.onFailure(error);
        this.#failed = true;
      },
    };
    const greUdp = coreConfig.encapsulation === 'gre-udp';
    this.#queues = tuns.map((tun, i) => {
      const fds = {
        tun,
        gre: openGreSocket(local, { index: i, count: queues, header: overhead('gre', coreConfig) }),
        greUdp: receiverOf(local, queues > 1, greUdp, log),
        sources: greUdp ? openSourceSockets(coreConfig) : [],
        icmp: openIcmpSocket(local),
      };
      return new Queue(fds, { ...options, offloads }, listeners);
    });
    this.ready = Promise.all(this.#queues.map((queue) => queue.ready));
  }

  get segmenter(): Segmenter {
    return this.#segmentation.segmenter;
  }

  deviceIsUp(): void {
    this.#segmentation.watch((offload) => {
      for (const queue of this.#queues) queue.segment(offload);
    });
  }

  async counters(): Promise<Counters> {
    const all = await Promise.all(this.#queues.map((queue) => queue.counters()));
    return {
      outbound: addCounters(all.map((counters) => counters.outbound)),
      inbound: addCounters(all.map((counters) => counters.inbound)),
      icmp: addCounters(all.map((counters) => counters.icmp)),
      // A VM that two queues talk to is one tunnel.
      tunnels: this.#tunnels.size,
    };
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const all = await Promise.all(this.#queues.map((queue) => queue.tunnels()));
    return { now: performance.now(), tunnels: mergeTunnels(all) };
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#segmentation.close();
    await Promise.all(this.#queues.map((queue) => queue.close()));
  }

  /** Of what one queue reports, that which is new for the VM: the first queue opens a tunnel, the last closes it. */
  #countTunnels(change: 'opened' | 'closed', vms: number[]): number[] {
    return vms.filter((vm) => {
      const before = this.#tunnels.get(vm) ?? 0;
      const after = before + (change === 'opened' ? 1 : -1);
      if (after > 0) this.#tunnels.set(vm, after);
      else this.#tunnels.delete(vm);
      return before === 0 || after === 0;
    });
  }
}

/** The socket for datagrams from VMs that send GRE-in-UDP; needed only where this one does, too. */
function receiverOf(local: number, shared: boolean, needed: boolean, log: DataPlaneOptions['log']): number {
  try {
    return openGreUdpSocket(local, shared);
  } catch (error) {
    if (needed || !(error instanceof InlayError)) throw error;
    log.warn({ hint: error.hint }, `${error.message}: ${WITHOUT_PORT}`);
    return -1;
  }
}

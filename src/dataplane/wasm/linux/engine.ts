/** The linux engine, as the main thread sees it: opens device and sockets, and hands them to one forwarding worker for each queue. */

import { OFFLOAD_UDP_MERGE, OFFLOAD_VIRTIO } from '../../../core/abi.ts';
import { mergeTunnels } from '../../../core/tunnels.ts';
import * as native from '../../../linux/native.ts';
import { enableOffloads } from '../../../linux/tun.ts';
import { mtuTowards } from '../../../machine/underlay.ts';
import { ipv4 } from '../../../mesh/address.ts';
import { addCounters, type Counters, type Engine, type EngineOptions, type Segmenter } from '../../dataplane.ts';
import { closeQueues, openQueues } from './open-queues.ts';
import { Queue, type QueueListeners } from './queue.ts';
import { Segmentation } from './segmentation.ts';

export async function startLinuxEngine(options: EngineOptions): Promise<Engine> {
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

class LinuxEngine implements Engine {
  readonly ready: Promise<unknown>;
  readonly #segmentation: Segmentation;
  readonly #queues: Queue[];
  /** How many queues have a tunnel to a VM. */
  readonly #tunnels = new Map<number, number>();
  #closing = false;
  #failed = false;
  #segments = true;

  constructor(options: EngineOptions) {
    const { log } = options;
    const opened = openQueues(options);
    let offloads: number;
    try {
      this.#segmentation = new Segmentation(options);
      const { udp } = enableOffloads(opened[0]?.tun ?? -1);
      offloads = OFFLOAD_VIRTIO | (udp ? OFFLOAD_UDP_MERGE : 0) | this.#segmentation.offload;
    } catch (error) {
      closeQueues(opened);
      throw error;
    }
    const listeners: QueueListeners = {
      onTunnels: (change, vms) => options.onTunnels(change, this.#countTunnels(change, vms)),
      onLearnt: options.onLearnt,
      onTooLong: (vm) => {
        const tell = (mtu: number) => {
          for (const queue of this.#queues) queue.narrow(vm, mtu);
        };
        try {
          tell(mtuTowards(ipv4(vm), ipv4(options.coreConfig.local)));
        } catch {} // Where that cannot be found out, packets get lost as before.
      },
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
    this.#queues = opened.map((fds) => new Queue(fds, { ...options, offloads }, listeners));
    this.ready = Promise.all(this.#queues.map((queue) => queue.ready));
  }

  get segmenter(): Segmenter {
    return this.#segmentation.segmenter;
  }

  get reinjects(): boolean {
    return this.#segmentation.reinjects;
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
      icmp: addCounters(all.flatMap(({ icmp }) => icmp ?? [])),
      // A VM that two queues talk to is one tunnel.
      tunnels: this.#tunnels.size,
    };
  }

  async tunnels(): ReturnType<Engine['tunnels']> {
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

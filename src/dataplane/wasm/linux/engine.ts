/** The linux engine, as the main thread sees it: opens device and sockets, and hands them to one forwarding worker for each queue. */

import { OFFLOAD_UDP_MERGE, OFFLOAD_VIRTIO } from '../../../core/abi.ts';
import { mergeTunnels } from '../../../core/tunnels.ts';
import { InlayError } from '../../../errors.ts';
import { bpfObstacle } from '../../../linux/bpf/obstacle.ts';
import * as native from '../../../linux/native.ts';
import { enableOffloads } from '../../../linux/tun.ts';
import { mtuTowards } from '../../../machine/underlay.ts';
import { ipv4 } from '../../../mesh/address.ts';
import { addCounters, addRefused, type Counters } from '../../dataplane.ts';
import { type Engine, type EngineOptions, guarded, type Segmenter, type SegmentSizesStatus } from '../engine.ts';
import { closeQueues, openQueues, type QueueFds } from './open-queues.ts';
import { Queue, type QueueListeners } from './queue.ts';
import { Segmentation } from './segmentation.ts';

/** If one step fails, what the others have opened is closed and all workers have ended when the error comes. */
export async function startLinuxEngine(options: EngineOptions): Promise<Engine> {
  native.requireLinux64();
  const { opened, obstacle } = openQueues(options);
  let engine: LinuxEngine;
  let offloads: number;
  try {
    const sizes: SegmentSizesStatus = obstacle ? guarded(bpfObstacle(obstacle)) : { segmentSizes: 'known' };
    const why = sizes.segmentSizesObstacle;
    if (why) options.log.info({ obstacle: why }, 'the sizes of merged packets are not known');
    const { udp } = enableOffloads(opened[0]?.tun ?? -1);
    offloads = OFFLOAD_VIRTIO | (udp ? OFFLOAD_UDP_MERGE : 0);
    engine = new LinuxEngine(options, new Segmentation(options), sizes);
  } catch (error) {
    closeQueues(opened);
    throw error;
  }
  try {
    await engine.start(opened, offloads);
  } catch (error) {
    await engine.close();
    throw error;
  }
  return engine;
}

class LinuxEngine implements Engine {
  readonly segmentSizes: SegmentSizesStatus;
  readonly #options: EngineOptions;
  readonly #segmentation: Segmentation;
  readonly #queues: Queue[] = [];
  /** How many queues have a tunnel to a VM. */
  readonly #tunnels = new Map<number, number>();
  /** Why forwarding ended by itself. */
  #failure: Error | undefined;
  #isRunning = false;
  #closed: Promise<void> | undefined;
  #segments = true;

  constructor(options: EngineOptions, segmentation: Segmentation, segmentSizes: SegmentSizesStatus) {
    this.segmentSizes = segmentSizes;
    this.#options = options;
    this.#segmentation = segmentation;
  }

  /** Starts a worker for each queue, which has its descriptors from then on. `offloads` are the OFFLOAD_ bits of the device. */
  async start(opened: readonly QueueFds[], offloads: number): Promise<void> {
    const options = { ...this.#options, offloads: offloads | this.#segmentation.offload };
    const listeners = this.#listeners();
    try {
      for (const fds of opened) this.#queues.push(new Queue(fds, options, listeners));
    } catch (error) {
      closeQueues(opened.slice(this.#queues.length));
      throw error;
    }
    await Promise.all(this.#queues.map((queue) => queue.ready));
    const cause = this.#failure;
    if (cause) throw new InlayError('ERR_FAILED', `forwarding ended: ${cause.message}`, { cause });
    this.#isRunning = true;
  }

  #listeners(): QueueListeners {
    const { onTunnels, onLearnt, onDropped, log } = this.#options;
    return {
      onTunnels: (change, vms) => onTunnels(change, this.#countTunnels(change, vms)),
      onLearnt,
      onDropped,
      onTooLong: (vm) => this.#narrow(vm),
      onNoSegmentation: () => {
        if (this.#segments)
          log.warn('the underlay takes no UDP_SEGMENT, as through IPsec: packets are sent one by one');
        this.#segments = false;
      },
      onFailure: (error) => this.#fail(error),
    };
  }

  /** Looks up which packets the route to a VM takes, and tells the workers. */
  #narrow(vm: number): void {
    let mtu: number | undefined;
    try {
      mtu = mtuTowards(ipv4(vm), ipv4(this.#options.coreConfig.local));
    } catch {
      return; // Packets to it get lost as before.
    }
    if (mtu !== undefined) for (const queue of this.#queues) queue.narrow(vm, mtu);
  }

  /** One queue alone would forward a share of the flows: all end. */
  #fail(error: Error): void {
    if (this.#closed) return;
    this.#failure = error;
    const closed = this.close();
    if (this.#isRunning) void closed.then(() => this.#options.onFailure(error));
  }

  get segmenter(): Segmenter {
    return this.#segmentation.segmenter;
  }

  get reinjects(): boolean {
    return this.#segmentation.reinjects;
  }

  deviceIsUp(): void {
    if (this.#closed) return;
    this.#segmentation.watch((offload) => {
      for (const queue of this.#queues) queue.segment(offload);
    });
  }

  setMtu(mtu: number): void {
    for (const queue of this.#queues) queue.setMtu(mtu);
  }

  async counters(): Promise<Counters> {
    const all = await Promise.all(this.#queues.map((queue) => queue.counters()));
    return {
      outbound: addCounters(all.map((counters) => counters.outbound)),
      inbound: addCounters(all.map((counters) => counters.inbound)),
      icmp: addCounters(all.flatMap(({ icmp }) => icmp ?? [])),
      refused: addRefused(all),
      // A VM that two queues talk to is one tunnel.
      tunnels: this.#tunnels.size,
    };
  }

  async tunnels(): ReturnType<Engine['tunnels']> {
    const all = await Promise.all(this.#queues.map((queue) => queue.tunnels()));
    return { now: performance.now(), tunnels: mergeTunnels(all) };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#segmentation.close();
    await Promise.all(this.#queues.map((queue) => queue.close()));
    this.#tunnels.clear();
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

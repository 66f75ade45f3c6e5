/** One queue of the linux engine: a forwarding worker, and the messages to and from it. */
import { Worker } from 'node:worker_threads';
import { type Tunnel, tunnelsFrom } from '../../../core/tunnels.ts';
import * as native from '../../../linux/native.ts';
import type { Counters, EngineOptions } from '../../dataplane.ts';
import type { TunnelListeners } from '../forwarder.ts';
import type { QueueFds, WorkerMessage, WorkerOptions, WorkerRequest } from './worker.ts';

/** What is written to the eventfd: the number 1, as a u64. */
const WAKE = BigUint64Array.of(1n);

export interface QueueListeners extends TunnelListeners {
  /** Called when the kernel does not take a packet to this VM because it is too long for the device. */
  onTooLong: (vm: number) => void;
  /** Called when the kernel refuses UDP_SEGMENT. */
  onNoSegmentation: () => void;
  /** Called when the worker ends, whether it was told to or not. */
  onFailure: (error: Error) => void;
}

export class Queue {
  readonly ready: Promise<void>;
  readonly #wakeFd: number;
  readonly #worker: Worker;
  /** Those who wait for an answer, in the order of their requests, which is that of the answers. */
  readonly #waiting: { resolve: (answer: never) => void; reject: (error: Error) => void }[] = [];
  #closing = false;

  constructor(fds: Omit<QueueFds, 'wake'>, options: EngineOptions & { offloads: number }, listeners: QueueListeners) {
    this.#wakeFd = native.must(native.eventfd(0, native.O_NONBLOCK | native.O_CLOEXEC), 'eventfd', 'for the worker');
    const { core, coreConfig, offloads, idleTimeout, busyPoll } = options;
    const workerData: WorkerOptions = {
      fds: { ...fds, wake: this.#wakeFd },
      core,
      coreConfig,
      offloads,
      idleTimeout,
      busyPoll,
    };
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    const end = (error: Error) => {
      this.#closing = true;
      for (const waiter of this.#waiting.splice(0)) waiter.reject(error);
      listeners.onFailure(error);
    };
    this.#worker.on('error', end);
    this.#worker.on('exit', () => end(new Error('the forwarding worker has ended')));
    this.ready = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#worker.on('message', (message: WorkerMessage) => {
      if (message.kind === 'tunnels-changed') listeners.onTunnels(message.change, message.vms);
      else if (message.kind === 'learnt') listeners.onLearnt(message.tunnels);
      else if (message.kind === 'too-long') listeners.onTooLong(message.vm);
      else if (message.kind === 'no-segmentation') listeners.onNoSegmentation();
      else this.#waiting.shift()?.resolve(message.answer as never);
    });
  }

  counters(): Promise<Counters> {
    return this.#request('counters');
  }

  /** All open tunnels, their times on this thread's clock. */
  async tunnels(): Promise<Tunnel[]> {
    const { now, rows } = await this.#request<{ now: number; rows: Float64Array }>('tunnels');
    // A thread's clock begins when it does.
    const shift = performance.now() - now;
    return tunnelsFrom(rows).map((t) => ({ ...t, lastUse: t.lastUse + shift }));
  }

  /** `offload` is OFFLOAD_GRE_SEGMENT if the kernel cuts from now on, or 0. */
  segment(offload: number): void {
    if (!this.#closing) this.#post({ segment: offload });
  }

  /** Outer packets to `vm` have at most `mtu` bytes. */
  narrow(vm: number, mtu: number): void {
    if (!this.#closing) this.#post({ narrow: vm, mtu });
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    // Not once(): it would reject, as the worker's error does when the device goes first; `end` has that error.
    const ended = new Promise((resolve) => this.#worker.once('exit', resolve));
    this.#post('close');
    await ended;
    native.close(this.#wakeFd);
  }

  #request<T>(request: WorkerRequest): Promise<T> {
    if (this.#closing) return Promise.reject(new Error('the data plane is closed'));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#post(request);
    });
  }

  /** The worker waits in poll(2), where messages do not reach it: the eventfd ends the wait. */
  #post(request: WorkerRequest): void {
    this.#worker.postMessage(request);
    native.must(native.write(this.#wakeFd, WAKE, WAKE.byteLength), 'write', 'to the eventfd');
  }
}

/** One queue of the linux engine: a forwarding worker, and the messages to and from it. */
import { Worker } from 'node:worker_threads';
import { type Tunnel, tunnelsFrom } from '../../../core/tunnels.ts';
import { InlayError } from '../../../errors.ts';
import * as native from '../../../linux/native.ts';
import type { Counters } from '../../dataplane.ts';
import type { EngineOptions } from '../engine.ts';
import type { ForwarderListeners } from '../forwarder.ts';
import { closeQueues, type QueueFds } from './open-queues.ts';
import type { WorkerMessage, WorkerOptions, WorkerRequest } from './worker.ts';

/** What is written to the eventfd: the number 1, as a u64. */
const WAKE = BigUint64Array.of(1n);

export interface QueueListeners extends ForwarderListeners {
  /** Called when the kernel does not take a packet to this VM because it is too long for the route. */
  onTooLong: (vm: number) => void;
  /** Called when the kernel refuses UDP_SEGMENT. */
  onNoSegmentation: () => void;
  /** Called once if the worker ends without having been told to. */
  onFailure: (error: Error) => void;
}

export class Queue {
  /** Resolves when the worker begins to forward. Rejects if it cannot. */
  readonly ready: Promise<void>;
  readonly #wakeFd: number;
  readonly #worker: Worker;
  /** Resolves when the worker has ended and the descriptors are closed. */
  readonly #ended: Promise<void>;
  /** Those who wait for an answer, in the order of their requests, which is that of the answers. */
  readonly #waiting: { resolve: (answer: never) => void; reject: (error: Error) => void }[] = [];
  /** What the worker had counted when it ended, or was last asked. */
  #last: Counters | undefined;
  #isClosing = false;

  /** Closes the descriptors when the worker has ended. If the constructor throws, they are still the caller's. */
  constructor(fds: QueueFds, options: EngineOptions & { offloads: number }, listeners: QueueListeners) {
    this.#wakeFd = fds.wake;
    const { core, coreConfig, offloads, idleTimeout, busyPoll } = options;
    const workerData: WorkerOptions = { fds, core, coreConfig, offloads, idleTimeout, busyPoll };
    try {
      this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    } catch (cause) {
      throw startError(cause as Error);
    }
    this.ready = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.ready.catch(() => {}); // Whoever waits is told. If another queue fails first, nobody does.
    this.#worker.on('message', (message: WorkerMessage) => {
      if (message.kind === 'tunnels-changed') listeners.onTunnels(message.change, message.vms);
      else if (message.kind === 'learnt') listeners.onLearnt(message.tunnels);
      else if (message.kind === 'dropped') listeners.onDropped(message.sample);
      else if (message.kind === 'too-long') listeners.onTooLong(message.vm);
      else if (message.kind === 'no-segmentation') listeners.onNoSegmentation();
      else if (message.kind === 'last') this.#last = message.counters;
      else this.#waiting.shift()?.resolve(message.answer as never);
    });
    let failure = new Error('the forwarding worker has ended');
    this.#worker.on('error', (error: Error) => {
      failure = error;
    });
    // All messages have come by then.
    const end = () => {
      const isFailure = !this.#isClosing;
      this.#isClosing = true;
      closeQueues([fds]);
      for (const waiter of this.#waiting.splice(0)) waiter.reject(startError(failure));
      if (isFailure) listeners.onFailure(failure);
    };
    this.#ended = new Promise((resolve) => {
      this.#worker.once('exit', () => {
        end();
        resolve();
      });
    });
  }

  /** When the worker has ended, what it had counted until then. */
  async counters(): Promise<Counters> {
    this.#last = (await this.#request<Counters>('counters')) ?? this.#last;
    if (!this.#last) throw new Error('the forwarding worker ended before it began');
    return this.#last;
  }

  /** All open tunnels, their times on this thread's clock. None when the worker has ended. */
  async tunnels(): Promise<Tunnel[]> {
    const answer = await this.#request<{ now: number; rows: Float64Array }>('tunnels');
    if (!answer) return [];
    // A thread's clock begins when it does.
    const shift = performance.now() - answer.now;
    return tunnelsFrom(answer.rows).map((t) => ({ ...t, lastUse: t.lastUse + shift }));
  }

  /** `offload` is OFFLOAD_GRE_SEGMENT if the kernel cuts from now on, or 0. */
  segment(offload: number): void {
    this.#tell({ segment: offload });
  }

  /** Outer packets to `vm` have at most `mtu` bytes. */
  narrow(vm: number, mtu: number): void {
    this.#tell({ narrow: vm, mtu });
  }

  /** Inner packets have at most `mtu` bytes from now on. */
  setMtu(mtu: number): void {
    this.#tell({ setMtu: mtu });
  }

  /** Resolves when the worker has ended and the descriptors are closed. */
  close(): Promise<void> {
    this.#tell('close');
    this.#isClosing = true;
    return this.#ended;
  }

  /** The worker's answer; undefined if it ends before it gives one. */
  async #request<T>(request: WorkerRequest): Promise<T | undefined> {
    const answer = new Promise<T>((resolve, reject) => {
      if (this.#isClosing) reject();
      else this.#waiting.push({ resolve, reject });
    });
    this.#tell(request);
    try {
      return await answer;
    } catch {
      await this.#ended;
      return undefined;
    }
  }

  /** The worker waits in poll(2), where messages do not reach it: the eventfd ends the wait. */
  #tell(request: WorkerRequest): void {
    if (this.#isClosing) return;
    this.#worker.postMessage(request);
    native.must(native.write(this.#wakeFd, WAKE, WAKE.byteLength), 'write', 'to the eventfd');
  }
}

/** Why a worker did not start: its error came as a copy, without its class. */
function startError(cause: Error & { hint?: string }): InlayError {
  const message = `a forwarding worker cannot be started: ${cause.message.split('\n')[0]}`;
  return new InlayError('ERR_FAILED', message, { ...(cause.hint ? { hint: cause.hint } : {}), cause });
}

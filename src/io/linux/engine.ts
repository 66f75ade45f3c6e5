/** The linux engine, as the main thread sees it: opens device and socket and hands them to a forwarding worker. */
import { Worker } from 'node:worker_threads';
import { tunnelsFrom } from '../../core/core.ts';
import type { Counters, DataPlane, DataPlaneOptions } from '../../dataplane.ts';
import { openGreSocket } from './gre-socket.ts';
import * as native from './native.ts';
import { openTun } from './tun.ts';
import type { WorkerMessage, WorkerOptions, WorkerRequest } from './worker.ts';

/** What is written to the eventfd: the number 1, as a u64. */
const WAKE = BigUint64Array.of(1n);
const WAKE_POINTER = native.pointer(WAKE);

export async function startLinuxEngine(options: DataPlaneOptions): Promise<DataPlane> {
  native.requireLinux64();
  const engine = new LinuxEngine(options);
  await engine.ready;
  return engine;
}

class LinuxEngine implements DataPlane {
  readonly ready: Promise<void>;
  readonly #wakeFd: number;
  readonly #wakeFlag = new Int32Array(new SharedArrayBuffer(4));
  readonly #worker: Worker;
  /** Those who wait for an answer, in the order of their requests, which is that of the answers. */
  readonly #waiting: { resolve: (answer: never) => void; reject: (error: Error) => void }[] = [];
  #closing = false;

  constructor(options: DataPlaneOptions) {
    const tunFd = openTun(options.device);
    const socketFd = openGreSocket(options.coreConfig.local);
    this.#wakeFd = native.must(native.eventfd(0, native.O_NONBLOCK | native.O_CLOEXEC), 'eventfd', 'for the worker');
    const { core, coreConfig, idleTimeout } = options;
    const workerData: WorkerOptions = {
      ...{ tunFd, socketFd, wakeFd: this.#wakeFd, wakeFlag: this.#wakeFlag },
      ...{ core, coreConfig, idleTimeout },
    };
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { workerData });
    const fail = (error: Error) => {
      for (const waiter of this.#waiting.splice(0)) waiter.reject(error);
      if (!this.#closing) options.onFailure(error);
      this.#closing = true;
    };
    this.#worker.on('error', fail);
    this.#worker.on('exit', () => fail(new Error('the forwarding worker has ended')));
    this.ready = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#worker.on('message', (message: WorkerMessage) => {
      if (message.kind === 'tunnels-changed') options.onTunnels(message.change, message.vms);
      else this.#waiting.shift()?.resolve(message.answer as never);
    });
  }

  counters(): Promise<Counters> {
    return this.#request('counters');
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    const { now, rows } = await this.#request<{ now: number; rows: Float64Array }>('tunnels');
    return { now, tunnels: tunnelsFrom(rows) };
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    // Not once(): it would reject, as the worker's error does when the device goes first; `fail` has that error.
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

  /**
   * The worker blocks in poll(2), where messages do not reach it: the eventfd ends the poll, the flag tells a busy loop. The flag comes last: a worker
   * that saw it before the eventfd was written would drain nothing, and then find every poll ended.
   */
  #post(request: WorkerRequest): void {
    this.#worker.postMessage(request);
    native.must(native.write(this.#wakeFd, WAKE_POINTER, WAKE.byteLength), 'write', 'to the eventfd');
    Atomics.store(this.#wakeFlag, 0, 1);
  }
}

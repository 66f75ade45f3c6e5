/** The forwarding worker: waits in poll(2), moves batches both ways, answers the main thread. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { CoreConfig, CoreName } from '../../core/core.ts';
import { countersOf, sweepInterval } from '../../dataplane.ts';
import { Forwarder } from '../../forwarder.ts';
import { loadCore } from '../../load-core.ts';
import { GreSocket } from './gre-socket.ts';
import * as native from './native.ts';
import { TunDevice } from './tun.ts';

export interface WorkerOptions {
  tunFd: number;
  socketFd: number;
  /** eventfd that ends the wait. */
  wakeFd: number;
  /** 1 while requests may wait; checked once a batch, so that traffic cannot delay an answer. */
  wakeFlag: Int32Array;
  core: CoreName;
  coreConfig: CoreConfig;
  /** ms */
  idleTimeout: number;
}

export type WorkerRequest = 'counters' | 'tunnels' | 'close';

export type WorkerMessage =
  | { kind: 'answer'; answer: unknown }
  | { kind: 'tunnels-changed'; change: 'opened' | 'closed'; vms: number[] };

if (!parentPort) throw new Error('this file is a worker');
const port = parentPort;
const options = workerData as WorkerOptions;
const { tunFd, socketFd, wakeFd, wakeFlag } = options;

const core = loadCore(options.core);
core.configure(options.coreConfig);
const tun = new TunDevice(tunFd, core);
const socket = new GreSocket(socketFd, core);
const forwarder = new Forwarder(core, tun, socket, (change, vms) => post({ kind: 'tunnels-changed', change, vms }));

// struct pollfd { int fd; short events; short revents; }, <poll.h>
const POLLFD_WORDS = 2;
const waitFor = Int32Array.of(tunFd, native.POLLIN, socketFd, native.POLLIN, wakeFd, native.POLLIN);
const waitPointer = native.pointer(waitFor);
const drain = new Uint8Array(8);

post({ kind: 'answer', answer: undefined });
run();
tun.close();
socket.close();

function run(): void {
  const sweep = sweepInterval(options.idleTimeout);
  let nextSweep = 0;
  for (;;) {
    if (Atomics.load(wakeFlag, 0) === 1 && answerRequests() === 'close') return;
    const now = performance.now();
    if (now >= nextSweep) {
      if (core.tunnelCount > 0) forwarder.expire(now - options.idleTimeout);
      nextSweep = now + sweep;
    }
    const moved = forwarder.outbound(now) + forwarder.inbound(now);
    if (moved === 0) {
      const timeout = core.tunnelCount > 0 ? Math.ceil(nextSweep - now) : -1;
      native.poll(waitPointer, waitFor.length / POLLFD_WORDS, timeout);
    }
  }
}

function answerRequests(): 'close' | undefined {
  Atomics.store(wakeFlag, 0, 0);
  native.read(wakeFd, native.pointer(drain), drain.length);
  for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
    const request = got.message as WorkerRequest;
    if (request === 'close') return 'close';
    if (request === 'counters') {
      post({ kind: 'answer', answer: countersOf(core) });
    } else {
      const rows = core.copyTunnels();
      post({ kind: 'answer', answer: { now: performance.now(), rows } }, [rows.buffer]);
    }
  }
  return undefined;
}

function post(message: WorkerMessage, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

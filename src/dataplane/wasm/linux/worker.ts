/** The forwarding worker of one queue: waits in poll(2), moves batches both ways, answers the main thread. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { OFFLOAD_GRE_SEGMENT, OFFLOAD_UDP_SEGMENT } from '../../../core/abi.ts';
import { type CoreConfig, overhead } from '../../../core/config.ts';
import type { CoreName } from '../../../core/core.ts';
import type { TunnelState } from '../../../core/tunnels.ts';
import * as native from '../../../linux/native.ts';
import { errnoName } from '../../../linux/system-error.ts';
import type { Counters } from '../../dataplane.ts';
import type { DropSample } from '../../drop-log.ts';
import { countersOf, sweepInterval } from '../engine.ts';
import { Forwarder } from '../forwarder.ts';
import { loadCore } from '../load-core.ts';
import { Refusals } from '../refusals.ts';
import { GreSocket } from './gre-socket.ts';
import { GreUdpSocket } from './gre-udp-socket.ts';
import { IcmpSocket } from './icmp-socket.ts';
import type { QueueFds } from './open-queues.ts';
import { refusalOf } from './refusal.ts';
import { SegmentSizes } from './segment-sizes.ts';
import { TunDevice } from './tun.ts';

export interface WorkerOptions {
  fds: QueueFds;
  core: CoreName;
  coreConfig: CoreConfig;
  /** OFFLOAD_ bits of what the TUN device can do, and of whether the kernel cuts. */
  offloads: number;
  /** ms */
  idleTimeout: number;
  /** ms that the worker looks for packets without sleeping, after it found some. */
  busyPoll: number;
}

export type WorkerRequest =
  | 'counters'
  | 'tunnels'
  | 'close'
  // What follows has no answer.
  /** OFFLOAD_GRE_SEGMENT, or 0. */
  | { segment: number }
  /** A VM, and how many bytes outer packets to it may have. */
  | { narrow: number; mtu: number }
  /** Bytes of the longest inner packet from now on. */
  | { setMtu: number };

export type WorkerMessage =
  | { kind: 'answer'; answer: unknown }
  | { kind: 'tunnels-changed'; change: 'opened' | 'closed'; vms: number[] }
  | { kind: 'learnt'; tunnels: TunnelState[] }
  | { kind: 'dropped'; sample: DropSample }
  | { kind: 'too-long'; vm: number }
  | { kind: 'no-segmentation' }
  /** The worker ends: what it has counted. */
  | { kind: 'last'; counters: Counters };

/** ms */
const REPORT_INTERVAL = 1000;
const MAX_REPORTED = 1024;

if (!parentPort) throw new Error('this file is a worker');
const port = parentPort;
const { fds, core: coreName, coreConfig, idleTimeout, busyPoll } = workerData as WorkerOptions;
let { offloads } = workerData as WorkerOptions;

const core = loadCore(coreName);
core.configure(coreConfig);
attach(offloads | OFFLOAD_UDP_SEGMENT);
let segmentsRefused = false;
const onDropped = (sample: DropSample) => post({ kind: 'dropped', sample });
const refusals = new Refusals(core, onDropped);
const tun = new TunDevice(fds.tun, core, (errno, message) => refusals.refuse(message, 'overlay', errnoName(errno)));
/** When it was last reported that packets to a VM are too long, in ms. */
const reported = new Map<number, number>();
const onRefused = (errno: number, message: number) => {
  const refusal = refusalOf(errno, core.messages.segment(message) < core.messages.length(message));
  if (refusal === 'no-segmentation') segmentsRefused = true;
  // No ICMP message tells of it.
  else if (refusal === 'too-long') reportTooLong(core.messages.peer(message));
  refusals.refuse(message, 'underlay', errnoName(errno));
};
const onSent = (first: number, end: number) => refusals.sent(first, end);
const sizes = fds.sizes && new SegmentSizes(fds.sizes, overhead('gre', coreConfig), core);
const gre = new GreSocket(fds.gre, sizes, core, { onRefused, onSent });
const greUdp = new GreUdpSocket(fds.greUdp, fds.sources, core, { onRefused, onSent });
const underlay = coreConfig.encapsulation === 'gre-udp' ? greUdp : gre;
const icmp = new IcmpSocket(fds.icmp, core);
const forwarder = new Forwarder(core, tun, underlay, {
  onTunnels: (change, vms) => post({ kind: 'tunnels-changed', change, vms }),
  onLearnt: (tunnels) => post({ kind: 'learnt', tunnels }),
  onDropped,
});

// struct pollfd { int fd; short events; short revents; }, <poll.h>: the kernel ignores negative descriptors.
const POLLFD_WORDS = 2;
const waitFor = Int32Array.of(
  ...[fds.tun, fds.gre, fds.greUdp, fds.icmp, fds.wake].flatMap((fd) => [fd, native.POLLIN]),
);
const waitPointer = native.pointer(waitFor);
const [TUN, GRE, GRE_UDP, ICMP, WAKE] = [0, 1, 2, 3, 4];
const drain = new Uint8Array(8);

post({ kind: 'answer', answer: undefined });
try {
  run();
} finally {
  sizes?.close();
  post({ kind: 'last', counters: { ...countersOf(core, refusals), tunnels: 0 } });
}

function run(): void {
  const sweep = sweepInterval(idleTimeout);
  let now = performance.now();
  let nextSweep = now + sweep;
  let busyUntil = now;
  for (;;) {
    const isBusy = now < busyUntil;
    const timeout = core.tunnels.count > 0 ? Math.max(Math.ceil(nextSweep - now), 0) : -1;
    const found = native.poll(waitPointer, waitFor.length / POLLFD_WORDS, isBusy ? 0 : timeout);
    now = performance.now();
    if (found > 0) busyUntil = now + busyPoll;
    // Whoever makes the next packet, or takes the last, may need this core.
    else if (isBusy) native.schedYield();
    if (isReady(WAKE) && answerRequests() === 'close') return;
    if (isReady(TUN)) forwarder.outbound(now);
    if (isReady(GRE)) forwarder.inbound(gre, now);
    if (isReady(GRE_UDP)) forwarder.inbound(greUdp, now);
    if (isReady(ICMP)) forwarder.learn(icmp, now);
    if (segmentsRefused) giveUpSegments();
    if (now >= nextSweep) {
      forwarder.expire(now - idleTimeout);
      nextSweep = now + sweep;
    }
  }
}

/** Whether the last poll found something at this descriptor, be it an error, which the next read tells. */
function isReady(i: number): boolean {
  return (waitFor[i * POLLFD_WORDS + 1] as number) >>> 16 !== 0;
}

/** From now on each datagram is a message. Not at once, as `attach` writes the messages anew: others of the batch may wait to be sent. */
function giveUpSegments(): void {
  segmentsRefused = false;
  attach(offloads & ~OFFLOAD_UDP_SEGMENT);
  post({ kind: 'no-segmentation' });
}

/** From now on the devices can do what these OFFLOAD_ bits say. */
function attach(bits: number): void {
  offloads = bits;
  core.attach({ base: native.pointer(core.bytes), offloads, ports: Math.max(fds.sources.length, 1) });
}

function answerRequests(): 'close' | undefined {
  native.read(fds.wake, native.pointer(drain), drain.length);
  for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
    const request = got.message as WorkerRequest;
    if (request === 'close') return 'close';
    if (typeof request === 'object' && 'narrow' in request) {
      forwarder.narrow(request.narrow, request.mtu, performance.now());
    } else if (typeof request === 'object' && 'setMtu' in request) {
      core.configure({ ...coreConfig, mtu: request.setMtu });
    } else if (typeof request === 'object') {
      attach((offloads & ~OFFLOAD_GRE_SEGMENT) | request.segment);
    } else if (request === 'counters') {
      post({ kind: 'answer', answer: countersOf(core, refusals) });
    } else {
      const now = performance.now();
      const rows = core.tunnels.copy(now);
      post({ kind: 'answer', answer: { now, rows } }, [rows.buffer]);
    }
  }
  return undefined;
}

/** Asks the main thread to find out what fits, but not with every packet. */
function reportTooLong(vm: number): void {
  const now = performance.now();
  if (now - (reported.get(vm) ?? -Infinity) < REPORT_INTERVAL) return;
  if (reported.size >= MAX_REPORTED) reported.clear();
  reported.set(vm, now);
  post({ kind: 'too-long', vm });
}

function post(message: WorkerMessage, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

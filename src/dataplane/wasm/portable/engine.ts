/** The portable engine: everything in the event loop, one packet at a time, for platforms without the linux engine. */

import { MAX_PORTS } from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import { tunnelsFrom } from '../../../core/tunnels.ts';
import { formatAddress, ipv4 } from '../../../mesh/address.ts';
import type { Counters } from '../../dataplane.ts';
import type { DeviceName } from '../../drop-log.ts';
import type { PacketDevice, PacketSource } from '../device.ts';
import { countersOf, type Engine, type EngineOptions, guarded, sweepInterval } from '../engine.ts';
import { Forwarder } from '../forwarder.ts';
import { WITHOUT_PORT } from '../gre-udp.ts';
import { loadCore } from '../load-core.ts';
import { Refusals, type SentPacket } from '../refusals.ts';
import type { DeviceListeners, EventDevice } from './device.ts';
import { RawGreSocket } from './gre-socket.ts';
import { PortableGreUdpSocket } from './gre-udp-socket.ts';
import { RawIcmpSocket } from './icmp-socket.ts';
import { openPortableTun } from './tun.ts';

export async function startPortableEngine(options: EngineOptions): Promise<Engine> {
  const core = loadCore(options.core);
  core.configure(options.coreConfig);
  const isGreUdp = options.coreConfig.encapsulation === 'gre-udp';
  core.attach({ ports: MAX_PORTS });
  let engine: PortableEngine | undefined;
  let failure: Error | undefined;
  const onError = (error: Error) => {
    failure ??= error;
    engine?.fail(error);
  };
  const refusals = new Refusals(core, options.onDropped);
  const refusing = (device: DeviceName) => ({
    onError,
    onRefused: (errno: string, message: number) => refusals.refuse(message, device, errno),
  });
  const onSent = (sent: SentPacket, errno?: string) => {
    if (errno === undefined) refusals.reached(sent.peer);
    else refusals.refuseSent(sent, errno);
    engine?.finish();
  };
  const underlay = { ...refusing('underlay'), onSent };
  const devices: EventDevice[] = [];
  try {
    const gre = await RawGreSocket.open({ onReadable: () => engine?.inbound(gre), ...underlay });
    devices.push(gre);
    const icmp = await RawIcmpSocket.open({ onReadable: () => engine?.learn(icmp), ...underlay });
    devices.push(icmp);
    const local = formatAddress(ipv4(options.coreConfig.local));
    const sources = isGreUdp ? MAX_PORTS : 0;
    const listeners: DeviceListeners = { onReadable: () => greUdp && engine?.inbound(greUdp), ...underlay };
    const greUdp = await PortableGreUdpSocket.open(local, sources, options.coreConfig, listeners).catch((error) => {
      // Needed only where this VM sends it, too.
      if (isGreUdp) throw error;
      options.log.warn(`${error.message}: ${WITHOUT_PORT}`);
    });
    if (greUdp) devices.push(greUdp);
    // The device last: it is the one that has to be taken away again if something fails.
    const tun = await openPortableTun(options.device, { onReadable: () => engine?.outbound(), ...refusing('overlay') });
    devices.push(tun);
    if (failure) throw failure;
    const forwarder = new Forwarder(core, tun, isGreUdp && greUdp ? greUdp : gre, options);
    engine = new PortableEngine(core, refusals, devices, forwarder, options);
  } catch (error) {
    for (const device of devices) device.close();
    throw error;
  }
  return engine;
}

class PortableEngine implements Engine {
  readonly segmenter = { by: 'kernel' } as const; // Before we read.
  readonly segmentSizes = guarded('the portable engine cannot ask');
  readonly reinjects = false;
  readonly #core: PacketCore;
  readonly #refusals: Refusals;
  readonly #devices: EventDevice[];
  readonly #forwarder: Forwarder;
  readonly #options: EngineOptions;
  readonly #sweep: NodeJS.Timeout;
  #isClosed = false;

  constructor(
    core: PacketCore,
    refusals: Refusals,
    devices: EventDevice[],
    forwarder: Forwarder,
    options: EngineOptions,
  ) {
    this.#core = core;
    this.#refusals = refusals;
    this.#devices = devices;
    this.#forwarder = forwarder;
    this.#options = options;
    this.#sweep = setInterval(
      () => this.#forwarder.expire(performance.now() - options.idleTimeout),
      sweepInterval(options.idleTimeout),
    );
  }

  outbound(): void {
    this.#forwarder.outbound(performance.now());
  }

  inbound(from: PacketDevice): void {
    this.#forwarder.inbound(from, performance.now());
  }

  learn(from: PacketSource): void {
    this.#forwarder.learn(from, performance.now());
  }

  /** To be called when the core was told what became of a packet. */
  finish(): void {
    if (!this.#isClosed) this.#forwarder.finish();
  }

  fail(error: Error): void {
    if (this.#isClosed) return;
    this.#end();
    this.#options.onFailure(error);
  }

  deviceIsUp(): void {}

  setMtu(mtu: number): void {
    this.#core.configure({ ...this.#options.coreConfig, mtu });
  }

  async counters(): Promise<Counters> {
    const counters = countersOf(this.#core, this.#refusals);
    return this.#isClosed ? { ...counters, tunnels: 0 } : counters;
  }

  async tunnels(): ReturnType<Engine['tunnels']> {
    const now = performance.now();
    return { now, tunnels: this.#isClosed ? [] : tunnelsFrom(this.#core.tunnels.copy(now)) };
  }

  async close(): Promise<void> {
    if (!this.#isClosed) this.#end();
  }

  #end(): void {
    this.#isClosed = true;
    clearInterval(this.#sweep);
    for (const device of this.#devices) device.close();
  }
}

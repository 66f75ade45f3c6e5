/** The portable engine: everything in the event loop, one packet at a time, for platforms without the linux engine. */
import { type PacketCore, tunnelsFrom } from '../../core/core.ts';
import { type Counters, countersOf, type DataPlane, type DataPlaneOptions, sweepInterval } from '../../dataplane.ts';
import { Forwarder } from '../../forwarder.ts';
import { loadCore } from '../../load-core.ts';
import type { PacketDevice } from '../device.ts';
import { RawGreSocket } from './gre-socket.ts';
import { openPortableTun } from './tun.ts';

export async function startPortableEngine(options: DataPlaneOptions): Promise<DataPlane> {
  const core = loadCore(options.core);
  core.configure(options.coreConfig);
  let engine: PortableEngine | undefined;
  const onError = (error: Error) => engine?.fail(error);
  // The device last: it is the one that has to be taken away again if something fails.
  const socket = await RawGreSocket.open({
    onReadable: () => engine?.inbound(),
    onLost: (length) => core.countLost('outbound', length),
    onError,
  });
  const tun = await openPortableTun(options.device, { onReadable: () => engine?.outbound(), onError }).catch(
    (error) => {
      socket.close();
      throw error;
    },
  );
  engine = new PortableEngine(core, tun, socket, options);
  return engine;
}

class PortableEngine implements DataPlane {
  readonly #core: PacketCore;
  readonly #devices: PacketDevice[];
  readonly #forwarder: Forwarder;
  readonly #onFailure: (error: Error) => void;
  readonly #sweep: NodeJS.Timeout;

  constructor(core: PacketCore, tun: PacketDevice, socket: PacketDevice, options: DataPlaneOptions) {
    this.#core = core;
    this.#devices = [tun, socket];
    this.#forwarder = new Forwarder(core, tun, socket, options.onTunnels);
    this.#onFailure = options.onFailure;
    this.#sweep = setInterval(
      () => this.#forwarder.expire(performance.now() - options.idleTimeout),
      sweepInterval(options.idleTimeout),
    );
  }

  outbound(): void {
    this.#forwarder.outbound(performance.now());
  }

  inbound(): void {
    this.#forwarder.inbound(performance.now());
  }

  fail(error: Error): void {
    this.#onFailure(error);
  }

  async counters(): Promise<Counters> {
    return countersOf(this.#core);
  }

  async tunnels(): ReturnType<DataPlane['tunnels']> {
    return { now: performance.now(), tunnels: tunnelsFrom(this.#core.copyTunnels()) };
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep);
    for (const device of this.#devices) device.close();
  }
}

/** The wasm data plane: packets cross this process, from a TUN device through the packet core to a socket, and back. */
import { writeFileSync } from 'node:fs';
import type { Config } from '../../config/config.ts';
import type { CoreConfig } from '../../core/core.ts';
import { errorCode, InlayError } from '../../errors.ts';
import { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import type { Log } from '../../log.ts';
import { apply } from '../../machine/apply.ts';
import type { Journal } from '../../machine/journal.ts';
import { existsAlready } from '../../machine/make-link.ts';
import { quietKernelGre } from '../../machine/quiet-gre.ts';
import { type NetworkPlan, tunSteps } from '../../machine/steps.ts';
import type { DataPlane, DataPlaneListeners, Engine } from '../dataplane.ts';
import { startEngine } from './engines.ts';
import { encapsulationOf } from './steps.ts';

export interface WasmDataPlaneOptions extends DataPlaneListeners {
  plan: NetworkPlan;
  journal: Journal;
  log: Log;
}

/** Opens device and sockets, sets the device up, and forwards from then on. */
export async function startWasmDataPlane(config: Config, options: WasmDataPlaneOptions): Promise<DataPlane> {
  const { plan, journal, log } = options;
  const netlink = Netlink.open();
  let engine: Engine | undefined;
  try {
    if (findLink(netlink, config.device)) throw existsAlready(config.device);
    engine = await startEngine(config.engine, {
      ...options,
      device: config.device,
      core: config.core,
      coreConfig: coreConfigOf(config, plan),
      queues: config.queues,
      greSegmentation: config.greSegmentation,
      idleTimeout: config.idleTimeout,
      busyPoll: config.busyPoll,
    });
    if (engine.reinjects) allowReinjection(config);
    const onChange = (facts: object, what: string) => log.info(facts, what);
    apply(tunSteps(plan, encapsulationOf(config)), { netlink, journal, onChange });
    quietKernelGre({ netlink, journal }, log);
    engine.deviceIsUp();
  } catch (error) {
    await engine?.close();
    throw error;
  } finally {
    netlink.close();
  }
  return new WasmDataPlane(config, engine);
}

class WasmDataPlane implements DataPlane {
  readonly #config: Config;
  readonly #engine: Engine;

  constructor(config: Config, engine: Engine) {
    this.#config = config;
    this.#engine = engine;
  }

  get status(): DataPlane['status'] {
    const { core, engine, queues } = this.#config;
    const { by, obstacle } = this.#engine.segmenter;
    return { core, engine, segmentation: by, segmentationObstacle: obstacle, queues };
  }

  counters(): ReturnType<DataPlane['counters']> {
    return this.#engine.counters();
  }

  tunnels(): ReturnType<DataPlane['tunnels']> {
    return this.#engine.tunnels();
  }

  /** The device goes, and with it its addresses and routes. */
  close(): Promise<void> {
    return this.#engine.close();
  }
}

/**
 * Lets the kernel forward packets that come from our device with this VM's own underlay address as their source. Where it cannot be had, the core cuts super-packets.
 * Not in the journal: what belongs to the device goes with it.
 */
function allowReinjection({ device, greSegmentation }: Config): void {
  const conf = `/proc/sys/net/ipv4/conf/${device}`;
  try {
    writeFileSync(`${conf}/accept_local`, '1');
    writeFileSync(`${conf}/rp_filter`, '0');
  } catch (cause) {
    if (greSegmentation !== 'kernel') return;
    throw new InlayError('ERR_FAILED', `gre-segmentation kernel: this kernel does not let us: ${errorCode(cause)}`, {
      hint: 'it needs a writable /proc/sys; or --gre-segmentation core',
      cause,
    });
  }
}

/** What the core is told: its addresses are numbers, the rest is the configuration's. */
function coreConfigOf(config: Config, { local, mappings, mtu }: NetworkPlan): CoreConfig {
  const { encapsulation, engine, ecn } = config;
  return {
    ...config,
    local: Number(local.bits),
    mtu,
    encapsulation: encapsulationOf(config),
    // Node's UDP sockets cannot set the ECN field.
    ecn: engine === 'portable' && encapsulation === 'gre-udp' ? 'compatibility' : ecn,
    mappings: mappings.map((m) => ({
      overlay: Number(m.overlay.bits),
      overlayLength: m.overlay.length,
      underlay: Number(m.underlay.bits),
      underlayLength: m.underlay.length,
    })),
  };
}

/** What `status` and `tunnels` answer, from the configuration, the plan and the data plane. */
import type { Config } from '../config/config.ts';
import { addCounters, type Counters, type DataPlane } from '../dataplane/dataplane.ts';
import type { Barrier } from '../machine/barrier/barrier.ts';
import type { NetworkPlan } from '../machine/state.ts';
import { formatAddress, formatPrefix } from '../mesh/address.ts';
import { mappingsWith } from '../mesh/mapping.ts';
import type { Observer } from '../observe/observer.ts';
import {
  type ContainersStatus,
  directionStatus,
  type Status,
  type TunnelStatus,
  tunnelMtu,
  tunnelStatus,
} from '../observe/status.ts';

const NO_PACKETS = addCounters([]);

type Facts = Required<Pick<Status, 'state' | 'troubles' | 'remarks' | 'repaired'>> & {
  /** Undefined before there is an underlay address. */
  plan: NetworkPlan | undefined;
  dataPlane: DataPlane | undefined;
  barrier: Barrier | undefined;
  containers: ContainersStatus;
};

export class StatusReport {
  readonly #config: Config;
  readonly #overhead: number;
  readonly #observer: Observer;
  /** The last counters of the data plane. They stay while it is not open yet, or is closed already. */
  #counters: Counters = { outbound: NO_PACKETS, inbound: NO_PACKETS, tunnels: 0 };

  /** `overhead` is the bytes of all headers around a packet. */
  constructor(config: Config, overhead: number, observer: Observer) {
    this.#config = config;
    this.#overhead = overhead;
    this.#observer = observer;
  }

  async status({ state, troubles, remarks, repaired, plan, dataPlane, barrier, containers }: Facts): Promise<Status> {
    const { mappings, device, dataplane, encapsulation } = this.#config;
    this.#counters = (await dataPlane?.counters().catch(() => undefined)) ?? this.#counters;
    const counters = this.#counters;
    const { tunnels, rates, now, ages } = this.#observer;
    const direction = (name: 'outbound' | 'inbound' | 'icmp') =>
      directionStatus(counters[name] ?? NO_PACKETS, rates.of(name, now, counters));
    const local = plan?.local;
    const own = local ? mappingsWith(mappings, local) : [];
    return {
      ...{ state, troubles, remarks, ...ages, repaired, pid: process.pid },
      vm: local ? formatAddress(local) : '',
      overlayAddress: local && own[0] ? formatAddress(own[0].addressOf(local, 1n)) : '',
      mappings: own.map((m) => ({
        overlay: formatPrefix(m.overlay),
        underlay: formatPrefix(m.underlay),
        slice: local ? formatPrefix(m.sliceOf(local)) : '',
      })),
      ...{ device, dataPlane: dataplane, encapsulation, mtu: plan?.mtu ?? 0 },
      ...(plan && { underlayMtu: plan.mtu + this.#overhead }),
      ...dataPlane?.status,
      containers,
      ...(barrier && { barrier: barrier.status }),
      tunnels: counters.tunnels,
      tunnelStates: tunnels.summary(now),
      outbound: direction('outbound'),
      inbound: direction('inbound'),
      ...(counters.icmp && {
        replies: { sent: counters.outbound.replies, suppressed: counters.outbound.suppressed },
        ecnAnomalies: counters.inbound.anomalies,
        icmp: direction('icmp'),
      }),
      ...(counters.refused && { refused: counters.refused }),
    };
  }

  async tunnels(plan: NetworkPlan | undefined, dataPlane: DataPlane | undefined): Promise<TunnelStatus[]> {
    const found = await dataPlane?.tunnels();
    if (!found) return [];
    const { now, tunnels } = found;
    const { mappings, encapsulation } = this.#config;
    const watch = this.#observer.tunnels;
    watch.observe(found);
    return tunnels.map((tunnel) => ({
      ...tunnelStatus(mappings, tunnel, now, watch.of(tunnel.vm, now), encapsulation),
      mtu: tunnelMtu(plan?.mtu ?? 0, tunnel.pathMtu, this.#overhead),
    }));
  }
}

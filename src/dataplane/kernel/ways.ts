/**
 * The underlay's ways to other VMs: whether there is one, and which packets it takes. The kernel itself does not let that count when it forwards: it ignores
 * the path MTUs that it has learnt (ip_dst_mtu_maybe_forward in <net/ip.h>), and drops without a word what a tunnel has no route for. So the routes to slices
 * say it.
 */
import { readFileSync } from 'node:fs';
import type { TunnelState } from '../../core/tunnels.ts';
import { addressOf } from '../../linux/netlink/ipv4.ts';
import { IFF_UP } from '../../linux/netlink/link.ts';
import { type Message, NetlinkError, request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { RTM_DELROUTE, RTM_F_CLONED, RTM_GETROUTE, RTM_NEWROUTE, route } from '../../linux/netlink/route.ts';
import { AF_INET, findLink, routeTowards } from '../../linux/netlink/rtnetlink.ts';
import type { NetworkPlan } from '../../machine/state.ts';
import { wayToOthers } from '../../machine/underlay.ts';
import { ipv4, overlaps } from '../../mesh/address.ts';
import { refusalCause } from '../refusal-causes.ts';
import { dump } from './dump.ts';
import { Share } from './share.ts';

/** What is known about the way to a VM: nothing, as a rule. */
export type Way = Omit<TunnelState, 'vm'>;

const SNMP = '/proc/net/snmp';
/** RFC 792 */
const NETWORK_UNREACHABLE = 0;
/**
 * One part in so many of the time may go into the ways of all VMs, and as much into reading what the kernel has
 * learnt.
 */
const SHARE = 20;

export interface WaysOptions {
  netlink: Netlink;
  /** Opens a socket for a dump. */
  openNetlink: () => Netlink;
  plan: NetworkPlan;
  /** Bytes of all headers around a packet. */
  overhead: number;
  /** Whether outer packets may not be cut on their way. */
  pathMtuDiscovery: boolean;
}

export class Ways {
  readonly #options: WaysOptions;
  #plan: NetworkPlan;
  /** The devices that VMs are reached by, and bytes that they take; undefined where one is down or has gone. */
  #links = new Map<number, number | undefined>();
  /** The route that stands for all. */
  #common: string | undefined;
  #hasChanged = true;
  /** ICMP messages, destination unreachable, that this machine had got when paths were last read. */
  #told: number | undefined;
  readonly #all = new Share(SHARE);
  readonly #reading = new Share(SHARE);

  constructor(options: WaysOptions) {
    this.#options = options;
    this.#plan = options.plan;
  }

  get links(): number[] {
    return [...this.#links.keys()];
  }

  /** The way to a VM, as the kernel knows it now. */
  to(vm: number): Way {
    const { netlink, overhead, pathMtuDiscovery } = this.#options;
    try {
      const { metrics, oif } = routeTowards(netlink, ipv4(vm), this.#plan.local);
      if (!pathMtuDiscovery) return {};
      const pathMtu = Math.min(metrics?.mtu ?? Infinity, this.#linkMtu(oif) ?? Infinity);
      return pathMtu < this.#plan.mtu + overhead ? { pathMtu } : {};
    } catch (error) {
      const unreachable = error instanceof NetlinkError ? codeOf(error.code) : undefined;
      return unreachable === undefined ? {} : { unreachable };
    }
  }

  /** All ways may be others than before. */
  reload(): void {
    this.#hasChanged = true;
  }

  follow(plan: NetworkPlan): void {
    this.#hasChanged ||= plan.mtu !== this.#plan.mtu;
    this.#plan = plan;
  }

  /** Whether packets to other VMs may take the route that a notification is about, or took it. */
  concerns({ type, view, start, end }: Message): boolean {
    if (type !== RTM_NEWROUTE && type !== RTM_DELROUTE) return false;
    const { dst, dstLength } = route.get(view, start, end);
    const to = { width: 32, bits: addressOf(dst)?.bits ?? 0n, length: dstLength } as const;
    const isWay = this.#plan.mappings.some(({ underlay }) => overlaps(to, underlay));
    this.#hasChanged ||= isWay;
    return isWay;
  }

  /**
   * Has `follow` look at those ways that may be others than the last time: all, where routes or devices have
   * changed. If it is too early for that, or fails, a later time makes up for it.
   */
  async look(follow: (vms: readonly number[] | 'all') => Promise<void>): Promise<void> {
    this.#compare();
    if (!this.#hasChanged || !this.#all.isDue) {
      await follow(await this.#learnt());
      return;
    }
    this.#hasChanged = false;
    try {
      await this.#all.spend(() => follow('all'));
    } catch (error) {
      this.#hasChanged = true;
      throw error;
    }
  }

  /** Compares the routes and devices of the underlay with those of the last time. */
  #compare(): void {
    const { netlink } = this.#options;
    const { mappings, local } = this.#plan;
    const way = wayToOthers(netlink, mappings, local);
    const common = way && [way.oif, way.gateway?.join('.')].join();
    this.#hasChanged ||= common !== this.#common;
    this.#common = common;
    for (const [index, mtu] of this.#links) {
      const now = this.#lookAt(index);
      if (now === mtu) continue;
      this.#hasChanged = true;
      if (now === undefined) this.#links.delete(index);
    }
  }

  /**
   * VMs whose paths the kernel may have learnt something about. That nothing came since the last time costs one small file. The kernel keeps what it learns
   * for 10 minutes (`net.ipv4.route.mtu_expires`), and some 12,000 addresses for each route (FNHE_HASH_SIZE and FNHE_RECLAIM_DEPTH in net/ipv4/route.c).
   */
  async #learnt(): Promise<number[]> {
    if (!this.#options.pathMtuDiscovery || !this.#reading.isDue) return [];
    const told = unreachableMessages();
    if (told === this.#told) return [];
    const vms: number[] = [];
    try {
      await this.#reading.spend(async () => {
        for (const oif of this.#links.keys()) for await (const vm of this.#pathsOver(oif)) vms.push(vm);
      });
      this.#told = told;
    } catch (error) {
      // Routes came and went meanwhile: the next time tells the rest.
      if (!(error instanceof NetlinkError)) throw error;
    }
    return vms;
  }

  async *#pathsOver(oif: number): AsyncGenerator<number> {
    const query = request(RTM_GETROUTE, 0, 'paths', route, { family: AF_INET, flags: RTM_F_CLONED, oif });
    for await (const { dst } of dump(this.#options.openNetlink, query, route)) {
      const to = addressOf(dst);
      if (to) yield Number(to.bits);
    }
  }

  #linkMtu(oif: number | undefined): number | undefined {
    if (oif === undefined) return undefined;
    if (!this.#links.has(oif)) this.#lookAt(oif);
    return this.#links.get(oif);
  }

  #lookAt(index: number): number | undefined {
    const found = findLink(this.#options.netlink, index);
    const mtu = found && found.flags & IFF_UP ? found.mtu : undefined;
    this.#links.set(index, mtu);
    return mtu;
  }
}

/**
 * The code of ICMP that says the same as the kernel's answer, if that is that there is no way. No packet is
 * malformed here: EINVAL is the answer of a blackhole, and to a source that is not ours.
 */
function codeOf(errno: string): number | undefined {
  return errno === 'EINVAL' ? NETWORK_UNREACHABLE : refusalCause('underlay', errno).code;
}

/** How many ICMP messages, destination unreachable, this network namespace has got: those about packets that are too long are among them. */
function unreachableMessages(): number {
  const [names, values] = [...readFileSync(SNMP, 'utf8').matchAll(/^Icmp: (.*)$/gm)].map(([, line = '']) =>
    line.split(' '),
  );
  return Number(values?.[names?.indexOf('InDestUnreachs') ?? -1]);
}

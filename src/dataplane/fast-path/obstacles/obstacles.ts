/**
 * What the fast path would go past, or cannot do, on this machine as it is now: settings, routes that lead elsewhere, IPsec,
 * firewalls. All else of what others do to packets, they do to those of the fast path, too.
 */
import type { Config } from '../../../config/config.ts';
import { type Device, type DevicesNamed, NO_DEVICE, only } from '../../../linux/netfilter/packet.ts';
import type { Message } from '../../../linux/netlink/message.ts';
import { NetlinkError, request } from '../../../linux/netlink/message.ts';
import { netconf, RTM_GETNETCONF } from '../../../linux/netlink/netconf.ts';
import { AF_INET } from '../../../linux/netlink/rtnetlink.ts';
import type { Machine } from '../../../machine/machine.ts';
import type { NetworkPlan } from '../../../machine/state.ts';
import { OUTER } from '../../wire-format.ts';
import type { Format } from '../programs/programs.ts';
import { Attached } from './attached.ts';
import { type FirewallFacts, Firewalls } from './firewall.ts';
import { IpsecPolicies, type Pair } from './ipsec.ts';
import { cannot, type Obstacle } from './obstacle.ts';
import { Prompt } from './pace.ts';
import { PolicyRouting } from './policy-routing.ts';
import { type Uplink, Uplinks } from './uplink.ts';

export type { Uplink };

export interface ObstaclesOptions {
  config: Config;
  plan: () => NetworkPlan;
  machine: Machine;
  /** Names of containers' devices. Without it, they may have any name. */
  containers?: () => Iterable<string>;
  /** Which packets of other VMs are taken; all formats, if it is not told. */
  receives?: readonly Format[];
  /** Called as soon as something is heard that may be an obstacle. */
  onChange: () => void;
}

/** ms between two calls of `onChange`, if somebody changes something again and again. */
const PAUSE = 10;

export class Obstacles {
  readonly #options: ObstaclesOptions;
  readonly #uplinks: Uplinks;
  readonly #routing: PolicyRouting;
  readonly #ipsec: IpsecPolicies;
  readonly #attached: Attached;
  readonly #firewalls: Firewalls;
  readonly #prompt: Prompt;

  constructor(options: ObstaclesOptions) {
    this.#options = options;
    const { netlink } = options.machine;
    this.#uplinks = new Uplinks(netlink);
    this.#routing = new PolicyRouting(netlink);
    this.#prompt = new Prompt(PAUSE, options.onChange);
    this.#ipsec = new IpsecPolicies((after) => this.#prompt.call(after));
    this.#attached = new Attached(netlink);
    this.#firewalls = new Firewalls((after) => this.#prompt.call(after));
  }

  /** The device that leads to other VMs, and what is in the way: of several obstacles one that packets may not go past. */
  look(): { uplink?: Uplink; obstacle?: Obstacle } {
    const plan = this.#options.plan();
    const { uplink, obstacle } = this.#uplink(plan);
    const found = this.#setting() ?? obstacle ?? (uplink && this.#find(plan, uplink));
    // What other tables say of the next hop is not looked at.
    const nextHop = this.#routing.hasOtherWays ? undefined : uplink?.nextHop;
    return {
      ...(uplink && { uplink: { ...uplink, nextHop } }),
      ...(found && { obstacle: found }),
    };
  }

  /** Whether a change of a route may be an obstacle, or the end of one. */
  concerns(message: Message): boolean {
    const isOfTable = this.#routing.concerns(message);
    return this.#uplinks.concerns(message, this.#options.plan()) || isOfTable;
  }

  /** Changes of routes were not heard. */
  reload(): void {
    this.#uplinks.reload();
    this.#routing.reload();
  }

  close(): void {
    this.#ipsec.close();
    this.#attached.close();
    this.#firewalls.close();
    this.#prompt.close();
  }

  /** What a program cannot put into a packet, or is told of nothing. */
  #setting(): Obstacle | undefined {
    const { greChecksum, greSequence, pathMtuDiscovery } = this.#options.config;
    if (greChecksum) return cannot('gre-checksum is on');
    if (greSequence) return cannot('gre-sequence is on');
    return pathMtuDiscovery ? undefined : cannot('path-mtu-discovery is off');
  }

  #uplink(plan: NetworkPlan): ReturnType<Uplinks['look']> {
    try {
      return this.#uplinks.look(plan);
    } catch (error) {
      return { obstacle: cannot(unanswered(error)) };
    }
  }

  #find(plan: NetworkPlan, uplink: Uplink): Obstacle | undefined {
    const { config, machine } = this.#options;
    const { protocol } = OUTER[config.encapsulation];
    const index = machine.links.get(config.device);
    const overlay = index === undefined ? undefined : { name: config.device, index };
    const blocking = [
      () => this.#routing.look({ plan, uplink, routes: this.#uplinks.routes, protocol }),
      () => this.#ipsec.look(pairsOf(plan)),
      () => this.#forwarding(overlay),
      () => this.#attached.merging(uplink),
    ];
    const negligible = [
      () => machine.table.hiding().map((route) => `a route of others hides VMs: ${route}`)[0],
      () => this.#attached.gonePast(uplink, overlay),
      () => this.#firewalls.look(this.#firewallFacts(plan, uplink, overlay)),
    ];
    return first(blocking, false) ?? first(negligible, true);
  }

  #firewallFacts(plan: NetworkPlan, uplink: Uplink, overlay: Device | undefined): FirewallFacts {
    const { config, containers, receives = ['gre', 'gre-udp'] } = this.#options;
    return {
      ...{
        plan,
        uplink,
        overlay,
        sends: OUTER[config.encapsulation],
        receives: receives.map((format) => OUTER[format]),
      },
      containers: containers ? alike(containers()) : { prefix: '' },
      isContainer: (name) => !containers || [...containers()].includes(name),
    };
  }

  /** Where the overlay's device does not forward, the kernel drops what comes from there for containers. */
  #forwarding(overlay: Device | undefined): string | undefined {
    // While it is missing, the fast path is all that there is.
    if (!overlay) return undefined;
    const { index: ifindex, name } = overlay;
    try {
      const asked = request(RTM_GETNETCONF, 0, `settings of ${name}`, netconf, { family: AF_INET, ifindex });
      const { forwarding } = this.#options.machine.netlink.get(asked, netconf);
      return forwarding === 0 ? `net.ipv4.conf.${name}.forwarding is 0` : undefined;
    } catch (error) {
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }
}

/** Outer packets in both formats, since both are received, and containers' packets. */
function pairsOf({ mappings, local }: NetworkPlan): Pair[] {
  const overlays = mappings.map(({ overlay }) => overlay);
  return [
    ...mappings.flatMap(({ underlay }) =>
      [OUTER.gre, OUTER['gre-udp']].map(({ protocol }): Pair => ({ between: [only(local), underlay], protocol })),
    ),
    ...overlays.flatMap((a) => overlays.map((b): Pair => ({ between: [a, b] }))),
  ];
}

/** What the names begin with. Without any, there are no packets of containers either. */
function alike(names: Iterable<string>): Device | DevicesNamed {
  let prefix: string | undefined;
  for (const name of names) {
    prefix ??= name;
    while (!name.startsWith(prefix)) prefix = prefix.slice(0, -1);
  }
  return prefix === undefined ? NO_DEVICE : { prefix };
}

/** Whatever cannot be found out counts as an obstacle. */
function first(looks: readonly (() => string | undefined)[], mayGoPast: boolean): Obstacle | undefined {
  for (const look of looks) {
    try {
      const what = look();
      if (what !== undefined) return { what, mayGoPast };
    } catch (error) {
      return { what: unanswered(error), mayGoPast };
    }
  }
  return undefined;
}

function unanswered(error: unknown): string {
  return `the kernel cannot be asked: ${(error as Error).message}`;
}

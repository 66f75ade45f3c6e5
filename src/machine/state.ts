/**
 * What Inlay makes on a machine, as data: applied, compared and repaired, printed by `--dry-run`, noted in
 * the journal and undone from the same value.
 */

import type { LinkInfo } from '../linux/netlink/link.ts';
import { type Address, contains, formatAddress, formatPrefix } from '../mesh/address.ts';
import { type Mapping, mappingsWith } from '../mesh/mapping.ts';
import { aliasOf } from './alias.ts';
import type { BarrierFacts } from './barrier/rules.ts';

/**
 * Our routes carry these numbers, so that they are recognisable as ours (rtnetlink(7): numbers above
 * RTPROT_STATIC are free to use). 74 is for routes to containers; the catch-all has a number of its own, so
 * that it outlives a flush of the daemon's routes.
 */
export const ROUTE_PROTOCOL = 73;
export const CONTAINER_PROTOCOL = 74;
export const CATCH_ALL_PROTOCOL = 75;

/** The catch-all gives way to our route to the overlay, which has metric 0, and to no other route to it. */
export const CATCH_ALL_METRIC = 1;
/** Shortly before table main: what others route by rules of their own goes its way. */
const CATCH_ALL_PRIORITY = 32700;
/**
 * The unreachable route of the VM's own slice gives way to any route that others have to it, such as a
 * bridge's.
 */
const LAST_METRIC = 0xffffffff;

/** A device. The engine makes a TUN device by opening it; the machine only gives it its name back. */
export interface LinkThing {
  kind: 'link';
  device: string;
  info: LinkInfo;
  /** Link-layer address. */
  address?: Uint8Array;
}

/** What an existing device of ours is to have; what is not given is not looked at. */
export interface SettingsThing {
  kind: 'link-settings';
  device: string;
  alias: string;
  /** Bytes. */
  mtu: number;
  /** Packets. */
  txQueueLength: number;
  gsoMaxSegs?: number;
  gsoMaxSize?: number;
  /** Clears IFF_NOARP, with which the kernel never asks for a neighbour. */
  arp?: true;
}

/** All IPv4 addresses that a device of ours is to have. */
export interface AddressesThing {
  kind: 'addresses';
  device: string;
  addresses: string[];
}

/**
 * How the kernel asks for the neighbours of a device of ours: files below net/ipv4/neigh, by their names;
 * times in seconds.
 */
export interface NeighbourParametersThing {
  kind: 'neighbour-parameters';
  device: string;
  parameters: Readonly<Record<string, number>>;
}

/** A device that is to be up (IFF_UP). */
export interface UpThing {
  kind: 'link-up';
  device: string;
  /** A device of others, which may be missing. */
  others?: true;
}

/** A route of table main. */
export interface RouteThing {
  kind: 'route';
  /** A prefix. */
  to: string;
  /** Without a device the route is unreachable: who sends there is told so. */
  device?: string;
  /** Preferred source address. */
  source?: string;
  metric: number;
  protocol: number;
}

/** A rule of policy routing about packets for a prefix. */
export interface RuleThing {
  kind: 'rule';
  to: string;
  /** Its place among the rules: that of table main is 32766. */
  priority: number;
  /**
   * `main`: table main decides, but only by routes at least as long as the prefix. `unreachable`: the sender
   * is told so.
   */
  action: 'main' | 'unreachable';
}

/** A file below /proc/sys. */
export interface SysctlThing {
  kind: 'sysctl';
  /** With slashes, since a device's name may have dots: net/ipv4/conf/inlay0/forwarding. */
  name: string;
  value: string;
  /** Whose it is. */
  device: string;
  /** A device of others, which may be missing. */
  others?: true;
  /** It is no error if this process may not write the file. */
  optional?: true;
}

/** A UDP port of the kernel's FOU, whose payload is GRE. */
export interface FouThing {
  kind: 'fou';
  port: number;
}

/** A tc filter with one of our eBPF programs. */
export interface FilterThing {
  kind: 'filter';
  device: string;
  place: 'ingress' | 'egress';
  /** The program's descriptor. Without it, a filter of ours is removed. */
  program?: number;
  others?: true;
  /** What there is stays for now. */
  later?: true;
  /** By which a device of others is known, whatever it is called. */
  index?: number;
  /** If the kernel refuses the program, its data plane is told, and it is no trouble. */
  optional?: true;
}

/** The discipline at a device of others that holds our filters, where we made it. */
export interface ClsactThing {
  kind: 'clsact';
  device: string;
  /** As that of a filter. */
  index?: number;
}

/** The discipline that a filter is in. */
export function clsactFor({ device, index }: FilterThing): ClsactThing {
  return { kind: 'clsact', device, ...(index !== undefined && { index }) };
}

/** The filters with the fast path's program at the devices of all containers. */
export interface ContainerFiltersThing {
  kind: 'container-filters';
}

/** A table of nftables: what may come from where. */
export interface BarrierThing {
  kind: 'barrier';
  table: string;
  /** Not noted: to undo the table, its name is enough. */
  facts?: BarrierFacts;
}

/** A device that a route inside our own slice leads to, as containers have them. */
export interface GuardThing {
  kind: 'guard';
  /** What it was called; it is known by its interface index. */
  device: string;
  index: number;
}

/** An entry for all addresses of a device of ours that has no link layer, as a TUN device. */
export interface NeighbourThing {
  kind: 'neighbour';
  device: string;
}

/** A run directory that did not exist. */
export interface DirectoryThing {
  kind: 'directory';
  path: string;
}

export type Thing =
  | LinkThing
  | SettingsThing
  | AddressesThing
  | NeighbourParametersThing
  | UpThing
  | RouteThing
  | RuleThing
  | SysctlThing
  | FouThing
  | FilterThing
  | ClsactThing
  | ContainerFiltersThing
  | BarrierThing
  | GuardThing
  | NeighbourThing
  | DirectoryThing;

/** What identifies a thing on its machine. Two things with the same key are two states of one thing. */
export function keyOf(thing: Thing): string {
  switch (thing.kind) {
    case 'route':
      return `route ${thing.to} metric ${thing.metric}`;
    case 'rule':
      return `rule ${thing.to} ${thing.priority}`;
    case 'sysctl':
      return `sysctl ${thing.name}`;
    case 'fou':
      return `fou ${thing.port}`;
    case 'filter':
      return `filter ${thing.index ?? thing.device} ${thing.place}`;
    case 'clsact':
      return `clsact ${thing.index ?? thing.device}`;
    case 'barrier':
      return `barrier ${thing.table}`;
    case 'guard':
      return `guard ${thing.index}`;
    case 'directory':
      return `directory ${thing.path}`;
    case 'container-filters':
      return thing.kind;
    default:
      return `${thing.kind} ${thing.device}`;
  }
}

/** Where a VM is, and what its overlay device is called. */
export interface NetworkPlan {
  device: string;
  runDir: string;
  local: Address;
  mappings: readonly Mapping[];
  /** Of the device, in bytes. */
  mtu: number;
}

/**
 * Packets that may wait for the daemon. With the kernel's default of 500, bursts of several TCP streams were
 * dropped.
 */
const TX_QUEUE_LENGTH = 1000;

/** The fallback device of the module ip_gre: it takes part in protocol 47 wherever it exists. */
export const FALLBACK_GRE = 'gre0';

export function conf(device: string, name: string, value: string): SysctlThing {
  return { kind: 'sysctl', name: `net/ipv4/conf/${device}/${name}`, value, device };
}

/**
 * The catch-all, which is there before the first packet and stays until `down`. Where nothing else carries a
 * packet for the overlay, its sender is told so, and the packet never follows a default route. The route is
 * for rules of others that look at table main, such as wg-quick's. The rules are for the time after somebody
 * has flushed all routes.
 */
export function catchAllThings(mappings: readonly Mapping[]): Thing[] {
  return mappings.flatMap(({ overlay }): Thing[] => {
    const to = formatPrefix(overlay);
    return [
      { kind: 'route', to, metric: CATCH_ALL_METRIC, protocol: CATCH_ALL_PROTOCOL },
      { kind: 'rule', to, priority: CATCH_ALL_PRIORITY, action: 'main' },
      { kind: 'rule', to, priority: CATCH_ALL_PRIORITY + 1, action: 'unreachable' },
    ];
  });
}

/** Whether a thing is a part of the catch-all, which stays as long as there are containers. */
export function isCatchAll(thing: Thing): boolean {
  return thing.kind === 'rule' || (thing.kind === 'route' && thing.protocol === CATCH_ALL_PROTOCOL);
}

/**
 * Whether a thing stays when the daemon stops, whatever the data plane: the catch-all, the barrier and the fast
 * path, so that a restart loses none of its packets. Its programs are at devices of others.
 */
export function staysAfterStop(thing: Thing): boolean {
  const isOfOthers = thing.kind === 'filter' && thing.others === true;
  const isFastPath = isOfOthers || thing.kind === 'clsact' || thing.kind === 'container-filters';
  return thing.kind === 'barrier' || isFastPath || isCatchAll(thing);
}

/**
 * Nothing that comes in by gre0 is forwarded, nor believed where the way back leads through another device
 * (RFC 3704 §2.2).
 */
export function quietGreThings(): SysctlThing[] {
  return [
    { ...conf(FALLBACK_GRE, 'rp_filter', '1'), others: true },
    { ...conf(FALLBACK_GRE, 'forwarding', '0'), others: true },
  ];
}

/** Settings of the overlay's device that all data planes have. */
export function settingsOf({ device, runDir, local, mtu }: NetworkPlan): SettingsThing {
  const alias = aliasOf(local, device, runDir);
  return { kind: 'link-settings', device, alias, mtu, txQueueLength: TX_QUEUE_LENGTH };
}

/**
 * The overlay's device with its addresses and routes, from an existing device with its settings to one that
 * forwards.
 */
export function overlayThings(plan: NetworkPlan): Thing[] {
  const { device, local, mappings } = plan;
  const addresses = mappingsWith(mappings, local).map((mapping) => formatAddress(mapping.addressOf(local, 1n)));
  return [
    { kind: 'addresses', device, addresses },
    { kind: 'link-up', device },
    ...mappings.flatMap((mapping) => routesOf(plan, mapping)),
    // Where packets to other VMs go is arithmetic: nobody has to tell a better way (RFC 1122 §3.2.2.2).
    { ...conf(device, 'accept_redirects', '0'), optional: true },
    { ...conf(device, 'send_redirects', '0'), optional: true },
    conf(device, 'forwarding', '1'),
  ];
}

function routesOf({ device, local }: NetworkPlan, mapping: Mapping): RouteThing[] {
  const here = contains(mapping.underlay, local);
  const routes: RouteThing[] = [];
  // With an underlay of /32 our slice is the whole overlay, and there is no other VM to send to.
  if (!here || mapping.vmBits > 0) {
    const source = here ? { source: formatAddress(mapping.addressOf(local, 1n)) } : {};
    const to = formatPrefix(mapping.overlay);
    routes.push({ kind: 'route', to, device, ...source, metric: 0, protocol: ROUTE_PROTOCOL });
  }
  // Without this route, packets to an address of our slice that no container has would loop through the
  // overlay route.
  if (here) routes.push(unreachable(formatPrefix(mapping.sliceOf(local))));
  return routes;
}

/** Slices that belong to no VM. With these routes the kernel does not ask for their addresses. */
export function unusedSliceThings(mapping: Mapping): RouteThing[] {
  return mapping.unusedSlices.map((slice) => unreachable(formatPrefix(slice)));
}

function unreachable(to: string): RouteThing {
  return { kind: 'route', to, metric: LAST_METRIC, protocol: ROUTE_PROTOCOL };
}

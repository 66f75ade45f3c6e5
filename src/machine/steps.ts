/** What has to be done on a machine before packets flow, as data: carried out by apply.ts, printed as commands by words.ts. */

import { PACKETS_PER_MESSAGE } from '../core/abi.ts';
import type { LinkInfo } from '../linux/netlink/link.ts';
import { type Address, contains, formatAddress, formatPrefix, lowBits } from '../mesh/address.ts';
import { type Mapping, mappingsWith } from '../mesh/mapping.ts';

/** Our routes carry this number, so that they are recognisable as ours (rtnetlink(7): numbers above RTPROT_STATIC are free to use). */
export const ROUTE_PROTOCOL = 73;

/** How the aliases of our devices begin. */
export const ALIAS = 'inlay ';

/** A route of table main that carries our protocol number; addresses are text, so that it can be written down. */
export interface OverlayRoute {
  /** A prefix. */
  to: string;
  /** None: whoever sends there is told that it is unreachable. */
  device?: string;
  via?: string;
  source?: string;
}

export type Step =
  /** Makes a device. */
  | { kind: 'link'; device: string; info: LinkInfo; address?: Uint8Array }
  /** Lets the kernel take the device's protocol out of UDP datagrams to this port. */
  | { kind: 'fou'; port: number }
  | ({ kind: 'link-settings'; device: string } & LinkSettings)
  /** All that the device is to have. */
  | { kind: 'addresses'; device: string; addresses: string[] }
  /** How the kernel asks for neighbours. */
  | { kind: 'neighbour-parameters'; device: string; parameters: Record<string, number> }
  | { kind: 'link-up'; device: string }
  | { kind: 'route'; route: OverlayRoute }
  /** Below net.ipv4.conf.DEVICE; a wish, of a device of ours, is no error where it is not allowed. `ifAny`: there may be no such device. */
  | { kind: 'sysctl'; device: string; name: string; value: string; isWish?: true; ifAny?: true };

interface LinkSettings {
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

/** Packets that wait for the daemon; at the kernel's 500, bursts of several TCP streams were dropped. */
const TX_QUEUE_LENGTH = 1000;
/** The kernel's own limit of a super-packet (GSO_LEGACY_MAX_SIZE, <linux/netdevice.h>). */
const MAX_SUPER_PACKET = 65536;
/** What Linux counts for headers of a TCP super-packet (MAX_TCP_HEADER, <net/tcp.h>), about. */
const LONGEST_HEADERS = 320;
/** IPv4 and TCP headers without options. */
const MIN_HEADERS = 40;
const MAX_DATAGRAM = 65507;
const MAX_GRE = 8;

export interface NetworkPlan {
  device: string;
  local: Address;
  mappings: readonly Mapping[];
  /** Of the device, in bytes. */
  mtu: number;
}

/** The fallback device of the module ip_gre: it takes part in protocol 47 wherever it exists. */
export const FALLBACK_GRE = 'gre0';

/** Nothing that comes in by it is forwarded, nor believed where the way back leads through another device (RFC 3704 §2.2). */
export function quietGreSteps(): Step[] {
  return [
    { kind: 'sysctl', device: FALLBACK_GRE, name: 'rp_filter', value: '1', ifAny: true },
    { kind: 'sysctl', device: FALLBACK_GRE, name: 'forwarding', value: '0', ifAny: true },
  ];
}

/** For a TUN device, which the engine makes. */
export function tunSteps(plan: NetworkPlan, encapsulation: 'gre' | 'gre-udp'): Step[] {
  const { device, mtu } = plan;
  return [
    {
      ...settingsOf(plan),
      gsoMaxSegs: PACKETS_PER_MESSAGE,
      gsoMaxSize: superPacketSize(mtu, encapsulation),
    },
    addressStep(plan),
    // ICMP messages about packets of this VM itself come from its own overlay address, out of the device. Where this is not allowed, its own connections are all that miss them.
    { kind: 'sysctl', device, name: 'accept_local', value: '1', isWish: true },
    { kind: 'link-up', device },
    ...routeSteps(plan),
    { kind: 'sysctl', device, name: 'forwarding', value: '1' },
  ];
}

/** For a device of the kernel's, which asks for its neighbours. */
export function neighbourSteps(plan: NetworkPlan, parameters: Record<string, number>): Step[] {
  const { device } = plan;
  return [
    { ...settingsOf(plan), arp: true },
    { kind: 'neighbour-parameters', device, parameters },
    addressStep(plan),
    { kind: 'link-up', device },
    ...routeSteps(plan),
    ...plan.mappings.flatMap(lastSliceStep),
    { kind: 'sysctl', device, name: 'forwarding', value: '1' },
  ];
}

/** The slice that holds 255.255.255.255 is nobody's: the kernel need not ask for its addresses. */
function lastSliceStep(mapping: Mapping): Step[] {
  const { underlay, vmBits } = mapping;
  const last = { width: underlay.width, bits: underlay.bits | lowBits(vmBits) };
  return mapping.holdsBroadcast(last) ? [{ kind: 'route', route: { to: formatPrefix(mapping.sliceOf(last)) } }] : [];
}

function settingsOf({ device, local, mtu }: NetworkPlan): { kind: 'link-settings'; device: string } & LinkSettings {
  return { kind: 'link-settings', device, alias: ALIAS + formatAddress(local), mtu, txQueueLength: TX_QUEUE_LENGTH };
}

function addressStep({ device, local, mappings }: NetworkPlan): Step {
  const addresses = mappingsWith(mappings, local).map((mapping) => formatAddress(mapping.addressOf(local, 1n)));
  return { kind: 'addresses', device, addresses };
}

function routeSteps({ device, local, mappings }: NetworkPlan): Step[] {
  return mappings.flatMap((mapping) => {
    const here = contains(mapping.underlay, local);
    const routes: OverlayRoute[] = [];
    // With an underlay of /32 our slice is the whole overlay, and there is no other VM to send to.
    if (!here || mapping.vmBits > 0) {
      const source = here ? { source: formatAddress(mapping.addressOf(local, 1n)) } : {};
      routes.push({ to: formatPrefix(mapping.overlay), device, ...source });
    }
    // Addresses of our slice that no container has would come back to us through the overlay route.
    if (here) routes.push({ to: formatPrefix(mapping.sliceOf(local)) });
    return routes.map((route): Step => ({ kind: 'route', route }));
  });
}

/**
 * What the kernel may put into one super-packet, in bytes. GRE-in-UDP: as many wire packets as one datagram has room for before the kernel cuts it up, so that
 * a super-packet is one message. Linux takes the longest headers off this size before it counts segments (tcp_gso_size_goal).
 */
function superPacketSize(mtu: number, encapsulation: 'gre' | 'gre-udp'): number {
  if (encapsulation === 'gre') return MAX_SUPER_PACKET;
  const segments = Math.min(Math.floor(MAX_DATAGRAM / (mtu + MAX_GRE)), PACKETS_PER_MESSAGE);
  return Math.min(segments * (mtu - MIN_HEADERS) + LONGEST_HEADERS, MAX_SUPER_PACKET);
}

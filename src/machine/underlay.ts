/** What this machine's underlay looks like: its own address in it, and the MTU towards other VMs. */

import { InlayError } from '../errors.ts';
import type { Address as LinkAddress } from '../linux/netlink/address.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { type Route, RTN_LOCAL, RTN_UNICAST } from '../linux/netlink/route.ts';
import { addresses, findLink, matchingRoute, routeTowards } from '../linux/netlink/rtnetlink.ts';
import { type Address, contains, formatAddress, formatPrefix } from '../mesh/address.ts';
import { type Mapping, mappingsWith } from '../mesh/mapping.ts';

export interface Underlay {
  /** This VM's underlay address. */
  local: Address;
  /** The device that has it. */
  device: string;
  /** Bytes that an outer packet may have. */
  mtu: number;
  /** What else the choice was made from, in words; undefined if there was nothing to choose. */
  others?: string;
}

/** An address of this machine. */
interface Candidate {
  address: Address;
  index: number;
  isSecondary: boolean;
  length: number;
}

/** From <linux/if_addr.h>: another address of the same subnet came first on this device. */
const IFA_F_SECONDARY = 0x01;
const IPV4_WIDTH = 32;

/** This machine has no underlay address yet. It may get one, so `up` waits. */
export class NoUnderlayError extends InlayError {}

/**
 * Finds this VM's address inside the underlay prefixes. It is `wanted`, if that is given. Of several it is
 * `before`, which this VM had last; else the only primary address of a subnet. Addresses of a single host
 * (/32) and secondary addresses come last, because virtual addresses, which move between VMs, look so. Throws
 * NoUnderlayError while there is no address, and ERR_CONFIG where this rule does not decide.
 */
export function findUnderlay(
  netlink: Netlink,
  mappings: readonly Mapping[],
  wanted: Address | undefined,
  before?: Address,
): Underlay {
  const isInside = (address: Address) => mappings.some((m) => contains(m.underlay, address));
  // The list of addresses may change while it is read, as containers come and go. Then what was read is
  // enough, if the address is in it.
  const all = candidates(netlink, ({ address }) => (wanted ? address.bits === wanted.bits : isInside(address)));
  const list = (found: readonly Candidate[]) => found.map((c) => addressText(netlink, c)).join(', ') || 'none at all';
  const prefixes = [...new Set(mappings.map((m) => formatPrefix(m.underlay)))].join(', ');
  const inside = all.filter(({ address }) => isInside(address));
  if (wanted) {
    const text = formatAddress(wanted);
    if (!isInside(wanted))
      throw new InlayError('ERR_CONFIG', `local address ${text} is outside the underlay ${prefixes}`);
    const own = all.find(({ address }) => address.bits === wanted.bits);
    if (!own)
      throw new NoUnderlayError('ERR_CONFIG', `local address ${text} is not on this machine: it has ${list(all)}`);
    return underlayOf(netlink, mappings, own);
  }
  if (inside.length === 0) {
    throw new NoUnderlayError(
      'ERR_CONFIG',
      `this machine has no address inside the underlay ${prefixes}: it has ${list(all)}`,
      { hint: 'correct the underlay prefix, or give this VM an address in it' },
    );
  }
  const chosen = choose(inside, before);
  if (!chosen) {
    throw new InlayError('ERR_CONFIG', `several addresses are inside the underlay ${prefixes}: ${list(inside)}`, {
      hint: `choose one with --local ${formatAddress((inside[0] as Candidate).address)}`,
    });
  }
  const others = inside.filter((each) => each !== chosen);
  return { ...underlayOf(netlink, mappings, chosen), ...(others.length > 0 && { others: list(others) }) };
}

function choose(inside: readonly Candidate[], before: Address | undefined): Candidate | undefined {
  const last = inside.find(({ address }) => address.bits === before?.bits);
  if (last) return last;
  const rank = ({ isSecondary, length }: Candidate) => (isSecondary ? 2 : 0) + (length === IPV4_WIDTH ? 1 : 0);
  const best = Math.min(...inside.map(rank));
  const [first, another] = inside.filter((each) => rank(each) === best);
  return another ? undefined : first;
}

/** All addresses; if they change while they are read, at least those up to one that is `enough`. */
function candidates(netlink: Netlink, enough: (candidate: Candidate) => boolean = () => false): Candidate[] {
  return addresses(netlink, 0, (found) => found.flatMap(candidateOf).some(enough)).flatMap(candidateOf);
}

function candidateOf({ local, index, flags, prefixLength }: LinkAddress): Candidate[] {
  const address = addressOf(local);
  return address ? [{ address, index, isSecondary: (flags & IFA_F_SECONDARY) !== 0, length: prefixLength }] : [];
}

function addressText(netlink: Netlink, { address, index }: Candidate): string {
  return `${formatAddress(address)} on ${findLink(netlink, index)?.name ?? `device ${index}`}`;
}

function underlayOf(netlink: Netlink, mappings: readonly Mapping[], { address, index }: Candidate): Underlay {
  const link = findLink(netlink, index);
  return {
    local: address,
    device: link?.name ?? '',
    mtu: underlayMtu(netlink, mappings, address) ?? link?.mtu ?? 0,
  };
}

/** Whether this machine has the address now: the kernel then has a route of type local to it. */
export function hasAddress(netlink: Netlink, local: Address): boolean {
  try {
    return routeTowards(netlink, local).type === RTN_LOCAL;
  } catch {
    return false;
  }
}

/** This machine's addresses, but those of one device and the loopback's, in words. */
export function addressList(netlink: Netlink, except: string): string {
  const own = findLink(netlink, except)?.index;
  const others = candidates(netlink).filter(({ index }) => index !== LOOPBACK && index !== own);
  return others.map((c) => addressText(netlink, c)).join(', ') || 'none at all';
}

/** A route, and the links of all its next hops. */
type Way = Route & { hops: number[] };

/**
 * The route from our address to other VMs; undefined if there is none. It is the route to an address next to
 * ours. This machine may have that address, too: then the next one is tried.
 */
export function wayToOthers(netlink: Netlink, mappings: readonly Mapping[], local: Address): Way | undefined {
  const bits = Math.max(0, ...mappingsWith(mappings, local).map(({ vmBits }) => vmBits));
  for (let i = 0; i < bits; i++) {
    const to = { width: local.width, bits: local.bits ^ (1n << BigInt(i)) };
    try {
      const found = routeTowards(netlink, to, local);
      // What the kernel has learnt of the path to one VM says nothing about the others: the MTU is that of
      // the route itself.
      if (found.type !== RTN_UNICAST) continue;
      const match = matchingRoute(netlink, to, local);
      const hops = [found.oif, match?.oif, ...(match?.multipath ?? []).map(({ ifindex }) => ifindex)];
      return { ...found, metrics: match?.metrics, hops: [...new Set(hops)].filter((hop) => hop !== undefined) };
    } catch {} // There is no route to this address. There may be one to the next.
  }
  return undefined;
}

/**
 * The address that masquerading gives to what leaves by a device for this next hop (inet_select_addr in
 * net/ipv4/devinet.c); undefined if the device has none.
 */
export function masqueradeSource(netlink: Netlink, index: number, nextHop: Address): Address | undefined {
  const primary = addresses(netlink, index)
    .flatMap(candidateOf)
    .filter(({ isSecondary }) => !isSecondary);
  const near = primary.find(({ address, length }) => contains({ ...address, length }, nextHop));
  return (near ?? primary[0])?.address;
}

/** The MTU of the route to other VMs; undefined if there is none. */
export function underlayMtu(netlink: Netlink, mappings: readonly Mapping[], local: Address): number | undefined {
  const way = wayToOthers(netlink, mappings, local);
  return way && mtuOf(netlink, way);
}

/** The MTU of a route: its own metric, else that of the link it leaves by. */
function mtuOf(netlink: Netlink, { metrics, oif }: Route): number | undefined {
  const link = oif === undefined ? undefined : findLink(netlink, oif)?.mtu;
  const known = [link, metrics?.mtu].filter((mtu) => mtu !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/**
 * The MTU of the route from our address to another; undefined if it is not known. Throws if there is no
 * route.
 */
export function mtuTowards(to: Address, from: Address): number | undefined {
  const netlink = Netlink.open();
  try {
    return mtuOf(netlink, routeTowards(netlink, to, from));
  } finally {
    netlink.close();
  }
}

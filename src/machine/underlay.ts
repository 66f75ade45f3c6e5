/** What this machine's underlay looks like: its own address in it, and the MTU towards other VMs. */

import { InlayError } from '../errors.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import type { ReceivedLink } from '../linux/netlink/link.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { addresses, findLink, links, routeTowards } from '../linux/netlink/rtnetlink.ts';
import { type Address, contains, formatAddress, formatPrefix } from '../mesh/address.ts';
import type { Mapping } from '../mesh/mapping.ts';

export interface Underlay {
  /** This VM's underlay address. */
  local: Address;
  /** Bytes that an outer packet may have. */
  mtu: number;
}

/** Finds this VM's address inside the underlay prefixes: `wanted`, or the only one there is. Throws ERR_CONFIG with what was found. */
export function findUnderlay(mappings: readonly Mapping[], wanted: Address | undefined): Underlay {
  const netlink = Netlink.open();
  try {
    return find(netlink, mappings, wanted);
  } finally {
    netlink.close();
  }
}

function find(netlink: Netlink, mappings: readonly Mapping[], wanted: Address | undefined): Underlay {
  const byIndex = new Map(links(netlink).map((link) => [link.index, link]));
  const prefixes = [...new Set(mappings.map((m) => formatPrefix(m.underlay)))].join(', ');
  const all = addresses(netlink).flatMap(({ local, index }) => {
    const found = addressOf(local);
    const link = byIndex.get(index);
    return found && link ? [{ address: found, link, text: `${formatAddress(found)} on ${link.name}` }] : [];
  });
  const list = (found: typeof all) => found.map((a) => a.text).join(', ') || 'none at all';
  const inside = all.filter((a) => mappings.some((m) => contains(m.underlay, a.address)));

  if (wanted) {
    const text = formatAddress(wanted);
    if (!mappings.some((m) => contains(m.underlay, wanted))) {
      throw new InlayError('ERR_CONFIG', `local address ${text} is outside the underlay ${prefixes}`);
    }
    const own = all.find((a) => a.address.bits === wanted.bits);
    if (!own) {
      throw new InlayError('ERR_CONFIG', `local address ${text} is not on this machine: it has ${list(all)}`);
    }
    return { local: wanted, mtu: routeMtu(netlink, mappings, wanted, own.link) };
  }
  const [only, another] = inside;
  if (!only) {
    throw new InlayError(
      'ERR_CONFIG',
      `this machine has no address inside the underlay ${prefixes}: it has ${list(all)}`,
      {
        hint: 'correct the underlay prefix, or give this VM an address in it',
      },
    );
  }
  if (another) {
    throw new InlayError('ERR_CONFIG', `several addresses are inside the underlay ${prefixes}: ${list(inside)}`, {
      hint: `choose one with --local ${formatAddress(only.address)}`,
    });
  }
  return { local: only.address, mtu: routeMtu(netlink, mappings, only.address, only.link) };
}

/** The MTU of the route to other VMs. The address next to ours stands for all of them. */
function routeMtu(netlink: Netlink, mappings: readonly Mapping[], local: Address, { mtu = 0 }: ReceivedLink): number {
  if (!mappings.some((m) => contains(m.underlay, local) && m.vmBits > 0)) return mtu; // There is no other VM.
  const neighbour = { width: local.width, bits: local.bits ^ 1n };
  try {
    return mtuOf(netlink, neighbour, local);
  } catch {
    return mtu; // There may be no route to that address: the others may have one.
  }
}

/** The MTU of the route from our address to another: its own metric, else that of the link it leaves by. */
function mtuOf(netlink: Netlink, to: Address, from: Address): number {
  const { metrics, oif } = routeTowards(netlink, to, from);
  const link = oif === undefined ? undefined : findLink(netlink, oif)?.mtu;
  const metric = metrics?.mtu;
  return Math.min(Number(link ?? metric), Number(metric ?? link));
}

/** The MTU of the route from our address to another. Throws if there is no route. */
export function mtuTowards(to: Address, from: Address): number {
  const netlink = Netlink.open();
  try {
    return mtuOf(netlink, to, from);
  } finally {
    netlink.close();
  }
}

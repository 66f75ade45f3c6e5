/**
 * What could drop packets that the kernel forwards from our device to the underlay: strict reverse path filtering, chains of nftables, tables of iptables.
 * A rule set is not judged: that there is one, where forwarded packets pass, is enough.
 */
import { readFileSync } from 'node:fs';
import { legacyTables } from '../../../linux/netfilter/iptables-legacy.ts';
import { FAMILIES, nftChains } from '../../../linux/netfilter/nft.ts';
import { deviceOfTable } from '../../../linux/netfilter/own-tables.ts';
import { type Chain, NF_ACCEPT, NF_INET_FORWARD, NF_INET_PRE_ROUTING } from '../../../linux/netlink/nf-tables.ts';

/** The type of chains, and in iptables the table, whose rules are for changing addresses. */
const NAT = 'nat';

/** The first that is found, in words; undefined if there is none. Whatever cannot be found out counts as one. Asks the kernel, which takes some 0.1 ms. */
export function forwardObstacle(device: string): string | undefined {
  try {
    const strict = strictSysctl(device);
    if (strict) return `${strict.name} is ${strict.value}`;
    const table = legacyTables().find((name) => name !== NAT);
    if (table) return `iptables has a table ${table}`;
    const chain = nftChains().find(isObstacle);
    return chain && `nftables has a chain ${FAMILIES.get(chain.family)} ${chain.table} ${chain.name}`;
  } catch (error) {
    return `the kernel cannot be asked: ${(error as Error).message}`;
  }
}

export interface StrictSysctl {
  name: string;
  value: number;
  wanted: number;
}

/** A sysctl for which the kernel drops packets that come from `device` with this VM's own underlay address as their source (Documentation/networking/ip-sysctl.rst). */
export function strictSysctl(device: string): StrictSysctl | undefined {
  const read = (of: string, key: string) => Number(readFileSync(`/proc/sys/net/ipv4/conf/${of}/${key}`, 'utf8'));
  const name = (of: string, key: string) => `net.ipv4.conf.${of}.${key}`;
  // The device may have got other values since it was made: udev applies /etc/sysctl.d to new devices.
  const [all, own] = [read('all', 'rp_filter'), read(device, 'rp_filter')];
  if (Math.max(all, own) === 1) return { name: name(all === 1 ? 'all' : device, 'rp_filter'), value: 1, wanted: 2 };
  if (!read('all', 'accept_local') && !read(device, 'accept_local'))
    return { name: name(device, 'accept_local'), value: 0, wanted: 1 };
  if (!read(device, 'forwarding')) return { name: name(device, 'forwarding'), value: 0, wanted: 1 };
  return undefined;
}

function isObstacle({ family, table, hook, type, policy }: Chain): boolean {
  // The barrier lets what we send pass.
  if (!FAMILIES.has(family) || hook === undefined || deviceOfTable(table) !== undefined) return false;
  if (hook.hooknum !== NF_INET_FORWARD && hook.hooknum !== NF_INET_PRE_ROUTING) return false;
  return type !== NAT || policy !== NF_ACCEPT;
}

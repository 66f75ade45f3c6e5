/**
 * What could drop packets that the kernel forwards from our device to the underlay: strict reverse path filtering, chains of nftables, tables of iptables.
 * A rule set is not judged: that there is one, where forwarded packets pass, is enough.
 */
import { readFileSync } from 'node:fs';
import { errorCode } from '../../../errors.ts';
import { request } from '../../../linux/netlink/message.ts';
import { Netlink } from '../../../linux/netlink/netlink.ts';
import {
  type Chain,
  chain,
  NF_ACCEPT,
  NF_INET_FORWARD,
  NF_INET_PRE_ROUTING,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFT_MSG_GETCHAIN,
} from '../../../linux/netlink/nf-tables.ts';
import { NETLINK_NETFILTER } from '../../../linux/netlink/transport.ts';

/** Tables of iptables-legacy in this network namespace, one a line; missing without the module. */
const IPTABLES = '/proc/net/ip_tables_names';
/** Loaded modules, one a line. */
const MODULES = '/proc/modules';
/** The type of chains, and in iptables the table, whose rules are for changing addresses. */
const NAT = 'nat';

const FAMILIES = new Map([
  [NFPROTO_INET, 'inet'],
  [NFPROTO_IPV4, 'ip'],
]);
/** What a kernel without nftables answers: to the request, or to the socket already. */
const WITHOUT_NFTABLES = ['EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT'];

/** Whether the kernel has said that it has no nftables. Each time it is asked it looks for a module to load. */
let hasNoNftables = false;

/** The first that is found, in words; undefined if there is none. Whatever cannot be found out counts as one. Asks the kernel, which takes some 0.1 ms. */
export function forwardObstacle(device: string): string | undefined {
  try {
    const strict = strictSysctl(device);
    if (strict) return `${strict.name} is ${strict.value}`;
    const tables = readIfExists(IPTABLES).trim().split('\n');
    const table = tables.find((name) => name !== '' && name !== NAT);
    if (table) return `iptables has a table ${table}`;
    const chain = hookedChain();
    return chain && `nftables has a chain ${chain}`;
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

/** Empty if the kernel has no such thing. */
function readIfExists(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return '';
    throw error;
  }
}

/** The first chain of nftables that forwarded packets pass and that could drop them. */
function hookedChain(): string | undefined {
  if (hasNoNftables && !/^nf_tables /m.test(readIfExists(MODULES))) return undefined;
  hasNoNftables = false;
  try {
    const found = chains().find(isObstacle);
    return found && `${FAMILIES.get(found.family)} ${found.table} ${found.name}`;
  } catch (error) {
    hasNoNftables = WITHOUT_NFTABLES.includes(errorCode(error) ?? '');
    if (hasNoNftables) return undefined;
    throw error;
  }
}

function chains(): Chain[] {
  const netlink = Netlink.open(NETLINK_NETFILTER);
  try {
    return netlink.dump(request(NFT_MSG_GETCHAIN, 0, 'chains of nftables', chain, {}), chain);
  } finally {
    netlink.close();
  }
}

function isObstacle({ family, hook, type, policy }: Chain): boolean {
  if (!FAMILIES.has(family) || hook === undefined) return false;
  if (hook.hooknum !== NF_INET_FORWARD && hook.hooknum !== NF_INET_PRE_ROUTING) return false;
  return type !== NAT || policy !== NF_ACCEPT;
}

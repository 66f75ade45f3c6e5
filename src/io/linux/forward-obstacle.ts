/**
 * What could drop packets that the kernel forwards from our device to the underlay: strict reverse path filtering, chains of nftables, tables of iptables.
 * A rule set is not judged: that there is one, where forwarded packets pass, is enough.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { errorCode } from '../../errors.ts';
import * as native from './native.ts';

/** Tables of iptables-legacy in this network namespace, one a line; missing without the module. */
const IPTABLES = '/proc/net/ip_tables_names';
/** Loaded modules, one a line. */
const MODULES = '/proc/modules';
/** The type of chains, and in iptables the table, whose rules are for changing addresses. */
const NAT = 'nat';

// <linux/netlink.h>, <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>, <linux/netfilter.h>
const NETLINK_NETFILTER = 12;
const NLM_F_REQUEST = 1;
const NLM_F_DUMP = 0x300;
const NLM_F_DUMP_INTR = 0x10;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETCHAIN = 4;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NF_INET_PRE_ROUTING = 0;
const NF_INET_FORWARD = 2;
const NF_ACCEPT = 1;
const FAMILIES = new Map([
  [1, 'inet'],
  [2, 'ip'],
]);
const NLA_TYPE_MASK = 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
const { EINVAL, EOPNOTSUPP, EPROTONOSUPPORT } = os.constants.errno;
/** What a kernel without nftables answers. */
const WITHOUT_NFTABLES: number[] = [EINVAL, EOPNOTSUPP];
/** nlmsghdr and nfgenmsg. */
const HEADERS = 20;
const BUFFER_SIZE = 64 << 10;
/** How often a rule set may change while it is read. */
const ATTEMPTS = 3;

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
  const fd = native.socket(
    native.AF_NETLINK,
    native.SOCK_RAW | native.SOCK_CLOEXEC | native.SOCK_NONBLOCK,
    NETLINK_NETFILTER,
  );
  hasNoNftables = fd < 0 && native.errno() === EPROTONOSUPPORT;
  if (hasNoNftables) return undefined;
  native.must(fd, 'socket', 'of nfnetlink');
  try {
    for (let i = 0; i < ATTEMPTS; i++) {
      askForChains(fd);
      const { chain, isComplete } = readChains(fd);
      if (chain || isComplete) return chain;
    }
    throw new Error('its rules keep changing');
  } finally {
    native.close(fd);
  }
}

function askForChains(fd: number): void {
  const request = new DataView(new ArrayBuffer(HEADERS));
  request.setUint32(0, HEADERS, true);
  request.setUint16(4, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETCHAIN, true);
  request.setUint16(6, NLM_F_REQUEST | NLM_F_DUMP, true);
  native.must(native.write(fd, native.pointer(request), HEADERS), 'write', 'to nfnetlink');
}

/** Reads all answers, or up to the first such chain. Without one they may be incomplete, if the rules changed meanwhile. */
function readChains(fd: number): { chain?: string; isComplete: boolean } {
  const buffer = new DataView(new ArrayBuffer(BUFFER_SIZE));
  let isComplete = true;
  for (;;) {
    const length = native.must(native.read(fd, native.pointer(buffer), BUFFER_SIZE), 'read', 'from nfnetlink');
    for (let at = 0; at + HEADERS <= length; at += align(buffer.getUint32(at, true))) {
      const type = buffer.getUint16(at + 4, true);
      if (buffer.getUint16(at + 6, true) & NLM_F_DUMP_INTR) isComplete = false;
      if (type === NLMSG_ERROR || type === NLMSG_DONE) {
        const errno = -buffer.getInt32(at + 16, true);
        hasNoNftables = type === NLMSG_ERROR && WITHOUT_NFTABLES.includes(errno);
        if (errno > 0 && !hasNoNftables) throw new Error(`nfnetlink: errno ${errno}`);
        return { isComplete };
      }
      const chain = chainIn(buffer, at, at + buffer.getUint32(at, true));
      if (chain) return { chain, isComplete };
    }
  }
}

/** The chain that the message from `start` to `end` describes, if it is one of those. */
function chainIn(buffer: DataView, start: number, end: number): string | undefined {
  const family = FAMILIES.get(buffer.getUint8(start + 16));
  const chain = attributes(buffer, start + HEADERS, end);
  const hook = chain.get(NFTA_CHAIN_HOOK);
  if (family === undefined || hook === undefined) return undefined;
  const number = (attribute: number, of: typeof chain) => buffer.getUint32(of.get(attribute)?.[0] ?? 0);
  const hooknum = number(NFTA_HOOK_HOOKNUM, attributes(buffer, ...hook));
  const text = (attribute: number) => {
    const [from, to] = chain.get(attribute) ?? [0, 1];
    return new TextDecoder().decode(new Uint8Array(buffer.buffer, from, to - from - 1)); // without the final zero
  };
  if (hooknum !== NF_INET_FORWARD && hooknum !== NF_INET_PRE_ROUTING) return undefined;
  if (text(NFTA_CHAIN_TYPE) === NAT && number(NFTA_CHAIN_POLICY, chain) === NF_ACCEPT) return undefined;
  return `${family} ${text(NFTA_CHAIN_TABLE)} ${text(NFTA_CHAIN_NAME)}`;
}

/** Where the value of each attribute (struct nlattr, <linux/netlink.h>) begins and ends. */
function attributes(buffer: DataView, start: number, end: number): Map<number, [start: number, end: number]> {
  const found = new Map<number, [number, number]>();
  for (let at = start; at + 4 <= end; ) {
    const length = buffer.getUint16(at, true);
    if (length < 4) break;
    found.set(buffer.getUint16(at + 2, true) & NLA_TYPE_MASK, [at + 4, at + length]);
    at += align(length);
  }
  return found;
}

function align(length: number): number {
  return (length + 3) & ~3;
}

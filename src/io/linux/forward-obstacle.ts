/**
 * What could drop packets that the kernel forwards from our device to the underlay: strict reverse path filtering, chains of nftables, tables of iptables.
 * A rule set is not judged: that there is one, where forwarded packets pass, is enough.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import { errorCode } from '../../errors.ts';
import * as native from './native.ts';

/** The stricter of this and the device's own, which is 0, counts (Documentation/networking/ip-sysctl.rst). */
const RP_FILTER = '/proc/sys/net/ipv4/conf/all/rp_filter';
/** Tables of iptables-legacy in this network namespace, one a line; missing without the module. */
const IPTABLES = '/proc/net/ip_tables_names';
/** It changes addresses, of the first packet of a flow at that, and drops nothing. */
const HARMLESS = 'nat';

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
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_HOOKNUM = 1;
const NF_INET_PRE_ROUTING = 0;
const NF_INET_FORWARD = 2;
const FAMILIES = new Map([
  [1, 'inet'],
  [2, 'ip'],
]);
const NLA_TYPE_MASK = 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
/** What a kernel without nftables answers. */
const WITHOUT_NFTABLES = [os.constants.errno.EINVAL, os.constants.errno.EOPNOTSUPP];
/** nlmsghdr and nfgenmsg. */
const HEADERS = 20;
const BUFFER_SIZE = 64 << 10;

/** The first that is found, in words; undefined if there is none. Whatever cannot be found out counts as one. Reads from the kernel, some 0.1 ms. */
export function forwardObstacle(): string | undefined {
  try {
    if (isReversePathStrict()) return 'net.ipv4.conf.all.rp_filter is 1';
    const tables = readIfExists(IPTABLES).trim().split('\n');
    const table = tables.find((name) => name !== '' && name !== HARMLESS);
    if (table) return `iptables has a table ${table}`;
    const chain = hookedChain();
    return chain && `nftables has a chain ${chain}`;
  } catch (error) {
    return `the kernel cannot be asked: ${(error as Error).message}`;
  }
}

/** Whether packets that come from our device with this VM's own underlay address as their source are dropped. */
export function isReversePathStrict(): boolean {
  return readIfExists(RP_FILTER).trim() === '1';
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
  const fd = native.socket(
    native.AF_NETLINK,
    native.SOCK_RAW | native.SOCK_CLOEXEC | native.SOCK_NONBLOCK,
    NETLINK_NETFILTER,
  );
  if (fd < 0) return undefined; // A kernel without nfnetlink has no nftables.
  try {
    const request = new DataView(new ArrayBuffer(HEADERS));
    request.setUint32(0, HEADERS, true);
    request.setUint16(4, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETCHAIN, true);
    request.setUint16(6, NLM_F_REQUEST | NLM_F_DUMP, true);
    native.must(native.write(fd, native.pointer(request), HEADERS), 'write', 'to nfnetlink');
    return findInDump(fd);
  } finally {
    native.close(fd);
  }
}

/** A dump comes in as many reads as it needs, each made as it is read. */
function findInDump(fd: number): string | undefined {
  const buffer = new DataView(new ArrayBuffer(BUFFER_SIZE));
  for (;;) {
    const length = native.must(native.read(fd, native.pointer(buffer), BUFFER_SIZE), 'read', 'from nfnetlink');
    for (let at = 0; at + HEADERS <= length; at += align(buffer.getUint32(at, true))) {
      const type = buffer.getUint16(at + 4, true);
      const error = -buffer.getInt32(at + 16, true);
      if (type === NLMSG_ERROR && !WITHOUT_NFTABLES.includes(error)) throw new Error(`errno ${error}`);
      if (type === NLMSG_DONE || type === NLMSG_ERROR) return undefined;
      if (buffer.getUint16(at + 6, true) & NLM_F_DUMP_INTR) throw new Error('it is just changing');
      const chain = chainIn(buffer, at, at + buffer.getUint32(at, true));
      if (chain) return chain;
    }
  }
}

/** The chain that the message from `start` to `end` describes, if it is one of those. */
function chainIn(buffer: DataView, start: number, end: number): string | undefined {
  const family = FAMILIES.get(buffer.getUint8(start + 16));
  const chain = attributes(buffer, start + HEADERS, end);
  const hook = chain.get(NFTA_CHAIN_HOOK);
  if (family === undefined || hook === undefined) return undefined;
  const [at = 0] = attributes(buffer, ...hook).get(NFTA_HOOK_HOOKNUM) ?? [];
  const number = buffer.getUint32(at);
  const text = (attribute: number) => {
    const [from, to] = chain.get(attribute) ?? [0, 1];
    return new TextDecoder().decode(new Uint8Array(buffer.buffer, from, to - from - 1)); // without the final zero
  };
  const isPassed = number === NF_INET_FORWARD || number === NF_INET_PRE_ROUTING;
  if (!isPassed || text(NFTA_CHAIN_TYPE) === HARMLESS) return undefined;
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

/** The containers of this VM, from the kernel alone. */
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import * as native from '../linux/native.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import type { ReceivedLink } from '../linux/netlink/link.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { formatAddress } from '../mesh/address.ts';
import { containerOf, isContainerName, isGoingGroup } from './alias.ts';
import { NAMED } from './namespace.ts';
import { claimsIn } from './routes.ts';
import type { Slice } from './slice.ts';

/** A directory that has the name of each device of this network namespace. */
const DEVICES = '/proc/sys/net/ipv4/conf';

/** Interface indexes of the devices that have names of containers', be it that they are half made or going. */
export function containerDevices(): number[] {
  const names = readdirSync(DEVICES).filter(isContainerName);
  return names.map((name) => native.ifNameToIndex(name)).filter((index) => index !== 0);
}

export interface ContainerStatus {
  container: number;
  address: string;
  id: string;
  ifname: string;
  hostInterface: string;
  /** Name, or a process in it; empty if neither is found. */
  namespace: string;
  /** Inode of the network namespace. */
  netns: number;
  /** Seconds since 1970. */
  since: number;
  /** What the container sent and received, in packets and bytes. */
  sentPackets: number;
  sentBytes: number;
  receivedPackets: number;
  receivedBytes: number;
}

/**
 * The claims lead to the links. So links that were never finished are not listed, and a list is whole while
 * others come and go. The containers of the VM that this one was before are listed, too.
 */
export function listContainers(netlink: Netlink, slice: Slice): ContainerStatus[] {
  const found = claimsIn(netlink).flatMap(({ dst, oif }) => {
    const [address, link] = [addressOf(dst), oif === undefined ? undefined : findLink(netlink, oif)];
    return (address && link && statusOf(link, formatAddress(address), slice)) ?? [];
  });
  const names = namespaceNames(new Set(found.map(({ netns }) => netns)));
  for (const each of found) each.namespace = names.get(each.netns) ?? '';
  return found.sort((a, b) => a.container - b.container);
}

function statusOf(found: ReceivedLink, address: string, slice: Slice): ContainerStatus | undefined {
  const alias = containerOf(found.alias);
  const container = slice.numberOf(address);
  if (container === undefined || alias?.address !== address || isGoingGroup(found.group)) return undefined;
  const { stats } = found;
  return {
    ...{ container, address },
    ...{ id: alias.id, ifname: alias.ifname, hostInterface: found.name ?? '' },
    ...{ namespace: '', netns: alias.netns, since: alias.since },
    // What the host's end received, the container sent.
    ...{ sentPackets: stats?.rxPackets ?? 0, sentBytes: stats?.rxBytes ?? 0 },
    ...{ receivedPackets: stats?.txPackets ?? 0, receivedBytes: stats?.txBytes ?? 0 },
  };
}

/** What these namespaces are called, by inode: their names, or a process that is in them. */
function namespaceNames(wanted: ReadonlySet<number>): Map<number, string> {
  const names = new Map<number, string>();
  const note = (name: string, inode: number | undefined) => {
    if (inode !== undefined && wanted.has(inode) && !names.has(inode)) names.set(inode, name);
  };
  for (const name of entriesOf(NAMED)) note(name, statSync(`${NAMED}/${name}`, { throwIfNoEntry: false })?.ino);
  if (names.size === wanted.size) return names;
  for (const pid of entriesOf('/proc')) if (/^\d+$/.test(pid)) note(`pid ${pid}`, namespaceOf(pid));
  return names;
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // Nobody has made a name yet.
  }
}

function namespaceOf(pid: string): number | undefined {
  try {
    return Number(/^net:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1]);
  } catch {
    return undefined; // The process has gone, or is another user's.
  }
}

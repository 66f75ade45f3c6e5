/**
 * What keeps a container's device safe, whoever is root in the container: strict reverse path filtering, no
 * ICMP redirects, and no IPv6 (nothing of it is part of the mesh).
 */
import { writeFileSync } from 'node:fs';
import { errorCode, InlayError } from '../../errors.ts';
import { type Address, type AddressRequest, address, RTM_GETADDR } from '../../linux/netlink/address.ts';
import {
  changeDeviceSettings,
  type DeviceSettings,
  type Ipv4Setting,
  type Ipv6Setting,
  settingsOfDevice,
} from '../../linux/netlink/device-settings.ts';
import { request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { RT_SCOPE_LINK } from '../../linux/netlink/route.ts';
import { addresses } from '../../linux/netlink/rtnetlink.ts';
import { formatPrefix } from '../../mesh/address.ts';
import { slicesOf } from '../../mesh/mapping.ts';
import { isContainerAlias } from '../alias.ts';
import type { GuardThing, NetworkPlan } from '../state.ts';
import { releaseNeighbours } from './container-neighbour.ts';
import type { Kind } from './kind.ts';

const AF_INET6 = 10;
/** <linux/if_addr.h>: of somebody's own, not from a router advertisement. */
const IFA_F_PERMANENT = 0x80;

/** What decides which settings a device is to have. */
export interface Uses {
  /** Whether it has IPv4 addresses. */
  isNumbered: boolean;
  /** Whether somebody gave it an IPv6 address of more than the link. */
  hasIpv6: boolean;
}

/** `ipv4/rp_filter`, as below /proc/sys/net. */
type Name = `ipv4/${Ipv4Setting}` | `ipv6/${Ipv6Setting}`;

/**
 * Without an IPv4 address of its own, the kernel takes a device's rp_filter for strict, even where that of
 * all devices says loose (no_addr in __fib_validate_source, net/ipv4/fib_frontend.c). Of a device that
 * forwards, accept_redirects counts if that of all devices says the same.
 */
const ALWAYS: readonly Name[] = ['ipv4/accept_redirects', 'ipv4/send_redirects'];
const IF_UNNUMBERED: readonly Name[] = ['ipv4/rp_filter'];
/** Of a container's device that attaching has made, which is nobody else's. */
const IF_ATTACHED: readonly Name[] = ['ipv4/rp_filter', 'ipv4/forwarding'];
const WITHOUT_IPV6: readonly Name[] = ['ipv6/disable_ipv6'];
const WITH_IPV6: readonly Name[] = ['ipv6/accept_ra', 'ipv6/accept_redirects'];
/** Those that a note can have. */
const NOTED: readonly string[] = [...ALWAYS, ...IF_UNNUMBERED, ...WITHOUT_IPV6, ...WITH_IPV6];
const VALUES: Readonly<Record<string, number>> = {
  'ipv4/rp_filter': 1,
  'ipv4/forwarding': 1,
  'ipv4/accept_redirects': 0,
  'ipv4/send_redirects': 0,
  'ipv6/disable_ipv6': 1,
  'ipv6/accept_ra': 0,
  'ipv6/accept_redirects': 0,
};

export function usesOf(netlink: Netlink, { index, ipv6 }: DeviceSettings): Uses {
  const isNumbered = addresses(netlink, index).length > 0;
  if (ipv6?.disable_ipv6 !== 0) return { isNumbered, hasIpv6: false };
  const body: AddressRequest = { family: AF_INET6, index };
  const found = netlink.dump(request(RTM_GETADDR, 0, 'IPv6 addresses', address, body), address);
  const isOwn = ({ scope, flags }: Address) => scope !== RT_SCOPE_LINK && (flags & IFA_F_PERMANENT) !== 0;
  return { isNumbered, hasIpv6: found.some(isOwn) };
}

/** Those settings that are not as they should be. */
export function unsafeIn(found: DeviceSettings, { isNumbered, hasIpv6 }: Uses): Name[] {
  const own = isContainerAlias(found.alias) ? IF_ATTACHED : isNumbered ? [] : IF_UNNUMBERED;
  const wanted = [...ALWAYS, ...own, ...(hasIpv6 ? WITH_IPV6 : WITHOUT_IPV6)];
  return wanted.filter((name) => {
    const value = valueIn(found, name);
    return value !== undefined && value !== VALUES[name];
  });
}

export const guardKind: Kind<GuardThing> = {
  ensure(thing, context) {
    const { netlink } = context;
    const found = settingsOfDevice(netlink, thing.index);
    if (!found) return undefined;
    const unsafe = unsafeIn(found, usesOf(netlink, found));
    if (unsafe.length === 0) return undefined;
    // Attaching has set these, too: nobody is to get back what others make of them.
    if (!isContainerAlias(found.alias)) noteBefore(thing, found, unsafe, context);
    if (!set(netlink, found, new Map(unsafe.map((name) => [name, VALUES[name] as number])))) return undefined;
    return unsafe.map((name) => `${dotted(found, name)} ${valueIn(found, name)}, not ${VALUES[name]}`).join(', ');
  },

  undo({ device, index }, { netlink }, before) {
    const found = settingsOfDevice(netlink, index);
    // After a restart of the machine, another device may have the index.
    if (found?.name !== device || isContainerAlias(found.alias)) return false;
    releaseNeighbours(netlink, index);
    // Another value than ours is somebody else's.
    const ours = [...parse(before)].filter(
      ([name, value]) => valueIn(found, name) === VALUES[name] && value !== VALUES[name],
    );
    return set(netlink, found, new Map(ours)) && ours.length > 0;
  },

  commands: ({ device }) =>
    [...IF_UNNUMBERED, ...ALWAYS, ...WITHOUT_IPV6].map((name) => {
      const [family, setting] = name.split('/');
      return `sysctl -qw net/${family}/conf/${device}/${setting}=${VALUES[name]}`;
    }),
  describe: ({ device }) => `settings of ${device}`,
};

/** Adds to the note what these settings were before they are changed for the first time. */
function noteBefore(
  thing: GuardThing,
  found: DeviceSettings,
  unsafe: readonly Name[],
  { before, note, forget }: Parameters<Kind<GuardThing>['ensure']>[1],
): void {
  const known = parse(before(thing));
  const added = unsafe.filter((name) => !known.has(name));
  if (added.length === 0) return;
  for (const name of added) known.set(name, valueIn(found, name) as number);
  // The first note of a thing counts.
  forget(thing);
  note(thing, [...known].map(([name, value]) => `${name}=${value}`).join(' '));
}

function parse(before: string | undefined): Map<Name, number> {
  const parts = (before ?? '').split(' ').map((part) => /^([a-z0-9/_]+)=(\d{1,10})$/.exec(part));
  return new Map(
    parts.flatMap((part) => (part?.[1] && NOTED.includes(part[1]) ? [[part[1] as Name, Number(part[2])]] : [])),
  );
}

/** Undefined if the device does not have this protocol. */
function valueIn({ ipv4, ipv6 }: DeviceSettings, name: Name): number | undefined {
  const [family, setting] = name.split('/') as [string, string];
  return ((family === 'ipv4' ? ipv4 : ipv6) as Record<string, number> | undefined)?.[setting];
}

/** Does all that can be done, then throws if something could not. False if the device has gone meanwhile. */
function set(netlink: Netlink, { index, name: device }: DeviceSettings, values: ReadonlyMap<Name, number>): boolean {
  const ipv4 = [...values].filter(([name]) => name.startsWith('ipv4/'));
  const settings = Object.fromEntries(ipv4.map(([name, value]) => [name.slice(5), value]));
  if (ipv4.length > 0 && !changeDeviceSettings(netlink, index, settings)) return false;
  for (const [name, value] of values) {
    if (!name.startsWith('ipv6/')) continue;
    try {
      writeFileSync(`/proc/sys/net/ipv6/conf/${device}/${name.slice(5)}`, String(value));
    } catch (cause) {
      if (errorCode(cause) === 'ENOENT') continue; // The device has gone, or has no IPv6 any more.
      const what = `net.ipv6.conf.${device}.${name.slice(5)} cannot be set to ${value}: ${errorCode(cause)}`;
      throw new InlayError('ERR_FAILED', what, {
        hint: 'let /proc/sys be writable; in a container, that is up to what runs it',
        cause,
      });
    }
  }
  return true;
}

function dotted({ name: device }: DeviceSettings, name: Name): string {
  const [family, setting] = name.split('/');
  return `net.${family}.conf.${device}.${setting}`;
}

/** For `--dry-run`: which devices are guarded changes all the time. */
export function guardComments({ mappings, local }: NetworkPlan): string[] {
  const slices = slicesOf(mappings, local).map(formatPrefix);
  if (slices.length === 0) return [];
  return [
    `# Each device that a route inside ${slices.join(', ')} leads to, such as VETH, gets (rp_filter if it has no IPv4 address):`,
    ...guardKind.commands({ kind: 'guard', device: 'VETH', index: 0 }).map((line) => `# ${line}`),
    '# ip neighbour replace CONTAINER lladdr MAC dev VETH nud stale extern_learn',
  ];
}

/** What the operator's own settings leave open at containers' devices, where the guard may not change them. */
import { readIfExists } from '../../linux/proc.ts';
import type { GuardedDevice } from '../guard.ts';
import type { Remark } from './remark.ts';

/** Devices that a remark names, at most. */
const MAX_NAMED = 3;

/** net.ipv4.conf.all: what is set there counts for each device, too. */
export interface ForAll {
  rpFilter: number;
  routeLocalnet: number;
  acceptLocal: number;
}

export function settingsForAll(): ForAll {
  const value = (name: string) => Number(readIfExists(`/proc/sys/net/ipv4/conf/all/${name}`));
  return { rpFilter: value('rp_filter'), routeLocalnet: value('route_localnet'), acceptLocal: value('accept_local') };
}

export function containerRemarks(devices: Iterable<GuardedDevice>, forAll: ForAll): Remark[] {
  const all = [...devices];
  const guarded = all.filter(({ isUplink }) => !isUplink);
  const numbered = guarded.filter(({ uses }) => uses.isNumbered);
  const lax = numbered.filter(({ found }) => !isStrict(found.ipv4?.rp_filter ?? 0, forAll));
  const local = guarded.filter(({ found }) => (forAll.routeLocalnet | (found.ipv4?.route_localnet ?? 0)) !== 0);
  return [
    ...troubles(guarded),
    ...about(
      all,
      ({ isUplink }) => isUplink,
      (where) => ({
        key: 'uplink',
        what: `routes inside the slice lead to ${where}, by which other machines are reached: Inlay leaves its settings alone, and containers there may send as others`,
        hint: 'give each container a device of its own, with a route to it',
      }),
    ),
    ...about(
      guarded,
      ({ found }) => found.kind === 'bridge',
      (where) => ({
        key: 'bridge',
        what: `containers on ${where} can speak for each other: packets between the ports of a bridge pass Inlay by`,
        hint: 'give each container a device of its own, with a route to it; or let the ports filter: nft add table bridge filter',
      }),
    ),
    ...about(
      lax,
      () => true,
      (where, names) => ({
        key: 'lax',
        what: `reverse path filtering is not strict on ${where}, which has an IPv4 address: containers there can send as others`,
        hint: laxHint(names, forAll),
      }),
    ),
    ...about(
      forAll.acceptLocal !== 0 ? lax : [],
      () => true,
      (where) => ({
        key: 'accept-local',
        what: `net.ipv4.conf.all.accept_local is 1: containers on ${where} can send as this VM itself`,
        hint: 'sysctl -w net.ipv4.conf.all.accept_local=0',
      }),
    ),
    ...about(
      local,
      () => true,
      (where, names) => ({
        key: 'route-localnet',
        what: `route_localnet is on for ${where}: containers there reach what listens on 127.0.0.0/8 of this VM, unless a firewall stops them`,
        hint: commands(forAll.routeLocalnet !== 0 ? ['all', ...names] : names, 'route_localnet=0'),
      }),
    ),
    ...about(
      guarded,
      ({ uses }) => uses.hasIpv6,
      (where) => ({
        key: 'ipv6',
        what: `${where} has an IPv6 address: IPv6 of the containers there is not Inlay's to check`,
        hint: 'if nothing needs it, remove the address: Inlay then turns IPv6 off on the device',
      }),
    ),
  ];
}

/** The kernel takes the larger of the two. Of 1 and 2, 2 is the loose one. */
function isStrict(own: number, { rpFilter }: ForAll): boolean {
  return Math.max(own, rpFilter) === 1;
}

function laxHint(names: readonly string[], { rpFilter }: ForAll): string {
  const all = rpFilter > 1 ? ['all'] : [];
  return commands([...all, ...names], 'rp_filter=1');
}

function troubles(guarded: readonly GuardedDevice[]): Remark[] {
  const [first] = guarded.flatMap(({ trouble }) => trouble ?? []);
  if (!first) return [];
  const count = guarded.filter(({ trouble }) => trouble).length;
  const more = count > 1 ? ` (${count} containers' devices)` : '';
  return [{ key: 'guard', ...first, what: `a container's device is not safe: ${first.what}${more}` }];
}

function about(
  devices: readonly GuardedDevice[],
  isMeant: (device: GuardedDevice) => boolean,
  remark: (where: string, names: readonly string[]) => Remark,
): Remark[] {
  const all = devices.filter(isMeant).map(({ found }) => found.name);
  if (all.length === 0) return [];
  const names = all.slice(0, MAX_NAMED);
  const list = names.join(', ');
  return [remark(all.length > names.length ? `${all.length} devices, such as ${list}` : list, names)];
}

/** sysctl(8): a dot in a device's name is written as a slash. */
function commands(names: readonly string[], setting: string): string {
  return names.map((name) => `sysctl -w net.ipv4.conf.${name.replaceAll('.', '/')}.${setting}`).join('; ');
}

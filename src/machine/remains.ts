/**
 * What the machine itself tells of things that an earlier daemon left, where its journal is missing or
 * damaged.
 */
import { deviceOfTable, OwnTables } from '../linux/netfilter/own-tables.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { type Route, RT_TABLE_MAIN, RTN_UNREACHABLE } from '../linux/netlink/route.ts';
import { addresses, findLink, linksOfKind, routes, rules } from '../linux/netlink/rtnetlink.ts';
import { FR_ACT_TO_TBL } from '../linux/netlink/rule.ts';
import { formatPrefix } from '../mesh/address.ts';
import { isOurAlias } from './alias.ts';
import { heldDevices, type IsHeld } from './device-locks.ts';
import { CATCH_ALL_PROTOCOL, type FilterThing, ROUTE_PROTOCOL, type RouteThing, type Thing } from './state.ts';
import { filteredVeths } from './things/container-filters.ts';
import { hasFilter } from './things/filter.ts';
import { LASTING_KINDS } from './things/link.ts';

/**
 * Things that are recognisable as ours, the last made first. Things of a daemon that runs with another run
 * directory are left out.
 */
export function remains(netlink: Netlink): Thing[] {
  const isHeld = heldDevices();
  const links = LASTING_KINDS.flatMap((kind) => linksOfKind(netlink, kind)).flatMap(
    ({ name = '', alias, info }): Thing[] =>
      isOurAlias(alias) && !isHeld(name) ? [{ kind: 'link', device: name, info: { kind: info?.kind ?? '' } }] : [],
  );
  const own = [...barriers(isHeld), ...links];
  // Routes without a device, and filters at others' devices, do not tell whose they are.
  if (isHeld.count > 0) return own;
  const unreachable = [ROUTE_PROTOCOL, CATCH_ALL_PROTOCOL].flatMap((protocol) =>
    routes(netlink, { table: RT_TABLE_MAIN, protocol, type: RTN_UNREACHABLE }).map(thingOf),
  );
  const catchAll = rules(netlink).flatMap((found): Thing[] => {
    const { dst, dstLength, priority = 0, protocol, action } = found;
    if (protocol !== CATCH_ALL_PROTOCOL) return [];
    const to = textOf(dst, dstLength);
    return [{ kind: 'rule', to, priority, action: action === FR_ACT_TO_TBL ? 'main' : 'unreachable' }];
  });
  return [...programs(netlink), ...catchAll, ...unreachable, ...own];
}

/**
 * Programs of ours at devices of others that are not among `wanted`. As long as no other daemon runs, they are an earlier one's.
 * Those of containers' devices, of which there may be thousands, are not looked for if they are wanted.
 */
export function programs(netlink: Netlink, wanted: readonly Thing[] = []): Thing[] {
  const devices = [...new Set(addresses(netlink).map(({ index }) => index))];
  const filters = devices.flatMap((index): FilterThing[] => {
    const device = findLink(netlink, index)?.name;
    if (device === undefined || !hasFilter(netlink, index, 'ingress')) return [];
    return [{ kind: 'filter', device, index, place: 'ingress', others: true }];
  });
  // Where the underlay is a veth, it has a filter of ours, too.
  const isOther = (_: string, index: number) => filters.some((thing) => thing.index === index);
  const isWanted = wanted.some(({ kind }) => kind === 'container-filters');
  const isThere = !isWanted && filteredVeths(netlink, isOther).length > 0;
  const strange = filters.filter((found) => !wanted.some((thing) => isAt(thing, found)));
  return [...strange, ...(isThere ? [{ kind: 'container-filters' } as const] : [])];
}

/** Whether a thing is the filter at that place; some are known by the device's index, others by its name. */
function isAt(thing: Thing, { device, index, place }: FilterThing): boolean {
  return (
    thing.kind === 'filter' &&
    thing.place === place &&
    (thing.index === undefined ? thing.device === device : thing.index === index)
  );
}

function barriers(isHeld: IsHeld): Thing[] {
  const tables = new OwnTables();
  try {
    return tables.names().flatMap((table): Thing[] => {
      const device = deviceOfTable(table);
      return device === undefined || isHeld(device) ? [] : [{ kind: 'barrier', table }];
    });
  } catch {
    return []; // There is no nftables here.
  } finally {
    tables.close();
  }
}

function thingOf({ dst, dstLength, priority = 0, protocol }: Route): RouteThing {
  return { kind: 'route', to: textOf(dst, dstLength), metric: priority, protocol };
}

function textOf(dst: Uint8Array | undefined, length: number): string {
  return formatPrefix({ width: 32, bits: addressOf(dst)?.bits ?? 0n, length });
}

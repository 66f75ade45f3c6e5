/** Routes of the fake kernel (net/ipv4/fib_*.c). */
import os from 'node:os';
import { IFF_UP } from '../../src/linux/netlink/link.ts';
import {
  type Message,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
} from '../../src/linux/netlink/message.ts';
import {
  type Route,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_F_CLONED,
  RTM_F_FIB_MATCH,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTNLGRP_IPV4_ROUTE,
  route,
} from '../../src/linux/netlink/route.ts';
import { hex, type Rules, refuse, type Table } from './fake-table.ts';

const { EACCES, EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENOENT, ESRCH } = os.constants.errno;
const AF_INET6 = 10;
const RT_SCOPE_NOWHERE = 255;
/** What routes to nowhere answer, by type (fib_props in net/ipv4/fib_semantics.c): blackhole, unreachable, prohibit. */
const NOWHERE = new Map([
  [6, EINVAL],
  [RTN_UNREACHABLE, EHOSTUNREACH],
  [8, EACCES],
]);
const NO_ADDRESS = new Uint8Array(4);

const number = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? NO_ADDRESS).readUInt32BE();
/** Of several routes with the same place only the first is taken; the others were appended. */
const placeOf = ({ table, dst, dstLength, tos, priority = 0 }: Route) =>
  [table, number(dst), dstLength, tos, priority].join();
const keyOf = (each: Route) => [placeOf(each), each.type, each.oif, hex(each.gateway), each.metrics?.ssthresh].join();
const isWithin = (dst: Uint8Array, { dst: prefix, dstLength }: Route) =>
  dstLength === 0 || (number(dst) ^ number(prefix)) >>> (32 - dstLength) === 0;

/** `linkOf` refuses links that are not there; `paths` are MTUs that were learnt, by addresses in hexadecimal digits. */
export function routeRules(
  linkOf: (index: number) => { flags: number },
  table: () => Table<Route>,
  paths: ReadonlyMap<string, number>,
): Rules<Route> {
  return {
    ...{ type: RTM_NEWROUTE, group: RTNLGRP_IPV4_ROUTE, codec: route },
    keyOf,
    put: putRoute,
    find: (given, { type }) => (type === RTM_DELROUTE ? routeLike(given) : routeTo(given)),
    checkDump: ({ oif }) => {
      if (oif) linkOf(oif);
    },
    isWanted: ({ family, ...given }, each) =>
      family !== AF_INET6 &&
      (['table', 'protocol', 'type', 'oif'] as const).every((name) => !given[name] || given[name] === each[name]),
  };

  function putRoute(given: Route, { flags, port }: Message): void {
    const value = { ...given, table: given.table || RT_TABLE_MAIN, type: given.type || RTN_UNICAST };
    if (given.dstLength < 32 && number(given.dst) << given.dstLength !== 0)
      refuse(EINVAL, 'Invalid prefix for given prefix length');
    if (given.oif !== undefined && !(linkOf(given.oif).flags & IFF_UP))
      refuse(ENETDOWN, given.gateway ? 'Nexthop device is not up' : 'Device for nexthop is not up');
    const known = table().all.find((each) => placeOf(each) === placeOf(value));
    const isAppended = (flags & NLM_F_APPEND) !== 0 && !table().like(value);
    if (known && (flags & NLM_F_EXCL || !(flags & NLM_F_REPLACE || isAppended))) refuse(EEXIST);
    if (!known && !(flags & NLM_F_CREATE)) refuse(ENOENT);
    // What is put in its place is told, but not that it went.
    if (known && flags & NLM_F_REPLACE) table().entries.delete(keyOf(known));
    table().set(value, port);
  }

  /** The first route of which is so what the request says. */
  function routeLike(given: Route): Route {
    const isSame = (each: Route) =>
      each.table === (given.table || RT_TABLE_MAIN) &&
      each.dstLength === given.dstLength &&
      number(each.dst) === number(given.dst) &&
      each.tos === given.tos &&
      (given.scope === RT_SCOPE_NOWHERE || given.scope === each.scope) &&
      (!given.gateway || hex(given.gateway) === hex(each.gateway)) &&
      (!given.metrics || given.metrics.ssthresh === each.metrics?.ssthresh) &&
      (['type', 'protocol', 'oif', 'priority'] as const).every((name) => !given[name] || given[name] === each[name]);
    return table().all.find(isSame) ?? refuse(ESRCH);
  }

  /** Where a packet goes: by the longest prefix in the table local, then in main. With RTM_F_FIB_MATCH, the route as it stands in its table. */
  function routeTo({ dst = NO_ADDRESS, flags }: Route): Route {
    const [found = refuse(ENETUNREACH)] = table()
      .all.filter((each) => each.table >= RT_TABLE_MAIN && isWithin(dst, each))
      .sort((a, b) => b.table - a.table || b.dstLength - a.dstLength || (a.priority ?? 0) - (b.priority ?? 0));
    const errno = NOWHERE.get(found.type);
    if (errno !== undefined) refuse(errno);
    if (flags & RTM_F_FIB_MATCH) return found;
    const { priority: _, ...rest } = found;
    const mtu = paths.get(hex(dst)) ?? rest.metrics?.mtu;
    return { ...rest, dst, dstLength: 32, flags: RTM_F_CLONED, ...(mtu !== undefined && { metrics: { mtu } }) };
  }
}

/** Routes of table main. Ours are known by their protocol number. */
import { InlayError } from '../../errors.ts';
import { addressBytes } from '../../linux/netlink/ipv4.ts';
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import {
  type Route,
  type RouteRequest,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../../linux/netlink/route.ts';
import { AF_INET, findLink } from '../../linux/netlink/rtnetlink.ts';
import { type Address, type Prefix, parseAddress, parsePrefix } from '../../mesh/address.ts';
import { makerOf } from '../alias.ts';
import { ofOtherDaemon } from '../daemons.ts';
import { CATCH_ALL_PROTOCOL, ROUTE_PROTOCOL, type RouteThing } from '../state.ts';
import { type Context, indexOf, type Kind } from './kind.ts';
import { describeRoute, routeText } from './route-text.ts';

const OURS: readonly number[] = [ROUTE_PROTOCOL, CATCH_ALL_PROTOCOL];
const GONE = ['ESRCH', 'ENOENT', 'ENODEV'];

export const routeKind: Kind<RouteThing> = {
  check(wanted, { netlink, table }) {
    if (wanted.device === undefined) return;
    const maker = makerOn(netlink, table.holder(bodyOf(wanted, undefined) as Route));
    if (maker && maker.device !== wanted.device) throw ofOtherDaemon(`the route to ${wanted.to}`, maker);
  },

  ensure(wanted, context) {
    const { netlink, table } = context;
    const body = bodyOf(wanted, wanted.device === undefined ? undefined : indexOf(context, wanted.device));
    const what = `route ${routeText(wanted)}`;
    const wasNoted = context.isNoted(wanted);
    context.note(wanted);
    // The kernel itself says whether there is a route with this prefix and metric. No table has to be read.
    const [error] = netlink.tryAll([request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, what, route, body)]);
    if (!error) {
      table.hold(body as Route);
      return `${what} is missing`;
    }
    if (error.code !== 'EEXIST') throw error;
    const known = table.holder(body as Route);
    if (known && isSame(known, body)) return undefined;
    // What is remembered may be old, so the table is read. Of several routes with this key NLM_F_REPLACE
    // takes the first.
    const found = table.find(body as Route);
    if (!found) throw error; // The route in the way has gone meanwhile.
    if (isSame(found, body)) return undefined;
    // An unreachable route of others does what ours is for.
    if (wanted.device === undefined && found.type === RTN_UNREACHABLE) {
      if (!wasNoted) context.forget(wanted);
      return undefined;
    }
    if (!isOurs(found, body)) {
      if (!wasNoted) context.forget(wanted);
      throw inTheWay(context, wanted, found);
    }
    netlink.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, what, route, body));
    table.hold(body as Route);
    return `${what} was ${describeRoute(netlink, found)}`;
  },

  undo(wanted, { netlink, links, table }) {
    const index = wanted.device === undefined ? undefined : links.get(wanted.device);
    if (wanted.device !== undefined && index === undefined) return false; // It went with its device.
    const body = bodyOf(wanted, index);
    table.forget(body as Route);
    const [error] = netlink.tryAll([request(RTM_DELROUTE, 0, `route ${routeText(wanted)}`, route, body)]);
    if (error && !GONE.includes(error.code)) throw error;
    return error === undefined;
  },

  commands: (wanted) => [`ip route add ${routeText(wanted)}`],
  describe: (wanted) => `route ${routeText(wanted)}`,
};

/** The daemon that made the device that a route leads to. */
function makerOn(netlink: Netlink, found: Route | undefined): ReturnType<typeof makerOf> {
  return found?.oif ? makerOf(findLink(netlink, found.oif)?.alias) : undefined;
}

/** By its number; a route to another device is another daemon's. */
function isOurs({ protocol, oif }: Route, wanted: RouteRequest): boolean {
  return OURS.includes(protocol) && (oif === undefined || oif === wanted.oif);
}

function isSame(found: Route, { type, protocol, oif, prefsrc }: RouteRequest): boolean {
  const text = (bytes: Uint8Array | undefined) => bytes?.join('.');
  return (
    found.type === type &&
    found.protocol === protocol &&
    (type === RTN_UNREACHABLE || found.oif === oif) &&
    found.gateway === undefined &&
    text(found.prefsrc) === text(prefsrc)
  );
}

/** The message's body; `oif` is the device's index. */
function bodyOf({ to, device, source, metric, protocol }: RouteThing, oif: number | undefined): RouteRequest {
  const prefix = parsePrefix(to) as Prefix;
  return {
    ...{ family: AF_INET, dstLength: prefix.length, table: RT_TABLE_MAIN, protocol },
    scope: device ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
    type: device ? RTN_UNICAST : RTN_UNREACHABLE,
    dst: addressBytes(prefix),
    priority: metric,
    ...{ oif, prefsrc: source && addressBytes(parseAddress(source) as Address) },
  } as RouteRequest;
}

function inTheWay({ netlink }: Context, { to, metric }: RouteThing, found: Route): InlayError {
  const maker = OURS.includes(found.protocol) ? makerOn(netlink, found) : undefined;
  if (maker) return ofOtherDaemon(`the route to ${to}`, maker);
  const which = metric === 0 ? to : `${to} metric ${metric}`;
  return new InlayError('ERR_FAILED', `a route to ${to} exists already: ${describeRoute(netlink, found)}`, {
    hint: `if nothing needs it, remove it (ip route del ${which}); else choose another overlay`,
  });
}

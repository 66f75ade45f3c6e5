/** Carries out the steps by rtnetlink. Each can be done again: what is as it should be stays. What outlives the device is noted in the journal first. */
import { existsSync, writeFileSync } from 'node:fs';
import { InlayError } from '../errors.ts';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../linux/netlink/address.ts';
import { addressBytes, addressOf } from '../linux/netlink/ipv4.ts';
import { IFF_NOARP, IFF_UP, IN6_ADDR_GEN_MODE_NONE, type Link, link, RTM_NEWLINK } from '../linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, request } from '../linux/netlink/message.ts';
import { neighbourTable, RTM_SETNEIGHTBL } from '../linux/netlink/neighbour.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import {
  type Route,
  type RouteRequest,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../linux/netlink/route.ts';
import { AF_INET, addresses, findLink, routes } from '../linux/netlink/rtnetlink.ts';
import { formatAddress, formatPrefix, type Prefix, parseAddress, parsePrefix } from '../mesh/address.ts';
import { makeFou } from './fou.ts';
import type { Journal } from './journal.ts';
import { makeLink } from './make-link.ts';
import { type OverlayRoute, ROUTE_PROTOCOL, type Step } from './steps.ts';
import { routeWords } from './words.ts';

/** Missing where the kernel has no IPv6, as with ipv6.disable=1. */
const IPV6 = '/proc/net/if_inet6';
const MS = 1000;

export interface ApplyOptions {
  netlink: Netlink;
  journal: Journal;
  /** Told what was changed that a user may notice. */
  onChange: (facts: object, what: string) => void;
  /** A device of ours was there already. */
  onAdopt?: () => void;
}

/** Throws ERR_FAILED where something of others is in the way, and NetlinkError where the kernel refuses. */
export function apply(steps: readonly Step[], options: ApplyOptions): void {
  // Read once: it may have a route for each VM and each container.
  let table: Route[] | undefined;
  const mainTable = () => {
    table ??= routes(options.netlink, { table: RT_TABLE_MAIN });
    return table;
  };
  for (const step of steps) applyStep(step, options, mainTable);
}

function applyStep(step: Step, options: ApplyOptions, mainTable: () => Route[]): void {
  const { netlink, journal, onChange } = options;
  switch (step.kind) {
    case 'link':
      makeLink(step, options);
      return;
    case 'fou':
      makeFou(step.port, journal);
      return;
    case 'link-settings': {
      const { device, alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize, arp } = step;
      // No link-local address. First of all: with an MTU below 1280 (RFC 8200 §5) the device has no IPv6 that could be told so.
      if (existsSync(IPV6)) setLink(netlink, device, { afSpec: { inet6: { addrGenMode: IN6_ADDR_GEN_MODE_NONE } } });
      setLink(netlink, device, {
        ...{ alias, mtu, txQueueLength, gsoMaxSegs, gsoMaxSize },
        ...(arp ? { flags: 0, change: IFF_NOARP } : {}),
      });
      return;
    }
    case 'addresses':
      setAddresses(netlink, step.device, step.addresses);
      return;
    case 'neighbour-parameters': {
      const {
        app_solicit,
        mcast_solicit,
        ucast_solicit,
        unres_qlen_bytes,
        delay_first_probe_time = 0,
      } = step.parameters;
      const parms = {
        ifindex: indexOf(netlink, step.device),
        ...{ appProbes: app_solicit, mcastProbes: mcast_solicit, ucastProbes: ucast_solicit },
        delayProbeTime: delay_first_probe_time * MS,
        queueLenbytes: unres_qlen_bytes,
      };
      const body = { family: AF_INET, name: 'arp_cache', parms };
      netlink.do(request(RTM_SETNEIGHTBL, 0, `neighbour parameters of ${step.device}`, neighbourTable, body));
      return;
    }
    case 'link-up':
      setLink(netlink, step.device, { flags: IFF_UP, change: IFF_UP });
      return;
    case 'route':
      addRoute(step.route, mainTable(), options);
      return;
    case 'sysctl': {
      const file = `/proc/sys/net/ipv4/conf/${step.device}/${step.name}`;
      if (step.isWish) wish(file, step.value);
      else if (step.ifAny && !existsSync(file)) return;
      else if (journal.sysctl(file, step.value)) onChange({ device: step.device }, `set ${step.name} to ${step.value}`);
    }
  }
}

function wish(file: string, value: string): void {
  try {
    writeFileSync(file, value);
  } catch {}
}

export function setLink(netlink: Netlink, name: string, changes: Link): void {
  netlink.do(request(RTM_NEWLINK, 0, `link ${name}`, link, { ...changes, name }));
}

export function indexOf(netlink: Netlink, name: string): number {
  const found = findLink(netlink, name);
  if (!found) throw new InlayError('ERR_FAILED', `device ${name} has gone`);
  return found.index;
}

/** An earlier daemon with another overlay may have left others. */
function setAddresses(netlink: Netlink, device: string, wanted: readonly string[]): void {
  const index = indexOf(netlink, device);
  const bodyOf = (bytes: Uint8Array) => ({ family: AF_INET, prefixLength: 32, index, local: bytes, address: bytes });
  for (const text of wanted) {
    const body = bodyOf(bytesOf(text));
    netlink.do(request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, `address ${text}`, address, body));
  }
  for (const found of addresses(netlink)) {
    const text = found.local?.join('.');
    if (found.index !== index || text === undefined || wanted.includes(text)) continue;
    netlink.do(request(RTM_DELADDR, 0, `address ${text}`, address, found));
  }
}

function bytesOf(text: string): Uint8Array {
  return addressBytes(parseAddress(text) as NonNullable<ReturnType<typeof parseAddress>>);
}

/** A route that is there already must be the very same, and ours. */
function addRoute(wanted: OverlayRoute, table: readonly Route[], { netlink, journal }: ApplyOptions): void {
  const body = routeBody(wanted, wanted.device === undefined ? undefined : indexOf(netlink, wanted.device));
  const prefix = parsePrefix(wanted.to) as Prefix;
  const existing = table.filter((r) => isTo(r, prefix));
  const [other] = existing;
  if (other && !existing.some((found) => isSame(found, body))) {
    throw new InlayError('ERR_FAILED', `a route to ${wanted.to} exists already: ${describe(netlink, other)}`, {
      hint: `remove it (ip route del ${wanted.to}), or choose another overlay`,
    });
  }
  journal.add({ kind: 'route', route: wanted });
  if (!other) netlink.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, `route ${routeWords(wanted)}`, route, body));
}

function isTo({ dst, dstLength }: Route, prefix: Prefix): boolean {
  return dstLength === prefix.length && (addressOf(dst)?.bits ?? 0n) === prefix.bits;
}

function isSame(found: Route, { type, protocol, oif, gateway, prefsrc }: RouteRequest): boolean {
  const text = (bytes: Uint8Array | undefined) => bytes?.join('.');
  return (
    found.type === type &&
    found.protocol === protocol &&
    (type === RTN_UNREACHABLE || found.oif === oif) &&
    text(found.gateway) === text(gateway) &&
    text(found.prefsrc) === text(prefsrc)
  );
}

/** The message's body; `oif` is the device's index. */
export function routeBody({ to, device, via, source }: OverlayRoute, oif: number | undefined): RouteRequest {
  const prefix = parsePrefix(to) as Prefix;
  return {
    ...{ family: AF_INET, dstLength: prefix.length, table: RT_TABLE_MAIN, protocol: ROUTE_PROTOCOL },
    scope: device && !via ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
    type: device ? RTN_UNICAST : RTN_UNREACHABLE,
    dst: addressBytes(prefix),
    ...{ oif, gateway: via && bytesOf(via), prefsrc: source && bytesOf(source) },
  } as RouteRequest;
}

/** RTN_ of <linux/rtnetlink.h>, as ip(8) calls them. */
const ROUTE_TYPES: Record<number, string> = {
  2: 'local',
  3: 'broadcast',
  6: 'blackhole',
  7: 'unreachable',
  8: 'prohibit',
  9: 'throw',
};

function describe(netlink: Netlink, { dst, dstLength, gateway, oif, protocol, type }: Route): string {
  const to = addressOf(dst);
  const via = addressOf(gateway);
  const device = oif === undefined ? undefined : findLink(netlink, oif)?.name;
  return [
    ...(type === RTN_UNICAST ? [] : [ROUTE_TYPES[type] ?? `type ${type}`]),
    to ? formatPrefix({ ...to, length: dstLength }) : 'default',
    ...(via ? ['via', formatAddress(via)] : []),
    ...(device ? ['dev', device] : []),
    ...['proto', protocol],
  ].join(' ');
}

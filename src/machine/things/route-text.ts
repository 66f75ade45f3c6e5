/** Routes in the words of ip-route(8). */
import { addressOf } from '../../linux/netlink/ipv4.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { type Route, RTN_UNICAST } from '../../linux/netlink/route.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import { formatAddress, formatPrefix } from '../../mesh/address.ts';
import type { RouteThing } from '../state.ts';

/** RTN_ of <linux/rtnetlink.h>, as ip(8) calls them. */
const ROUTE_TYPES: Record<number, string> = {
  2: 'local',
  3: 'broadcast',
  6: 'blackhole',
  7: 'unreachable',
  8: 'prohibit',
  9: 'throw',
};

/** One of ours, as `ip route add` takes it. */
export function routeText({ to, device, source, metric, protocol }: Omit<RouteThing, 'kind'>): string {
  return [
    ...(device ? [to, 'dev', device] : ['unreachable', to]),
    ...(source ? ['src', source] : []),
    ...['proto', protocol],
    ...(metric === 0 ? [] : ['metric', metric]),
  ].join(' ');
}

type Described = Pick<Route, 'dst' | 'dstLength' | 'gateway' | 'oif' | 'protocol' | 'type' | 'priority'>;

/** One that is there, whoever made it. */
export function describeRoute(netlink: Netlink, found: Described): string {
  const { dst, dstLength, gateway, oif, protocol, type, priority } = found;
  const to = addressOf(dst);
  const via = addressOf(gateway);
  const device = oif === undefined ? undefined : findLink(netlink, oif)?.name;
  return [
    ...(type === RTN_UNICAST ? [] : [ROUTE_TYPES[type] ?? `type ${type}`]),
    to ? formatPrefix({ ...to, length: dstLength }) : 'default',
    ...(via ? ['via', formatAddress(via)] : []),
    ...(device ? ['dev', device] : []),
    ...['proto', protocol],
    ...(priority ? ['metric', priority] : []),
  ].join(' ');
}

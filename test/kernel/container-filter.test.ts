/** The filter of the socket that hears of containers' devices, over messages as the codec writes them. */
import { expect, test } from 'vitest';
import { containerFilter } from '../../src/dataplane/fast-path/containers/monitor.ts';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import { IFF_UP, link, RTM_DELLINK, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import {
  AF_BRIDGE,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { RTM_NEWROUTE, route } from '../../src/linux/netlink/route.ts';
import {
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  trafficControl,
} from '../../src/linux/netlink/traffic-control.ts';
import { messageOf, takes } from './classic-bpf.ts';

const [PORT, OVERLAY, AF_INET, AF_INET6] = [4711, 3, 2, 10];
const ALL_FLAGS = 0xffffffff;
const filter = containerFilter({ port: PORT, overlay: OVERLAY });
const linkOf = (type: number, family: number, change: number) =>
  messageOf(type, 0, link, { family, index: 7, flags: IFF_UP, change });
const entryOf = (type: number, state: number, ifindex = 7, family = AF_INET) =>
  messageOf(type, 0, neighbour, { family, ifindex, state });
const controlOf = (type: number, port: number) => messageOf(type, port, trafficControl, { ifindex: 7 });

test.each([
  ['a device that was changed', true, linkOf(RTM_NEWLINK, 0, 0)],
  ['a device that was set up or down', true, linkOf(RTM_NEWLINK, 0, IFF_UP)],
  ['a new device', false, linkOf(RTM_NEWLINK, 0, ALL_FLAGS)],
  ['a device that has gone', true, linkOf(RTM_DELLINK, 0, ALL_FLAGS)],
  ['a port of a bridge that was changed', false, linkOf(RTM_NEWLINK, AF_BRIDGE, 0)],
  ['a device that left a bridge', false, linkOf(RTM_DELLINK, AF_BRIDGE, ALL_FLAGS)],
  ['an address that went', true, messageOf(RTM_DELADDR, 0, address, { family: AF_INET, index: 7 })],
  ['an address that came', false, messageOf(RTM_NEWADDR, 0, address, { family: AF_INET, index: 7 })],
  ['a route, which others hear', false, messageOf(RTM_NEWROUTE, 0, route, { family: AF_INET, dstLength: 32 })],
  ["others' discipline", true, controlOf(RTM_NEWQDISC, 0)],
  ["others' discipline that went", true, controlOf(RTM_DELQDISC, 9)],
  ["others' filter", true, controlOf(RTM_NEWTFILTER, 9)],
  ["others' filter that went", true, controlOf(RTM_DELTFILTER, 9)],
  ['our discipline', false, controlOf(RTM_NEWQDISC, PORT)],
  ['our filter', false, controlOf(RTM_NEWTFILTER, PORT)],
  ['a neighbour that was found', true, entryOf(RTM_NEWNEIGH, NUD_REACHABLE)],
  ['a neighbour with another address', true, entryOf(RTM_NEWNEIGH, NUD_STALE)],
  ['a lasting neighbour', true, entryOf(RTM_NEWNEIGH, NUD_PERMANENT)],
  ['a neighbour that went', true, entryOf(RTM_DELNEIGH, NUD_FAILED)],
  ['a neighbour that is asked for', false, entryOf(RTM_NEWNEIGH, NUD_INCOMPLETE)],
  ['a neighbour that is asked again', false, entryOf(RTM_NEWNEIGH, NUD_PROBE)],
  ['a neighbour that does not answer', false, entryOf(RTM_NEWNEIGH, NUD_FAILED)],
  ['another VM as a neighbour', false, entryOf(RTM_NEWNEIGH, NUD_PERMANENT, OVERLAY)],
  ['another VM that went', false, entryOf(RTM_DELNEIGH, 0, OVERLAY)],
  ['a neighbour of IPv6', false, entryOf(RTM_NEWNEIGH, NUD_REACHABLE, 7, AF_INET6)],
  ['an entry of a bridge', false, entryOf(RTM_NEWNEIGH, NUD_REACHABLE, 7, AF_BRIDGE)],
])('%s', (_, isTaken, message) => {
  expect(takes(filter, message)).toBe(isTaken);
});

/** The filter of the notification socket, over messages as the codec writes them. */
import { describe, expect, test } from 'vitest';
import { GROUPS, monitorFilter } from '../../src/dataplane/kernel/monitor-filter.ts';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import type { Codec } from '../../src/linux/netlink/codec.ts';
import { link, RTM_DELLINK, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { neighbour, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from '../../src/linux/netlink/neighbour.ts';
import { netconf, RTM_NEWNETCONF } from '../../src/linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, route } from '../../src/linux/netlink/route.ts';
import {
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  trafficControl,
} from '../../src/linux/netlink/traffic-control.ts';
import { ALL } from '../../src/linux/socket-filter.ts';
import { messageOf, run, takes as takenBy } from './classic-bpf.ts';

const [OURS, OTHER] = [7, 8];
const [OWN_PORT, OTHER_PORT, KERNEL] = [4711, 0xfffffff0, 0];
const AF_INET = 2;

const neighbourOf = (ifindex: number) => ({ family: AF_INET, ifindex, dst: Uint8Array.of(10, 16, 33, 7) });
const forwardingOf = (ifindex: number) => ({ ...neighbourOf(ifindex), family: 7 });
const linkOf = (index: number) => ({ index, name: 'inlay0', mtu: 1450 });
const addressOf = (index: number) => ({ family: AF_INET, index, local: Uint8Array.of(10, 16, 32, 1) });
const routeOf = (oif: number) => ({ family: AF_INET, oif, dst: Uint8Array.of(10, 0, 0, 0), dstLength: 8 });

describe('the filter of notifications', () => {
  const filter = monitorFilter(OURS, OWN_PORT);
  const takes = (packet: Uint8Array) => takenBy(filter, packet);

  const table: [
    name: string,
    type: number,
    codec: Codec<unknown, never>,
    ours: object,
    other: object,
    expected: object,
  ][] = [
    [
      'RTM_GETNEIGH',
      RTM_GETNEIGH,
      neighbour,
      neighbourOf(OURS),
      neighbourOf(OTHER),
      { own: true, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_NEWNEIGH',
      RTM_NEWNEIGH,
      neighbour,
      neighbourOf(OURS),
      neighbourOf(OTHER),
      { own: false, others: true, kernel: false, elsewhere: false },
    ],
    [
      'RTM_DELNEIGH',
      RTM_DELNEIGH,
      neighbour,
      neighbourOf(OURS),
      neighbourOf(OTHER),
      { own: false, others: true, kernel: false, elsewhere: false },
    ],
    // Of forwarding databases the kernel never says who changed them.
    [
      'RTM_NEWNEIGH, AF_BRIDGE',
      RTM_NEWNEIGH,
      neighbour,
      forwardingOf(OURS),
      forwardingOf(OTHER),
      { own: false, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_DELNEIGH, AF_BRIDGE',
      RTM_DELNEIGH,
      neighbour,
      forwardingOf(OURS),
      forwardingOf(OTHER),
      { own: false, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_NEWLINK',
      RTM_NEWLINK,
      link,
      linkOf(OURS),
      linkOf(OTHER),
      { own: true, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_DELLINK',
      RTM_DELLINK,
      link,
      linkOf(OURS),
      linkOf(OTHER),
      { own: true, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_NEWADDR',
      RTM_NEWADDR,
      address,
      addressOf(OURS),
      addressOf(OTHER),
      { own: true, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_DELADDR',
      RTM_DELADDR,
      address,
      addressOf(OURS),
      addressOf(OTHER),
      { own: true, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_NEWROUTE',
      RTM_NEWROUTE,
      route,
      routeOf(OURS),
      routeOf(OTHER),
      { own: false, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_DELROUTE',
      RTM_DELROUTE,
      route,
      routeOf(OURS),
      routeOf(OTHER),
      { own: false, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_DELTFILTER',
      RTM_DELTFILTER,
      trafficControl,
      { ifindex: OURS },
      { ifindex: OTHER },
      { own: false, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_DELQDISC',
      RTM_DELQDISC,
      trafficControl,
      { ifindex: OURS },
      { ifindex: OTHER },
      { own: false, others: true, kernel: true, elsewhere: true },
    ],
    [
      'RTM_NEWNETCONF',
      RTM_NEWNETCONF,
      netconf,
      { family: AF_INET, ifindex: OURS, forwarding: 0 },
      { family: AF_INET, ifindex: OTHER, forwarding: 0 },
      { own: true, others: true, kernel: true, elsewhere: false },
    ],
    [
      'RTM_NEWTFILTER',
      RTM_NEWTFILTER,
      trafficControl,
      { ifindex: OURS },
      { ifindex: OTHER },
      { own: false, others: false, kernel: false, elsewhere: false },
    ],
    [
      'RTM_NEWQDISC',
      RTM_NEWQDISC,
      trafficControl,
      { ifindex: OURS },
      { ifindex: OTHER },
      { own: false, others: false, kernel: false, elsewhere: false },
    ],
  ] as never;

  test.each(table)('%s', (_, type, codec, ours, other, expected) => {
    expect({
      own: takes(messageOf(type, OWN_PORT, codec, ours as never)),
      others: takes(messageOf(type, OTHER_PORT, codec, ours as never)),
      kernel: takes(messageOf(type, KERNEL, codec, ours as never)),
      elsewhere: takes(messageOf(type, OTHER_PORT, codec, other as never)),
    }).toEqual(expected);
  });

  test('large numbers are told apart in all their bytes', () => {
    for (const number of [0x01020304, 0x7fffffff, 0x00ff00ff]) {
      const strict = monitorFilter(number, 0xfeedbeef);
      const ask = (ifindex: number) => run(strict, messageOf(RTM_GETNEIGH, 0, neighbour, neighbourOf(ifindex)));
      expect(ask(number)).toBe(ALL);
      for (let bit = 0; bit < 31; bit++) expect(ask(number ^ (1 << bit))).toBe(0);
      const changed = (port: number) => run(strict, messageOf(RTM_NEWROUTE, port, route, routeOf(OURS)));
      expect(changed(0xfeedbeef)).toBe(0);
      for (let bit = 0; bit < 32; bit++) expect(changed((0xfeedbeef ^ (1 << bit)) >>> 0)).toBe(ALL);
    }
  });

  test('a message that is cut short is not taken, and one of another kind neither', () => {
    expect(takes(messageOf(RTM_GETNEIGH, KERNEL, neighbour, neighbourOf(OURS)).subarray(0, 18))).toBe(false);
    expect(takes(new Uint8Array(4))).toBe(false);
    expect(takes(messageOf(99, OTHER_PORT, neighbour, neighbourOf(OURS)))).toBe(false);
    expect(new Set(GROUPS).size).toBe(GROUPS.length);
  });
});

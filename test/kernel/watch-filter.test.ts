/** The filter of the watch's socket, over messages as the codec writes them; and whether the kernel takes it. */
import { describe, expect, test } from 'vitest';
import * as native from '../../src/linux/native.ts';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import type { Codec } from '../../src/linux/netlink/codec.ts';
import { link, RTM_DELLINK, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { neighbour, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from '../../src/linux/netlink/neighbour.ts';
import { netconf, RTM_NEWNETCONF } from '../../src/linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, route } from '../../src/linux/netlink/route.ts';
import { RTM_DELRULE, RTM_NEWRULE, rule } from '../../src/linux/netlink/rule.ts';
import {
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  trafficControl,
} from '../../src/linux/netlink/traffic-control.ts';
import { attachSocketFilter } from '../../src/linux/socket-filter.ts';
import { machineFilter } from '../../src/machine/watch-filter.ts';
import { messageOf, takes } from './classic-bpf.ts';

const LINKS = [7, 300, 0x01020304];
const OTHER = 8;
const [OWN_PORT, OTHER_PORT, KERNEL] = [4711, 0xfffffff0, 0];
const AF_INET = 2;

const neighbourOf = (ifindex: number) => ({ family: AF_INET, ifindex, dst: Uint8Array.of(10, 16, 33, 7) });
const linkOf = (index: number) => ({ index, name: 'eth0', mtu: 1450 });
const addressOf = (index: number) => ({ family: AF_INET, index, local: Uint8Array.of(10, 16, 32, 1) });
const routeOf = (oif: number) => ({ family: AF_INET, oif, dst: Uint8Array.of(10, 0, 0, 0), dstLength: 8 });
const ruleOf = () => ({ family: AF_INET, priority: 100 });
const controlOf = (ifindex: number) => ({ ifindex });
const netconfOf = (ifindex: number) => ({ family: AF_INET, ifindex, forwarding: 0 });

/** Of each kind: about one of our links, or another link; by whom. */
const kinds = {
  'our links': { own: true, others: true, kernel: true, elsewhere: false },
  all: { own: true, others: true, kernel: true, elsewhere: true },
  "others' changes": { own: false, others: true, kernel: true, elsewhere: true },
  nothing: { own: false, others: false, kernel: false, elsewhere: false },
};
type Row = [
  name: string,
  type: number,
  codec: Codec<unknown, never>,
  bodyOf: (ifindex: number) => object,
  keyof typeof kinds,
];
const table = [
  ['RTM_NEWLINK', RTM_NEWLINK, link, linkOf, 'our links'],
  ['RTM_DELLINK', RTM_DELLINK, link, linkOf, 'our links'],
  ['RTM_NEWADDR', RTM_NEWADDR, address, addressOf, 'all'],
  ['RTM_DELADDR', RTM_DELADDR, address, addressOf, 'all'],
  ['RTM_NEWROUTE', RTM_NEWROUTE, route, routeOf, "others' changes"],
  ['RTM_DELROUTE', RTM_DELROUTE, route, routeOf, "others' changes"],
  ['RTM_NEWRULE', RTM_NEWRULE, rule, ruleOf, "others' changes"],
  ['RTM_DELRULE', RTM_DELRULE, rule, ruleOf, "others' changes"],
  ['RTM_NEWTFILTER', RTM_NEWTFILTER, trafficControl, controlOf, "others' changes"],
  ['RTM_DELTFILTER', RTM_DELTFILTER, trafficControl, controlOf, "others' changes"],
  ['RTM_NEWQDISC', RTM_NEWQDISC, trafficControl, controlOf, "others' changes"],
  ['RTM_DELQDISC', RTM_DELQDISC, trafficControl, controlOf, "others' changes"],
  ['RTM_NEWNETCONF', RTM_NEWNETCONF, netconf, netconfOf, 'our links'],
  ['RTM_GETNEIGH', RTM_GETNEIGH, neighbour, neighbourOf, 'nothing'],
  ['RTM_NEWNEIGH', RTM_NEWNEIGH, neighbour, neighbourOf, 'nothing'],
  ['RTM_DELNEIGH', RTM_DELNEIGH, neighbour, neighbourOf, 'nothing'],
  ['RTM_DELNETCONF', RTM_NEWNETCONF + 1, netconf, netconfOf, 'nothing'],
] as unknown as Row[];

describe('the filter of the watch', () => {
  const filter = machineFilter({ links: LINKS, port: OWN_PORT });

  describe.each(LINKS)('link %i', (ours) => {
    test.each(table)('%s', (_, type, codec, bodyOf, kind) => {
      const taken = (port: number, ifindex: number) =>
        takes(filter, messageOf(type, port, codec, bodyOf(ifindex) as never));
      expect({
        own: taken(OWN_PORT, ours),
        others: taken(OTHER_PORT, ours),
        kernel: taken(KERNEL, ours),
        elsewhere: taken(OTHER_PORT, OTHER),
      }).toEqual(kinds[kind]);
    });
  });

  test('what is set for all devices, and for those to come', () => {
    const taken = (ifindex: number) => takes(filter, messageOf(RTM_NEWNETCONF, KERNEL, netconf, netconfOf(ifindex)));
    expect([-1, -2, -3, 0].map(taken)).toEqual([true, true, false, false]);
    const none = machineFilter({ links: [], port: OWN_PORT });
    const about = (ifindex: number) => takes(none, messageOf(RTM_NEWNETCONF, KERNEL, netconf, netconfOf(ifindex)));
    expect([-1, -2, 7].map(about)).toEqual([true, true, false]);
    // No link has such an index.
    expect(takes(filter, messageOf(RTM_NEWLINK, KERNEL, link, linkOf(-1)))).toBe(false);
  });

  test('large numbers are told apart in all their bytes', () => {
    for (const number of [0x01020304, 0x7fffffff, 0x00ff00ff]) {
      const strict = machineFilter({ links: [5, number], port: 0xfeedbeef });
      const about = (ifindex: number) => takes(strict, messageOf(RTM_NEWLINK, 0, link, linkOf(ifindex)));
      expect(about(number)).toBe(true);
      for (let bit = 0; bit < 31; bit++) expect(about(number ^ (1 << bit))).toBe(false);
      const changed = (port: number) => takes(strict, messageOf(RTM_NEWROUTE, port, route, routeOf(OTHER)));
      expect(changed(0xfeedbeef)).toBe(false);
      for (let bit = 0; bit < 32; bit++) expect(changed((0xfeedbeef ^ (1 << bit)) >>> 0)).toBe(true);
    }
  });

  test('a message that is cut short is not taken, and one of another kind neither', () => {
    expect(takes(filter, messageOf(RTM_NEWLINK, KERNEL, link, linkOf(7)).subarray(0, 18))).toBe(false);
    expect(takes(filter, new Uint8Array(4))).toBe(false);
    expect(takes(filter, messageOf(99, OTHER_PORT, neighbour, neighbourOf(7)))).toBe(false);
  });

  test.each([0, 1, 500, 2000])('the kernel takes a filter for %i links', (count) => {
    const links = Array.from({ length: count }, (_, i) => i + 1);
    const filter = machineFilter({ links: [...links, ...links.slice(0, 1)], port: OWN_PORT });
    for (const index of links) expect(takes(filter, messageOf(RTM_NEWLINK, 0, link, linkOf(index)))).toBe(true);
    expect(takes(filter, messageOf(RTM_NEWLINK, 0, link, linkOf(count + 1)))).toBe(false);
    const socket = native.must(native.socket(native.AF_NETLINK, native.SOCK_RAW, 0), 'socket', 'for a test');
    try {
      attachSocketFilter(socket, filter);
    } finally {
      native.close(socket);
    }
  });
});

/** The filter of the guard's socket, over messages as the codec writes them. */
import { expect, test } from 'vitest';
import { address, RTM_DELADDR, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import { IFF_UP, link, RTM_DELLINK, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { netconf, RTM_NEWNETCONF } from '../../src/linux/netlink/netconf.ts';
import { guardFilter } from '../../src/machine/guard-monitor.ts';
import { messageOf, takes } from './classic-bpf.ts';

const [IFF_RUNNING, ALL_FLAGS] = [0x40, 0xffffffff];
const linkOf = (type: number, flags: number, change: number) => messageOf(type, 0, link, { index: 7, flags, change });
const addressOf = (type: number) => messageOf(type, 0, address, { family: 2, index: 7 });

test.each([
  ['an address that came', true, addressOf(RTM_NEWADDR)],
  ['an address that went', true, addressOf(RTM_DELADDR)],
  ['settings', true, messageOf(RTM_NEWNETCONF, 0, netconf, { family: 2, ifindex: 7, forwarding: 0 })],
  ['a device that was set down', true, linkOf(RTM_NEWLINK, 0, IFF_UP)],
  ['a device that is about to go', true, linkOf(RTM_NEWLINK, 0, IFF_UP | IFF_RUNNING)],
  ['a device that was set up', false, linkOf(RTM_NEWLINK, IFF_UP, IFF_UP)],
  ['a device that is up, and changed otherwise', false, linkOf(RTM_NEWLINK, IFF_UP, 0)],
  ['a device that is down, and changed otherwise', false, linkOf(RTM_NEWLINK, 0, 0)],
  ['a new device', false, linkOf(RTM_NEWLINK, 0, ALL_FLAGS)],
  ['a device that has gone', false, linkOf(RTM_DELLINK, 0, ALL_FLAGS)],
])('%s', (_, isTaken, message) => {
  expect(takes(guardFilter, message)).toBe(isTaken);
});

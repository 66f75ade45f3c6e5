/** Which notifications reach the neighbour daemon: the kernel itself leaves out those about other devices, however many they are, and those of our own making. */

import { RTM_DELADDR, RTM_NEWADDR, RTNLGRP_IPV4_IFADDR } from '../../linux/netlink/address.ts';
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../linux/netlink/link.ts';
import {
  jumpIfType,
  jumpIfWord,
  loadFamily,
  loadIfindex,
  loadNetconfIfindex,
  loadPort,
  loadType,
} from '../../linux/netlink/message-filter.ts';
import { AF_BRIDGE, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, RTNLGRP_NEIGH } from '../../linux/netlink/neighbour.ts';
import { RTM_NEWNETCONF, RTNLGRP_IPV4_NETCONF } from '../../linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE } from '../../linux/netlink/route.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, RTNLGRP_TC } from '../../linux/netlink/traffic-control.ts';
import { ALL, assemble, jumpIfEqual, RETURN, type SocketFilter } from '../../linux/socket-filter.ts';

export const GROUPS = [
  ...[RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_TC],
  ...[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF],
] as const;

/** For a socket that is only interested in the link `ifindex`, and whose owner makes its changes from `port`. */
export function monitorFilter(ifindex: number, port: number): SocketFilter {
  return assemble([
    loadType,
    ...jumpIfType([RTM_GETNEIGH, RTM_NEWLINK, RTM_DELLINK], 'our device'),
    ...jumpIfType([RTM_NEWNEIGH, RTM_DELNEIGH], 'neighbour'),
    ...jumpIfType([RTM_NEWNETCONF], 'netconf'),
    ...jumpIfType([RTM_NEWADDR, RTM_DELADDR], 'take'),
    ...jumpIfType([RTM_NEWROUTE, RTM_DELROUTE, RTM_DELTFILTER, RTM_DELQDISC], 'others'),
    [RETURN, 0],

    // Not what we did ourselves.
    { label: 'others' },
    loadPort,
    jumpIfWord(port, 'drop', 'take'),

    // Neither what we did ourselves, nor what the kernel does as time goes by.
    { label: 'neighbour' },
    loadPort,
    jumpIfWord(port, 'drop'),
    jumpIfWord(0, undefined, 'our device'),
    // Of forwarding databases the kernel never says who changed them.
    loadFamily,
    jumpIfEqual(AF_BRIDGE, 'our device', 'drop'),

    { label: 'netconf' },
    loadNetconfIfindex,
    jumpIfWord(ifindex, 'take', 'drop'),

    { label: 'our device' },
    loadIfindex,
    jumpIfWord(ifindex, 'take', 'drop'),

    { label: 'drop' },
    [RETURN, 0],
    { label: 'take' },
    [RETURN, ALL],
  ]);
}

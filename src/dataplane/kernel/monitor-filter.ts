/** Which notifications reach the neighbour daemon: the kernel itself leaves out those about other devices, however many they are, and those of our own making. */

import { RTM_DELADDR, RTM_NEWADDR, RTNLGRP_IPV4_IFADDR } from '../../linux/netlink/address.ts';
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../linux/netlink/link.ts';
import { AF_BRIDGE, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, RTNLGRP_NEIGH } from '../../linux/netlink/neighbour.ts';
import { RTM_NEWNETCONF, RTNLGRP_IPV4_NETCONF } from '../../linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE } from '../../linux/netlink/route.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, RTNLGRP_TC } from '../../linux/netlink/traffic-control.ts';
import { ALL, JUMP_IF_EQUAL, LD_BYTE, LD_HALF, LD_WORD, RETURN, type SocketFilter } from '../../linux/socket-filter.ts';

export const GROUPS = [
  ...[RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_TC],
  ...[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF],
] as const;

// Offsets in a message: nlmsg_type and nlmsg_pid (struct nlmsghdr); ndm_family; ifi_index and ndm_ifindex are at the same place. NETCONFA_IFINDEX
// is the first attribute (inet_netconf_fill_devconf in net/ipv4/devinet.c).
const TYPE = 4;
const PORT = 12;
const FAMILY = 16;
const IFINDEX = 20;
const NETCONF_IFINDEX = 24;

/** For a socket that is only interested in the link `ifindex`, and whose owner makes its changes from `port`. */
export function monitorFilter(ifindex: number, port: number): SocketFilter {
  // Loads are in network order, the messages are not.
  const type = (value: number) => ((value & 0xff) << 8) | (value >> 8);
  const word = (value: number) => new DataView(Uint32Array.of(value).buffer).getUint32(0);
  const [others, neighbours, netconf, ourDevice, drop, take] = [13, 15, 20, 22, 24, 25];
  const to = (target: number, from: number) => target - from - 1;
  return [
    /* 0 */ [LD_HALF, TYPE],
    /* 1 */ [JUMP_IF_EQUAL, type(RTM_GETNEIGH), to(ourDevice, 1)],
    /* 2 */ [JUMP_IF_EQUAL, type(RTM_NEWLINK), to(ourDevice, 2)],
    /* 3 */ [JUMP_IF_EQUAL, type(RTM_DELLINK), to(ourDevice, 3)],
    /* 4 */ [JUMP_IF_EQUAL, type(RTM_NEWNEIGH), to(neighbours, 4)],
    /* 5 */ [JUMP_IF_EQUAL, type(RTM_DELNEIGH), to(neighbours, 5)],
    /* 6 */ [JUMP_IF_EQUAL, type(RTM_NEWNETCONF), to(netconf, 6)],
    /* 7 */ [JUMP_IF_EQUAL, type(RTM_NEWADDR), to(take, 7)],
    /* 8 */ [JUMP_IF_EQUAL, type(RTM_DELADDR), to(take, 8)],
    /* 9 */ [JUMP_IF_EQUAL, type(RTM_NEWROUTE), to(others, 9)],
    /* 10 */ [JUMP_IF_EQUAL, type(RTM_DELROUTE), to(others, 10)],
    /* 11 */ [JUMP_IF_EQUAL, type(RTM_DELTFILTER), to(others, 11)],
    /* 12 */ [JUMP_IF_EQUAL, type(RTM_DELQDISC), to(others, 12), to(drop, 12)],
    /* 13, others: not we */ [LD_WORD, PORT],
    /* 14 */ [JUMP_IF_EQUAL, word(port), to(drop, 14), to(take, 14)],
    /* 15, neighbours: not we, and not the kernel by itself, as time goes by */ [LD_WORD, PORT],
    /* 16 */ [JUMP_IF_EQUAL, word(port), to(drop, 16)],
    /* 17 */ [JUMP_IF_EQUAL, 0, 0, to(ourDevice, 17)],
    /* 18, of forwarding databases the kernel never says who */ [LD_BYTE, FAMILY],
    /* 19 */ [JUMP_IF_EQUAL, AF_BRIDGE, to(ourDevice, 19), to(drop, 19)],
    /* 20, netconf */ [LD_WORD, NETCONF_IFINDEX],
    /* 21 */ [JUMP_IF_EQUAL, word(ifindex), to(take, 21), to(drop, 21)],
    /* 22, ourDevice */ [LD_WORD, IFINDEX],
    /* 23 */ [JUMP_IF_EQUAL, word(ifindex), to(take, 23)],
    /* 24, drop */ [RETURN, 0],
    /* 25, take */ [RETURN, ALL],
  ];
}

/** Which notifications reach the neighbour daemon: the kernel itself leaves out those about other devices, however many they are, and those of our own making. */
import { ALL, JUMP_IF_EQUAL, LD_BYTE, LD_HALF, LD_WORD, RETURN, type SocketFilter } from '../io/linux/socket-filter.ts';
import { RTM_DELADDR, RTM_NEWADDR, RTNLGRP_IPV4_IFADDR } from '../netlink/address.ts';
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../netlink/link.ts';
import { AF_BRIDGE, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH, RTNLGRP_NEIGH } from '../netlink/neighbour.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE } from '../netlink/route.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, RTNLGRP_TC } from '../netlink/traffic-control.ts';

export const GROUPS = [RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_TC, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE] as const;

// Offsets in a message: nlmsg_type and nlmsg_pid (struct nlmsghdr); ndm_family; ifi_index and ndm_ifindex are at the same place.
const TYPE = 4;
const PORT = 12;
const FAMILY = 16;
const IFINDEX = 20;

/** For a socket that is only interested in the link `ifindex`, and whose owner makes its changes from `port`. */
export function monitorFilter(ifindex: number, port: number): SocketFilter {
  // Loads are in network order, the messages are not.
  const type = (value: number) => ((value & 0xff) << 8) | (value >> 8);
  const word = (value: number) => new DataView(Uint32Array.of(value).buffer).getUint32(0);
  const [others, neighbours, ourDevice, drop, take] = [12, 14, 19, 21, 22];
  const to = (target: number, from: number) => target - from - 1;
  return [
    /* 0 */ [LD_HALF, TYPE],
    /* 1 */ [JUMP_IF_EQUAL, type(RTM_GETNEIGH), to(ourDevice, 1)],
    /* 2 */ [JUMP_IF_EQUAL, type(RTM_NEWLINK), to(ourDevice, 2)],
    /* 3 */ [JUMP_IF_EQUAL, type(RTM_DELLINK), to(ourDevice, 3)],
    /* 4 */ [JUMP_IF_EQUAL, type(RTM_NEWNEIGH), to(neighbours, 4)],
    /* 5 */ [JUMP_IF_EQUAL, type(RTM_DELNEIGH), to(neighbours, 5)],
    /* 6 */ [JUMP_IF_EQUAL, type(RTM_NEWADDR), to(take, 6)],
    /* 7 */ [JUMP_IF_EQUAL, type(RTM_DELADDR), to(take, 7)],
    /* 8 */ [JUMP_IF_EQUAL, type(RTM_NEWROUTE), to(others, 8)],
    /* 9 */ [JUMP_IF_EQUAL, type(RTM_DELROUTE), to(others, 9)],
    /* 10 */ [JUMP_IF_EQUAL, type(RTM_DELTFILTER), to(others, 10)],
    /* 11 */ [JUMP_IF_EQUAL, type(RTM_DELQDISC), to(others, 11), to(drop, 11)],
    /* 12, others: not we */ [LD_WORD, PORT],
    /* 13 */ [JUMP_IF_EQUAL, word(port), to(drop, 13), to(take, 13)],
    /* 14, neighbours: not we, and not the kernel by itself, as time goes by */ [LD_WORD, PORT],
    /* 15 */ [JUMP_IF_EQUAL, word(port), to(drop, 15)],
    /* 16 */ [JUMP_IF_EQUAL, 0, 0, to(ourDevice, 16)],
    /* 17, of forwarding databases the kernel never says who */ [LD_BYTE, FAMILY],
    /* 18 */ [JUMP_IF_EQUAL, AF_BRIDGE, to(ourDevice, 18), to(drop, 18)],
    /* 19, ourDevice */ [LD_WORD, IFINDEX],
    /* 20 */ [JUMP_IF_EQUAL, word(ifindex), to(take, 20)],
    /* 21, drop */ [RETURN, 0],
    /* 22, take */ [RETURN, ALL],
  ];
}

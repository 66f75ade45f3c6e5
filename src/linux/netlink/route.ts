/** Routes (struct rtmsg, <linux/rtnetlink.h>), with what a tunnel is told (<linux/lwtunnel.h>). */
import {
  align,
  attributes,
  bytes,
  type Codec,
  message,
  type PutOf,
  s32,
  struct,
  u8,
  u16,
  u32,
  type ValueOf,
} from './codec.ts';

// <linux/rtnetlink.h>
export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;
export const RTNLGRP_IPV4_ROUTE = 7;
export const RTN_UNICAST = 1;
export const RTN_LOCAL = 2;
export const RTN_BROADCAST = 3;
export const RTN_UNREACHABLE = 7;
export const RTN_THROW = 9;
export const RT_SCOPE_UNIVERSE = 0;
export const RT_SCOPE_LINK = 253;
/** Of a request to delete: any scope. */
export const RT_SCOPE_NOWHERE = 255;
/** What `table` says where a table's number has no room in it: `anyTable` always has the number. */
export const RT_TABLE_COMPAT = 252;
export const RT_TABLE_DEFAULT = 253;
export const RT_TABLE_MAIN = 254;
export const RT_TABLE_LOCAL = 255;
/** Of a dump: what was learnt of single addresses, instead of routes (Linux 5.3). */
export const RTM_F_CLONED = 0x200;
/** Flag of a question: the kernel answers with the route as its table has it (Linux 4.13). */
export const RTM_F_FIB_MATCH = 0x2000;
/** Flag of a route: the gateway is reached directly on the link, whatever other routes say. */
export const RTNH_F_ONLINK = 4;
// <linux/lwtunnel.h>
export const LWTUNNEL_ENCAP_IP = 2;

/** struct rtnexthop, and RTA_ENCAP_TYPE of what follows it. */
const nextHop = struct(8, { length: [0, u16], flags: [2, u8], hops: [3, u8], ifindex: [4, s32] });
const nextHopAttributes = attributes({ encapType: [21, u16] });

interface Hop {
  ifindex: number;
  encapType?: number | undefined;
}

/** RTA_MULTIPATH, of which only these are read: the kernel's routes may have several. */
const multipath: Codec<Hop[]> = {
  put: (writer, hops) => {
    for (const { ifindex } of hops) nextHop.put(writer, { length: nextHop.size, flags: 0, hops: 0, ifindex });
  },
  get: (view, start, end) => {
    const found: Hop[] = [];
    for (let at = start; at + nextHop.size <= end; ) {
      const { length, ifindex } = nextHop.get(view, at, end);
      if (length < nextHop.size || at + length > end) throw new RangeError(`a next hop of ${length} bytes`);
      found.push({ ifindex, ...nextHopAttributes.get(view, at + nextHop.size, at + length) });
      at += align(length);
    }
    return found;
  },
};

const rtmsg = struct(12, {
  family: [0, u8],
  dstLength: [1, u8],
  srcLength: [2, u8],
  tos: [3, u8],
  table: [4, u8],
  protocol: [5, u8],
  scope: [6, u8],
  type: [7, u8],
  flags: [8, u32],
});
const routeAttributes = {
  dst: [1, bytes],
  src: [2, bytes],
  oif: [4, u32],
  gateway: [5, bytes],
  priority: [6, u32],
  prefsrc: [7, bytes],
  metrics: [8, attributes({ lock: [1, u32], mtu: [2, u32], window: [3, u32], ssthresh: [6, u32] })],
  multipath: [9, multipath],
  /** A gateway of another family: an IPv6 router. */
  via: [18, bytes],
  /** The route puts packets into a tunnel of its own. */
  encapType: [21, u16],
  /** Of LWTUNNEL_ENCAP_IP. */
  encap: [22, attributes({ id: [1, bytes], dst: [2, bytes], src: [3, bytes], ttl: [4, u8], tos: [5, u8] })],
  /** A nexthop object, which may be changed by itself. */
  nexthop: [30, u32],
} as const;

export const route = message(rtmsg, routeAttributes);

/** A route of any table: RTA_TABLE has the numbers, too, for which `table` has no room. */
export const anyRoute = message(rtmsg, { ...routeAttributes, anyTable: [15, u32] });

export type Route = ValueOf<typeof route>;
export type AnyRoute = ValueOf<typeof anyRoute>;
export type RouteRequest = PutOf<typeof route>;

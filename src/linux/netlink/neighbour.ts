/**
 * Neighbours, entries of forwarding databases, and the parameters of neighbour tables (struct ndmsg and
 * ndtmsg, <linux/neighbour.h>; arp(7)).
 */
import {
  attributes,
  be16,
  bytes,
  message,
  type PutOf,
  s32,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  type ValueOf,
} from './codec.ts';

// <linux/rtnetlink.h>
export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
/** A message from the kernel: it asks where a neighbour is. */
export const RTM_GETNEIGH = 30;
export const RTM_GETNEIGHTBL = 66;
export const RTM_SETNEIGHTBL = 67;
export const RTNLGRP_NEIGH = 3;

/** <linux/socket.h>: the family of entries in forwarding databases. */
export const AF_BRIDGE = 7;

// <linux/neighbour.h>
export const NUD_INCOMPLETE = 0x01;
export const NUD_REACHABLE = 0x02;
export const NUD_STALE = 0x04;
export const NUD_PROBE = 0x10;
export const NUD_FAILED = 0x20;
export const NUD_PERMANENT = 0x80;
/** Reachable, stale, delay or probe: the link-layer address is known, and may be another some day. */
export const NUD_VALID = 0x1e;
/** For the device itself, not for a bridge that it is part of. */
export const NTF_SELF = 0x02;
/** Learnt outside the kernel: exempt from garbage collection. */
export const NTF_EXT_LEARNED = 0x10;

const ndmsg = struct(12, {
  family: [0, u8],
  ifindex: [4, s32],
  state: [8, u16],
  flags: [10, u8],
  type: [11, u8],
});

/** How long ago, in ticks of 10 ms (USER_HZ). */
const cacheInfo = struct(16, {
  confirmed: [0, u32],
  used: [4, u32],
  updated: [8, u32],
  references: [12, u32],
});

/**
 * A neighbour of a link: `dst` has the link-layer address `lladdr`. In AF_BRIDGE an entry of a forwarding
 * database: `lladdr` lives at `dst`.
 */
export const neighbour = message(ndmsg, {
  dst: [1, bytes],
  lladdr: [2, bytes],
  cacheInfo: [3, cacheInfo],
  probes: [4, u32],
  vlan: [5, u16],
  port: [6, be16],
  vni: [7, u32],
  /** Of a dump: only neighbours of this link. */
  filterIfindex: [8, u32],
  protocol: [12, u8],
});

export type Neighbour = ValueOf<typeof neighbour>;
export type NeighbourRequest = PutOf<typeof neighbour>;

/** A table, or what it is to do on one link; times in ms. */
export const neighbourTable = message(struct(4, { family: [0, u8] }), {
  name: [1, text],
  thresh1: [2, u32],
  thresh2: [3, u32],
  thresh3: [4, u32],
  /** struct ndt_stats: how often the kernel threw out entries because there were too many, and had no room. */
  stats: [7, struct(88, { forcedGcRuns: [72, u64], tableFulls: [80, u64] })],
  parms: [
    6,
    attributes({
      ifindex: [1, u32],
      baseReachableTime: [4, u64],
      retransTime: [5, u64],
      gcStaletime: [6, u64],
      delayProbeTime: [7, u64],
      /** How often the kernel asks a daemon that listens, and then the network. */
      appProbes: [9, u32],
      ucastProbes: [10, u32],
      mcastProbes: [11, u32],
      queueLenbytes: [16, u32],
    }),
  ],
});

export type NeighbourTable = ValueOf<typeof neighbourTable>;

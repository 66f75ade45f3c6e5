/**
 * Rules of policy routing (struct fib_rule_hdr, <linux/fib_rules.h>; ip-rule(8)): which table is looked at
 * for which packets, in the order of their priorities.
 */
import { bytes, message, type PutOf, struct, text, u8, u32, type ValueOf } from './codec.ts';

// <linux/rtnetlink.h>
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;
export const RTNLGRP_IPV4_RULE = 8;
// <linux/fib_rules.h>
export const FR_ACT_TO_TBL = 1;
export const FR_ACT_NOP = 3;
export const FR_ACT_UNREACHABLE = 7;
/** Flag: the rule is for the packets that do not match. */
export const FIB_RULE_INVERT = 2;

export const rule = message(
  struct(12, {
    family: [0, u8],
    dstLength: [1, u8],
    srcLength: [2, u8],
    tos: [3, u8],
    table: [4, u8],
    action: [7, u8],
    flags: [8, u32],
  }),
  {
    dst: [1, bytes],
    src: [2, bytes],
    /** The device that packets came in by; `lo` for those of this machine itself. */
    inputName: [3, text],
    priority: [6, u32],
    mark: [10, u32],
    suppressGroup: [13, u32],
    /** Routes with a prefix of this length or shorter do not count. */
    suppressPrefixLength: [14, u32],
    /** The table, which may have a number that `table` has no room for. */
    anyTable: [15, u32],
    markMask: [16, u32],
    /** The device that a sender has chosen. */
    outputName: [17, text],
    /** 1: the table is that of the packet's VRF. */
    l3mdev: [19, u8],
    users: [20, bytes],
    protocol: [21, u8],
    ipProtocol: [22, u8],
    sourcePorts: [23, bytes],
    destinationPorts: [24, bytes],
    dscp: [25, u8],
  },
);

export type Rule = ValueOf<typeof rule>;
export type RuleRequest = PutOf<typeof rule>;

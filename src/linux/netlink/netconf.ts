/**
 * What is set of a device below net.ipv4.conf (struct netconfmsg, <linux/netconf.h>); the kernel tells
 * whoever sets it.
 */
import { message, s32, struct, u8 } from './codec.ts';

export const RTM_NEWNETCONF = 80;
export const RTM_GETNETCONF = 82;
/** <linux/rtnetlink.h> */
export const RTNLGRP_IPV4_NETCONF = 24;
// Instead of an interface index (<linux/netconf.h>): what is set for all devices, and for those to come.
export const NETCONFA_IFINDEX_ALL = -1;
export const NETCONFA_IFINDEX_DEFAULT = -2;

/** A notification has only what was set. */
export const netconf = message(struct(4, { family: [0, u8] }), { ifindex: [1, s32], forwarding: [2, s32] });

/**
 * Which notifications reach the watch of the machine. The kernel itself leaves out those about other links,
 * however many there are, and most of those that our own changes cause.
 */

import { RTM_DELADDR, RTM_NEWADDR } from '../linux/netlink/address.ts';
import { RTM_DELLINK, RTM_NEWLINK } from '../linux/netlink/link.ts';
import {
  jumpIfType,
  jumpIfWord,
  loadIfindex,
  loadNetconfIfindex,
  loadPort,
  loadType,
} from '../linux/netlink/message-filter.ts';
import { NETCONFA_IFINDEX_ALL, NETCONFA_IFINDEX_DEFAULT, RTM_NEWNETCONF } from '../linux/netlink/netconf.ts';
import { RTM_DELROUTE, RTM_NEWROUTE } from '../linux/netlink/route.ts';
import { RTM_DELRULE, RTM_NEWRULE } from '../linux/netlink/rule.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, RTM_NEWQDISC, RTM_NEWTFILTER } from '../linux/netlink/traffic-control.ts';
import { ALL, assemble, jump, type Line, RETURN, type SocketFilter } from '../linux/socket-filter.ts';

export interface MachineFilterOptions {
  /** Their interface indexes. The kernel takes about 2,000 at most (BPF_MAXINSNS in <linux/bpf_common.h>). */
  links: readonly number[];
  /** From which socket (its port, nlmsg_pid) we make our own changes. */
  port: number;
}

/**
 * For a socket that wants to know of these links, of all addresses, and of routes, rules, disciplines and
 * filters that others change.
 */
export function machineFilter({ links, port }: MachineFilterOptions): SocketFilter {
  return assemble([
    loadType,
    ...jumpIfType([RTM_NEWADDR, RTM_DELADDR], 'take'),
    ...jumpIfType([RTM_NEWLINK, RTM_DELLINK], 'link'),
    ...jumpIfType([RTM_NEWNETCONF], 'netconf'),
    ...jumpIfType([RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE], 'others'),
    ...jumpIfType([RTM_NEWTFILTER, RTM_DELTFILTER, RTM_NEWQDISC, RTM_DELQDISC], 'others'),
    [RETURN, 0],

    // Changes that we made ourselves are dropped.
    { label: 'others' },
    loadPort,
    jumpIfWord(port, 'drop', 'take'),
    { label: 'take' },
    [RETURN, ALL],
    { label: 'drop' },
    [RETURN, 0],

    // A setting for all devices, or for new ones, changes ours as well.
    { label: 'netconf' },
    loadNetconfIfindex,
    ...takeIf(NETCONFA_IFINDEX_ALL),
    ...takeIf(NETCONFA_IFINDEX_DEFAULT),
    jump('links'),

    { label: 'link' },
    loadIfindex,
    { label: 'links' },
    ...links.flatMap(takeIf),
    [RETURN, 0],
  ]);
}

/** Each comparison has a RETURN of its own, because a jump reaches only 255 instructions. */
function takeIf(ifindex: number): Line[] {
  const other = Symbol('other');
  return [jumpIfWord(ifindex, undefined, other), [RETURN, ALL], { label: other }];
}

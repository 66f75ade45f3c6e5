/**
 * What the kernel tells of containers' devices: changed, gone, with disciplines and filters of others, and with
 * neighbours behind them.
 */
import { RTM_DELADDR, RTNLGRP_IPV4_IFADDR } from '../../linux/netlink/address.ts';
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../linux/netlink/link.ts';
import {
  jumpIfHalfBits,
  jumpIfType,
  jumpIfWord,
  loadChange,
  loadFamily,
  loadIfindex,
  loadNeighbourState,
  loadPort,
  loadType,
} from '../../linux/netlink/message-filter.ts';
import { Monitor, type MonitorListeners } from '../../linux/netlink/monitor.ts';
import {
  NUD_PERMANENT,
  NUD_REACHABLE,
  NUD_STALE,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
  RTNLGRP_NEIGH,
} from '../../linux/netlink/neighbour.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import {
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  RTNLGRP_TC,
} from '../../linux/netlink/traffic-control.ts';
import { NETLINK_ROUTE, openTransport } from '../../linux/netlink/transport.ts';
import { ALL, assemble, jump, jumpIfEqual, RETURN, type SocketFilter } from '../../linux/socket-filter.ts';

const GROUPS = [RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR] as const;
/** ifi_change of a device that has just been made: no route leads to it yet. */
const ALL_FLAGS = 0xffffffff;

export interface MonitorOptions {
  /** Port of the socket that makes our own changes. */
  port: number;
  /** Interface index of the overlay's device: with the kernel's data plane, other VMs are its neighbours, thousands perhaps. */
  overlay: number;
}

export function containerFilter({ port, overlay }: MonitorOptions): SocketFilter {
  return assemble([
    loadType,
    ...jumpIfType([RTM_NEWNEIGH], 'new neighbour'),
    ...jumpIfType([RTM_DELNEIGH], 'neighbour'),
    ...jumpIfType([RTM_NEWLINK], 'new link'),
    ...jumpIfType([RTM_DELLINK], 'link'),
    ...jumpIfType([RTM_DELADDR], 'take'),
    ...jumpIfType([RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER], 'traffic control'),
    [RETURN, 0],

    { label: 'new link' },
    loadChange,
    jumpIfWord(ALL_FLAGS, 'drop'),
    // A device that joins or leaves a bridge is told of once more, in the bridge's family.
    { label: 'link' },
    loadFamily,
    jumpIfEqual(0, 'take', 'drop'),

    { label: 'traffic control' },
    loadPort,
    jumpIfWord(port, 'drop', 'take'),

    // Another link-layer address comes with one of these states.
    { label: 'new neighbour' },
    loadNeighbourState,
    jumpIfHalfBits(NUD_REACHABLE | NUD_STALE | NUD_PERMANENT, undefined, 'drop'),
    { label: 'neighbour' },
    loadFamily,
    jumpIfEqual(AF_INET, undefined, 'drop'),
    loadIfindex,
    jumpIfWord(overlay, 'drop'),
    jump('take'),

    { label: 'take' },
    [RETURN, ALL],
    { label: 'drop' },
    [RETURN, 0],
  ]);
}

export function containerMonitor(options: MonitorOptions, listeners: MonitorListeners): Monitor {
  return new Monitor(
    openTransport(NETLINK_ROUTE, GROUPS, () => containerFilter(options)),
    listeners,
  );
}

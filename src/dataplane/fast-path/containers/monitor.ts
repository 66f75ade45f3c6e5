/**
 * What the kernel tells of containers' devices: changed, gone, forwarded from or not, with disciplines and filters of others, and with
 * neighbours behind them.
 */
import { address, RTM_DELADDR, RTNLGRP_IPV4_IFADDR } from '../../../linux/netlink/address.ts';
import { ipv4Number } from '../../../linux/netlink/ipv4.ts';
import { IFF_UP, RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../../linux/netlink/link.ts';
import type { Message } from '../../../linux/netlink/message.ts';
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
} from '../../../linux/netlink/message-filter.ts';
import { Monitor } from '../../../linux/netlink/monitor.ts';
import {
  NUD_PERMANENT,
  NUD_REACHABLE,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
  RTNLGRP_NEIGH,
} from '../../../linux/netlink/neighbour.ts';
import { netconf, RTM_NEWNETCONF, RTNLGRP_IPV4_NETCONF } from '../../../linux/netlink/netconf.ts';
import { AF_INET } from '../../../linux/netlink/rtnetlink.ts';
import {
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  RTNLGRP_TC,
  TC_H_CLSACT,
  trafficControl,
} from '../../../linux/netlink/traffic-control.ts';
import { NETLINK_ROUTE, openTransport } from '../../../linux/netlink/transport.ts';
import { vethEndIn } from '../../../linux/netlink/veth.ts';
import { ALL, assemble, jump, jumpIfEqual, RETURN, type SocketFilter } from '../../../linux/socket-filter.ts';

const GROUPS = [RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF] as const;
/** ifi_change of a device that has just been made: no route leads to it yet. */
const ALL_FLAGS = 0xffffffff;
/** Offset of ifi_index in a message. */
const INDEX = 4;

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
    ...jumpIfType([RTM_DELADDR, RTM_NEWNETCONF], 'take'),
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

/** What a monitor tells of. Devices are told of by their interface indexes. */
export interface ContainerListeners {
  /** A device is another than it was; or it was set down, and so its routes have gone, of which the kernel does not tell. */
  onDevice(link: number, isDown: boolean): void;
  /** A device has gone, into another namespace perhaps. */
  onGone(link: number): void;
  /** A device has another discipline for incoming packets, or none. */
  onDiscipline(link: number, kind: string | undefined): void;
  /** The entry of a neighbour. */
  onNeighbour(address: number): void;
  /** An address of this machine has gone, and with it all routes that have it as their source, of which the kernel does not tell. */
  onAddressGone(address: Uint8Array | undefined): void;
  /** Notifications were lost. */
  onLost(): void;
  /** Nothing more will be heard. */
  onFailure(): void;
}

export function containerMonitor(options: MonitorOptions, listeners: ContainerListeners): Monitor {
  return new Monitor(
    openTransport(NETLINK_ROUTE, GROUPS, () => containerFilter(options)),
    {
      onMessages: (messages) => {
        for (const message of messages) tell(message, listeners);
      },
      onOverrun: () => listeners.onLost(),
      onFailure: () => listeners.onFailure(),
    },
  );
}

function tell(message: Message, listeners: ContainerListeners): void {
  const { type, view, start, end } = message;
  switch (type) {
    case RTM_DELLINK:
      listeners.onGone(view.getInt32(start + INDEX, true));
      break;
    case RTM_NEWLINK: {
      const found = vethEndIn(message);
      if (found) listeners.onDevice(found.index, (found.flags & IFF_UP) === 0);
      break;
    }
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const at = ipv4Number(neighbour.get(view, start, end).dst);
      if (at !== undefined) listeners.onNeighbour(at);
      break;
    }
    case RTM_DELADDR:
      listeners.onAddressGone(address.get(view, start, end).local);
      break;
    case RTM_NEWNETCONF: {
      const { ifindex = 0, forwarding } = netconf.get(view, start, end);
      if (forwarding !== undefined) listeners.onDevice(ifindex, false);
      break;
    }
    default: {
      const { ifindex, parent, kind } = trafficControl.get(view, start, end);
      const isIngress = parent >>> 0 === TC_H_CLSACT;
      if (isIngress && type === RTM_NEWQDISC) listeners.onDiscipline(ifindex, kind);
      if (isIngress && type === RTM_DELQDISC) listeners.onDiscipline(ifindex, undefined);
      listeners.onDevice(ifindex, false);
    }
  }
}

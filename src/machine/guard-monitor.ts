/**
 * Which devices the kernel says to have changed: their addresses, or those of their settings that it tells
 * of, or that were set down or are about to go. It does not tell of all.
 */
import {
  address,
  RTM_DELADDR,
  RTM_NEWADDR,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV6_IFADDR,
} from '../linux/netlink/address.ts';
import { IFF_UP, link, RTM_NEWLINK, RTNLGRP_LINK } from '../linux/netlink/link.ts';
import type { Message } from '../linux/netlink/message.ts';
import {
  jumpIfBits,
  jumpIfType,
  jumpIfWord,
  loadChange,
  loadFlags,
  loadType,
} from '../linux/netlink/message-filter.ts';
import { Monitor } from '../linux/netlink/monitor.ts';
import { NETCONFA_IFINDEX_DEFAULT, netconf, RTM_NEWNETCONF, RTNLGRP_IPV4_NETCONF } from '../linux/netlink/netconf.ts';
import { NETLINK_ROUTE, openTransport } from '../linux/netlink/transport.ts';
import { ALL, assemble, RETURN, type SocketFilter } from '../linux/socket-filter.ts';

const GROUPS = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_NETCONF] as const;
/** ifi_change of a device that has just been made (register_netdevice in net/core/dev.c). */
const ALL_FLAGS = 0xffffffff;
export const guardFilter: SocketFilter = assemble([
  loadType,
  ...jumpIfType([RTM_NEWADDR, RTM_DELADDR, RTM_NEWNETCONF], 'take'),
  ...jumpIfType([RTM_NEWLINK], 'link'),
  [RETURN, 0],
  { label: 'take' },
  [RETURN, ALL],

  // With a device that is set down, its routes go, of which the kernel does not tell.
  { label: 'link' },
  loadFlags,
  jumpIfBits(IFF_UP, 'drop'),
  loadChange,
  jumpIfWord(ALL_FLAGS, 'drop'),
  jumpIfBits(IFF_UP, undefined, 'drop'),
  [RETURN, ALL],
  { label: 'drop' },
  [RETURN, 0],
]);

/** `onChange` gets an interface index; `all` where it may be any. */
export function guardMonitor(onChange: (index: number | 'all') => void, onFailure: () => void): Monitor {
  return new Monitor(
    openTransport(NETLINK_ROUTE, GROUPS, () => guardFilter),
    {
      onMessages: (messages) => {
        for (const message of messages) {
          const index = indexIn(message);
          if (index !== undefined) onChange(index);
        }
      },
      onOverrun: () => onChange('all'),
      onFailure: () => {
        onChange('all');
        onFailure();
      },
    },
  );
}

function indexIn({ type, view, start, end }: Message): number | 'all' | undefined {
  if (type === RTM_NEWLINK) return link.get(view, start, end).index;
  if (type !== RTM_NEWNETCONF) return address.get(view, start, end).index;
  // What is set for new devices changes those that were never set.
  const { ifindex } = netconf.get(view, start, end);
  return ifindex === NETCONFA_IFINDEX_DEFAULT ? 'all' : ifindex;
}

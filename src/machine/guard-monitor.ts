/**
 * Which devices the kernel says to have changed: their addresses, or those of their settings that it tells
 * of. It does not tell of all.
 */
import {
  address,
  RTM_DELADDR,
  RTM_NEWADDR,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV6_IFADDR,
} from '../linux/netlink/address.ts';
import type { Message } from '../linux/netlink/message.ts';
import { jumpIfType, loadType } from '../linux/netlink/message-filter.ts';
import { Monitor } from '../linux/netlink/monitor.ts';
import { NETCONFA_IFINDEX_DEFAULT, netconf, RTM_NEWNETCONF, RTNLGRP_IPV4_NETCONF } from '../linux/netlink/netconf.ts';
import { NETLINK_ROUTE, openTransport } from '../linux/netlink/transport.ts';
import { ALL, assemble, RETURN } from '../linux/socket-filter.ts';

const GROUPS = [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_NETCONF] as const;
const FILTER = assemble([
  loadType,
  ...jumpIfType([RTM_NEWADDR, RTM_DELADDR, RTM_NEWNETCONF], 'take'),
  [RETURN, 0],
  { label: 'take' },
  [RETURN, ALL],
]);

/** `onChange` gets an interface index; `all` where it may be any. */
export function guardMonitor(onChange: (index: number | 'all') => void, onFailure: () => void): Monitor {
  return new Monitor(
    openTransport(NETLINK_ROUTE, GROUPS, () => FILTER),
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
  if (type !== RTM_NEWNETCONF) return address.get(view, start, end).index;
  // What is set for new devices changes those that were never set.
  const { ifindex } = netconf.get(view, start, end);
  return ifindex === NETCONFA_IFINDEX_DEFAULT ? 'all' : ifindex;
}

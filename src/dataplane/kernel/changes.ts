/** What a change by others to links, their settings, addresses, routes, neighbours or filters means to the overlay. */

import { address, RTM_DELADDR, RTM_NEWADDR } from '../../linux/netlink/address.ts';
import { addressOf } from '../../linux/netlink/ipv4.ts';
import { IFF_NOARP, IFF_UP, link, RTM_DELLINK, RTM_NEWLINK } from '../../linux/netlink/link.ts';
import { type Message, NLM_F_REPLACE } from '../../linux/netlink/message.ts';
import { AF_BRIDGE, neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from '../../linux/netlink/neighbour.ts';
import { netconf, RTM_NEWNETCONF } from '../../linux/netlink/netconf.ts';
import { type Route, RTM_DELROUTE, RTM_NEWROUTE, route } from '../../linux/netlink/route.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, trafficControl } from '../../linux/netlink/traffic-control.ts';
import { type NetworkPlan, ROUTE_PROTOCOL } from '../../machine/steps.ts';
import { contains } from '../../mesh/address.ts';
import type { UnderlayMarks } from '../check/underlay-marks.ts';
import type { Neighbours } from './neighbours.ts';

/**
 * What is to be done about it. `check`: our programs; `resync`: remote VMs; `repair`: all; `overrun`: all, as notifications were lost; `underlay`: nothing can be
 * done, the VM has lost its address.
 */
export type Task = 'check' | 'resync' | 'repair' | 'overrun' | 'underlay';

export interface Overlay {
  plan: NetworkPlan;
  ifindex: number;
  neighbours: Neighbours;
  marks: UnderlayMarks | undefined;
  /** The device's link-layer address, if that matters. */
  mac: Uint8Array | undefined;
}

export function taskFor({ type, flags, view, start, end }: Message, overlay: Overlay): Task | undefined {
  switch (type) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const found = neighbour.get(view, start, end);
      const isWell = found.family === AF_BRIDGE && overlay.neighbours.isForwardedWell(found, type === RTM_DELNEIGH);
      return isWell ? undefined : 'resync';
    }
    case RTM_DELLINK:
      return 'repair';
    case RTM_NEWLINK: {
      const found = link.get(view, start, end);
      const isWell = found.mtu === overlay.plan.mtu && found.flags & IFF_UP && !(found.flags & IFF_NOARP);
      const hasMac = overlay.mac === undefined || String(found.address) === String(overlay.mac);
      return isWell && hasMac ? undefined : 'repair';
    }
    case RTM_NEWNETCONF:
      return netconf.get(view, start, end).forwarding === 0 ? 'repair' : undefined;
    case RTM_DELADDR:
    case RTM_NEWADDR: {
      const { index, local } = address.get(view, start, end);
      if (type === RTM_DELADDR && index === overlay.ifindex) return 'repair';
      if (addressOf(local)?.bits !== overlay.plan.local.bits) return undefined;
      return type === RTM_DELADDR ? 'underlay' : overlay.marks && 'check';
    }
    case RTM_DELROUTE:
    case RTM_NEWROUTE: {
      const found = route.get(view, start, end);
      if (overlay.marks?.concerns(found)) return 'check';
      if (!isInOverlay(found, overlay.plan)) return undefined;
      if (type === RTM_NEWROUTE) return flags & NLM_F_REPLACE ? 'repair' : undefined;
      // With a gateway, it is that of a VM; without, it may be the one to the whole overlay, or that of our own slice.
      if (found.protocol !== ROUTE_PROTOCOL) return undefined;
      return found.gateway ? (found.oif === overlay.ifindex ? 'resync' : undefined) : 'repair';
    }
    case RTM_DELTFILTER:
    case RTM_DELQDISC: {
      const { ifindex } = trafficControl.get(view, start, end);
      return ifindex === overlay.ifindex || overlay.marks?.isAt(ifindex) ? 'check' : undefined;
    }
    default:
      return undefined;
  }
}

function isInOverlay({ dst, dstLength }: Route, { mappings }: NetworkPlan): boolean {
  const to = addressOf(dst);
  return to !== undefined && mappings.some(({ overlay }) => dstLength >= overlay.length && contains(overlay, to));
}

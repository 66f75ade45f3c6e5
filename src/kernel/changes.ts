/** What a change by others to links, addresses, routes, neighbours or filters means to the overlay. */
import { address, RTM_DELADDR, RTM_NEWADDR } from '../netlink/address.ts';
import { IFF_NOARP, IFF_UP, link, RTM_DELLINK, RTM_NEWLINK } from '../netlink/link.ts';
import { type Message, NLM_F_REPLACE } from '../netlink/message.ts';
import { neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from '../netlink/neighbour.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, route } from '../netlink/route.ts';
import { RTM_DELQDISC, RTM_DELTFILTER, trafficControl } from '../netlink/traffic-control.ts';
import { ROUTE_PROTOCOL } from '../setup/steps.ts';
import { AF_BRIDGE } from './entries.ts';
import type { Neighbours } from './neighbours.ts';
import type { UnderlayMarks } from './underlay-marks.ts';

/** What is to be done about it. `check`: our programs; `resync`: remote VMs; `repair`: all. */
export type Task = 'check' | 'resync' | 'repair';

/** What the overlay's device is like. */
export interface Overlay {
  ifindex: number;
  mtu: number;
  neighbours: Neighbours;
  marks: UnderlayMarks | undefined;
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
      const isWell = found.mtu === overlay.mtu && found.flags & IFF_UP && !(found.flags & IFF_NOARP);
      return isWell ? undefined : 'repair';
    }
    case RTM_DELADDR:
      if (address.get(view, start, end).index === overlay.ifindex) return 'repair';
      return overlay.marks && 'check';
    case RTM_NEWADDR:
      return overlay.marks && 'check';
    case RTM_DELROUTE:
    case RTM_NEWROUTE: {
      const found = route.get(view, start, end);
      const isLost = type === RTM_DELROUTE ? found.protocol === ROUTE_PROTOCOL : flags & NLM_F_REPLACE;
      if (isLost) return 'repair';
      return overlay.marks?.concerns(found) ? 'check' : undefined;
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

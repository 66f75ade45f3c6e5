/** What a change by others to neighbours or routes means to remote VMs. All else the machine is watched for. */
import type { Message } from '../../linux/netlink/message.ts';
import { AF_BRIDGE, neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from '../../linux/netlink/neighbour.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, route } from '../../linux/netlink/route.ts';
import { ROUTE_PROTOCOL } from '../../machine/state.ts';
import type { Neighbours } from './neighbours.ts';

/** Whether the entries of remote VMs are to be compared with the kernel's. */
export function isAboutVms({ type, view, start, end }: Message, ifindex: number, neighbours: Neighbours): boolean {
  switch (type) {
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: {
      const found = neighbour.get(view, start, end);
      return found.family !== AF_BRIDGE || !neighbours.isForwardedWell(found, type === RTM_DELNEIGH);
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      const found = route.get(view, start, end);
      // A route with a gateway is a VM's.
      return found.protocol === ROUTE_PROTOCOL && found.gateway !== undefined && found.oif === ifindex;
    }
    default:
      return false;
  }
}

/**
 * The one neighbour entry of a device without a link layer. The kernel makes it for the first packet, and
 * throws it out when its table is full (gc_thresh3, for the whole machine); then no packet gets to the
 * device. A permanent one stays.
 */
import { NLM_F_CREATE, NLM_F_REPLACE, request } from '../../linux/netlink/message.ts';
import { NUD_PERMANENT, neighbour, RTM_NEWNEIGH } from '../../linux/netlink/neighbour.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import type { NeighbourThing } from '../state.ts';
import { neighbourAt } from './container-neighbour.ts';
import { indexOf, type Kind } from './kind.ts';

/** arp_constructor in net/ipv4/arp.c: of such a device all addresses have the same entry. */
const ANY = Uint8Array.of(0, 0, 0, 0);

export const neighbourKind: Kind<NeighbourThing> = {
  ensure({ device }, context) {
    const ifindex = indexOf(context, device);
    const what = `neighbour entry of ${device}`;
    const found = neighbourAt(context.netlink, ifindex, ANY);
    if (found && found.state & NUD_PERMANENT) return undefined;
    const body = { family: AF_INET, ifindex, dst: ANY, state: NUD_PERMANENT };
    context.netlink.do(request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, what, neighbour, body));
    return `${what} is not permanent`;
  },

  commands: ({ device }) => [`ip neighbour replace 0.0.0.0 dev ${device} nud permanent`],
  describe: ({ device }) => `neighbour entry of ${device}`,
};

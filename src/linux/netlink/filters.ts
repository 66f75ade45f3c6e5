/**
 * Our filters of kind bpf in the discipline clsact of a device (tc-bpf(8)). They are known by their priority,
 * handle and name.
 */
import type { Decoder, ValueOf } from './codec.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, type Request, request } from './message.ts';
import type { Netlink } from './netlink.ts';
import {
  bpfFilter,
  CLSACT_EGRESS,
  CLSACT_HANDLE,
  CLSACT_INGRESS,
  isOurs as hasOurName,
  OUR_FILTER,
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_GETQDISC,
  RTM_GETTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  TC_H_CLSACT,
  TCA_BPF_FLAG_ACT_DIRECT,
  trafficControl,
} from './traffic-control.ts';

export const PRIORITY = 73;
const HANDLE = 1;
/** What the kernel answers where there is none. */
const NO_DISCIPLINE = ['EINVAL', 'ENOENT', 'EOPNOTSUPP', 'ENODEV'];
/** ETH_P_ALL in network order (<linux/if_ether.h>). */
const ALL_PROTOCOLS = 0x0300;

export type Place = 'ingress' | 'egress';
export type Filter = ValueOf<typeof bpfFilter>;
const PARENTS = { ingress: CLSACT_INGRESS, egress: CLSACT_EGRESS } as const;

/** Filters of other kinds have options of other forms. */
const anyFilter: Decoder<Filter> = {
  get: (...at) => {
    const found = trafficControl.get(...at);
    return found.kind === 'bpf' ? bpfFilter.get(...at) : found;
  },
};

/** All filters at one place of a device; a first entry of each priority, with handle 0, stands for the priority itself. */
export function filtersAt(netlink: Netlink, ifindex: number, place: Place): Filter[] {
  const body = { ifindex, parent: PARENTS[place] };
  try {
    return netlink.dump(request(RTM_GETTFILTER, 0, 'filters', trafficControl, body), anyFilter);
  } catch (error) {
    if (error instanceof NetlinkError && NO_DISCIPLINE.includes(error.code)) return [];
    throw error;
  }
}

export function isOurs(found: Filter): boolean {
  return found.handle === HANDLE && hasOurPriority(found) && hasOurName(found);
}

export function hasOurPriority({ info }: Filter): boolean {
  return info >>> 16 === PRIORITY;
}

/** Adds or replaces our filter, in one step: no packet passes in between without a program. */
export function putFilter(ifindex: number, place: Place, program: number, what: Request['what']): Request {
  const options = { fd: program, name: OUR_FILTER, flags: TCA_BPF_FLAG_ACT_DIRECT };
  const body = { ...filterOf(ifindex, place), kind: 'bpf', options };
  return request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, what, bpfFilter, body);
}

export function removeFilter(ifindex: number, place: Place, what: Request['what']): Request {
  return request(RTM_DELTFILTER, 0, what, trafficControl, filterOf(ifindex, place));
}

/** EEXIST tells that there is one, or the discipline `ingress`. */
export function makeClsact(ifindex: number, what: Request['what']): Request {
  return request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, what, trafficControl, clsactOf(ifindex));
}

/** The request names the kind, because the discipline `ingress` of others has the same handle. */
export function removeClsact(ifindex: number, what: Request['what']): Request {
  return request(RTM_DELQDISC, 0, what, trafficControl, clsactOf(ifindex));
}

/** The kinds of the disciplines for incoming packets, by the interface indexes of the devices that have one: clsact or ingress. */
export function ingressDisciplines(netlink: Netlink): Map<number, string> {
  const all = netlink.dump(request(RTM_GETQDISC, 0, 'disciplines', trafficControl, {}), trafficControl);
  return new Map(
    all.flatMap(({ ifindex, parent, kind = '' }) => (parent >>> 0 === TC_H_CLSACT ? [[ifindex, kind]] : [])),
  );
}

function clsactOf(ifindex: number) {
  return { ifindex, handle: CLSACT_HANDLE, parent: TC_H_CLSACT, kind: 'clsact' };
}

function filterOf(ifindex: number, place: Place) {
  return { ifindex, handle: HANDLE, parent: PARENTS[place], info: (PRIORITY << 16) | ALL_PROTOCOLS };
}

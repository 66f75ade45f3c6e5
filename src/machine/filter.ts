/** Programs at the ingress and egress of devices: filters of kind bpf in the discipline clsact (tc-bpf(8)). They stay when the daemon goes. */

import type { Decoder, ValueOf } from '../linux/netlink/codec.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, request } from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import {
  bpfFilter,
  CLSACT_EGRESS,
  CLSACT_HANDLE,
  CLSACT_INGRESS,
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_GETTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  TC_H_CLSACT,
  TCA_BPF_FLAG_ACT_DIRECT,
  trafficControl,
} from '../linux/netlink/traffic-control.ts';
import type { Journal } from './journal.ts';

/** By which our filters are known: their priority in a device's list, and their name. */
const PRIORITY = 73;
const NAME = 'inlay';
const HANDLE = 1;
/** What the kernel answers where there is none. */
const NO_DISCIPLINE = ['EINVAL', 'ENOENT', 'EOPNOTSUPP'];
/** ETH_P_ALL in network order (<linux/if_ether.h>). */
const ALL_PROTOCOLS = 0x0300;

export type Place = 'ingress' | 'egress';
const PARENTS = { ingress: CLSACT_INGRESS, egress: CLSACT_EGRESS } as const;

/** Puts a program there, or another in its place: no packet passes in between without one. A device of others' is noted in the journal. */
export function attachFilter(netlink: Netlink, device: string, place: Place, program: number, journal?: Journal): void {
  const ifindex = findLink(netlink, device)?.index;
  if (ifindex === undefined) return;
  makeClsact(netlink, device, ifindex, journal);
  journal?.add({ kind: 'filter', device });
  const options = { fd: program, name: NAME, flags: TCA_BPF_FLAG_ACT_DIRECT };
  const body = { ...filterOf(ifindex, place), kind: 'bpf', options };
  netlink.do(request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, `filter of ${device}`, bpfFilter, body));
}

/** Whether our filter is there. */
function hasFilter(netlink: Netlink, ifindex: number, place: Place): boolean {
  return filters(netlink, ifindex, place).some(
    ({ info, options }) => info >>> 16 === PRIORITY && options?.name === NAME,
  );
}

/** False if it had gone already. */
export function removeFilter(netlink: Netlink, device: string, place: Place): boolean {
  const ifindex = findLink(netlink, device)?.index;
  if (ifindex === undefined || !hasFilter(netlink, ifindex, place)) return false;
  netlink.do(request(RTM_DELTFILTER, 0, `filter of ${device}`, trafficControl, filterOf(ifindex, place)));
  return true;
}

/** Removes the discipline that we made, unless somebody else has filters in it now. False if it stays. */
export function removeClsact(netlink: Netlink, device: string): boolean {
  const ifindex = findLink(netlink, device)?.index;
  if (ifindex === undefined) return false;
  if ([...filters(netlink, ifindex, 'ingress'), ...filters(netlink, ifindex, 'egress')].length > 0) return false;
  const [error] = netlink.tryAll([request(RTM_DELQDISC, 0, `clsact of ${device}`, trafficControl, clsactOf(ifindex))]);
  return error === undefined;
}

function makeClsact(netlink: Netlink, device: string, ifindex: number, journal: Journal | undefined): void {
  const body = { ...clsactOf(ifindex), kind: 'clsact' };
  const make = request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, `clsact of ${device}`, trafficControl, body);
  const change = { kind: 'clsact', device } as const;
  const isKnown = journal?.has(change);
  journal?.add(change);
  const [error] = netlink.tryAll([make]);
  if (!error) return;
  if (!isKnown) journal?.forget(change); // Somebody else's, or none.
  if (error.code !== 'EEXIST') throw error;
}

/** Filters of other kinds have options of other forms. */
const anyFilter: Decoder<ValueOf<typeof bpfFilter>> = {
  get: (...at) => {
    const found = trafficControl.get(...at);
    return found.kind === 'bpf' ? bpfFilter.get(...at) : found;
  },
};

function filters(netlink: Netlink, ifindex: number, place: Place) {
  const body = { ifindex, parent: PARENTS[place] };
  try {
    return netlink.dump(request(RTM_GETTFILTER, 0, 'filters', trafficControl, body), anyFilter);
  } catch (error) {
    if (error instanceof NetlinkError && NO_DISCIPLINE.includes(error.code)) return [];
    throw error;
  }
}

function clsactOf(ifindex: number) {
  return { ifindex, handle: CLSACT_HANDLE, parent: TC_H_CLSACT };
}

function filterOf(ifindex: number, place: Place) {
  return { ifindex, handle: HANDLE, parent: PARENTS[place], info: (PRIORITY << 16) | ALL_PROTOCOLS };
}

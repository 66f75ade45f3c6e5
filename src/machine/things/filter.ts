/**
 * Programs at the ingress and egress of devices: filters of kind bpf in the discipline clsact (tc-bpf(8)).
 * They stay when the daemon goes. Our filters are known by their priority, handle and name.
 */
import { InlayError } from '../../errors.ts';
import { programId } from '../../linux/bpf/program.ts';
import type { Decoder, ValueOf } from '../../linux/netlink/codec.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, request } from '../../linux/netlink/message.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import {
  bpfFilter,
  CLSACT_EGRESS,
  CLSACT_HANDLE,
  CLSACT_INGRESS,
  isOurs as hasOurName,
  OUR_FILTER,
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_GETTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  TC_H_CLSACT,
  TCA_BPF_FLAG_ACT_DIRECT,
  trafficControl,
} from '../../linux/netlink/traffic-control.ts';
import type { ClsactThing, FilterThing } from '../state.ts';
import type { Kind } from './kind.ts';

const PRIORITY = 73;
const HANDLE = 1;
/** What the kernel answers where there is none. */
const NO_DISCIPLINE = ['EINVAL', 'ENOENT', 'EOPNOTSUPP'];
/** ETH_P_ALL in network order (<linux/if_ether.h>). */
const ALL_PROTOCOLS = 0x0300;

type Place = FilterThing['place'];
type Filter = ValueOf<typeof bpfFilter>;
const PARENTS = { ingress: CLSACT_INGRESS, egress: CLSACT_EGRESS } as const;

export const filterKind: Kind<FilterThing> = {
  ensure(wanted, context) {
    const { device, place, program, others } = wanted;
    const { netlink, links } = context;
    const ifindex = others ? findLink(netlink, device)?.index : links.get(device);
    if (ifindex === undefined) return undefined;
    const what = `filter at the ${place} of ${device}`;
    const found = filters(netlink, ifindex, place).filter(({ info }) => info >>> 16 === PRIORITY);
    const ours = found.find(isOurs);
    if (program === undefined) {
      if (!ours) return undefined;
      remove(netlink, ifindex, place, what);
      return `${what} is of an earlier daemon`;
    }
    if (ours?.options?.id === programId(program)) return undefined;
    if (!ours && found.length > 0) throw inTheWay(what, device, place);
    // At a device of others the discipline is a thing of its own, because it has to be removed by itself.
    if (others) clsactKind.ensure({ kind: 'clsact', device }, context);
    else makeClsact(context.netlink, device, ifindex);
    if (others) context.note({ kind: 'filter', device, place, others });
    const options = { fd: program, name: OUR_FILTER, flags: TCA_BPF_FLAG_ACT_DIRECT };
    const body = { ...filterOf(ifindex, place), kind: 'bpf', options };
    // In one step: no packet passes in between without a program.
    netlink.do(request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, what, bpfFilter, body));
    return `${what} is ${ours ? 'of an earlier daemon' : 'missing'}`;
  },

  undo({ device, place }, { netlink }) {
    const ifindex = findLink(netlink, device)?.index;
    if (ifindex === undefined) return false;
    const ours = filters(netlink, ifindex, place).some(isOurs);
    if (ours) remove(netlink, ifindex, place, `filter of ${device}`);
    return ours;
  },

  // No command can load a program that is made on the spot.
  commands: () => [],
  describe: ({ device, place }) => `program at the ${place} of ${device}`,
};

/** The discipline that holds filters at a device of others, where we made it. */
export const clsactKind: Kind<ClsactThing> = {
  ensure(thing, context) {
    const { device } = thing;
    const ifindex = findLink(context.netlink, device)?.index;
    if (ifindex === undefined) return undefined;
    const wasNoted = context.isNoted(thing);
    context.note(thing);
    if (makeClsact(context.netlink, device, ifindex)) return `clsact of ${device} is missing`;
    if (!wasNoted) context.forget(thing); // It is somebody else's.
    return undefined;
  },
  undo({ device }, { netlink }) {
    const ifindex = findLink(netlink, device)?.index;
    if (ifindex === undefined) return false;
    // Somebody else may have filters in it by now.
    if ([...filters(netlink, ifindex, 'ingress'), ...filters(netlink, ifindex, 'egress')].length > 0) return false;
    // The request names the kind, because the discipline `ingress` of others has the same handle.
    const [error] = netlink.tryAll([
      request(RTM_DELQDISC, 0, `clsact of ${device}`, trafficControl, clsactOf(ifindex)),
    ]);
    return error === undefined;
  },
  commands: () => [],
  describe: ({ device }) => `clsact of ${device}`,
};

/** Whether a device has a filter of ours. */
export function hasFilter(netlink: Netlink, ifindex: number, place: Place): boolean {
  return filters(netlink, ifindex, place).some(isOurs);
}

function isOurs(found: Filter): boolean {
  return found.handle === HANDLE && found.info >>> 16 === PRIORITY && hasOurName(found);
}

function inTheWay(what: string, device: string, place: Place): InlayError {
  return new InlayError('ERR_FAILED', `${what}: a filter of others has priority ${PRIORITY}`, {
    hint: `look whose it is: tc filter show dev ${device} ${place}`,
  });
}

function remove(netlink: Netlink, ifindex: number, place: Place, what: string): void {
  netlink.do(request(RTM_DELTFILTER, 0, what, trafficControl, filterOf(ifindex, place)));
}

/** False if there was one. */
function makeClsact(netlink: Netlink, device: string, ifindex: number): boolean {
  const make = request(
    RTM_NEWQDISC,
    NLM_F_CREATE | NLM_F_EXCL,
    `clsact of ${device}`,
    trafficControl,
    clsactOf(ifindex),
  );
  const [error] = netlink.tryAll([make]);
  if (error && error.code !== 'EEXIST') throw error;
  return error === undefined;
}

/** Filters of other kinds have options of other forms. */
const anyFilter: Decoder<Filter> = {
  get: (...at) => {
    const found = trafficControl.get(...at);
    return found.kind === 'bpf' ? bpfFilter.get(...at) : found;
  },
};

function filters(netlink: Netlink, ifindex: number, place: Place): Filter[] {
  const body = { ifindex, parent: PARENTS[place] };
  try {
    return netlink.dump(request(RTM_GETTFILTER, 0, 'filters', trafficControl, body), anyFilter);
  } catch (error) {
    if (error instanceof NetlinkError && NO_DISCIPLINE.includes(error.code)) return [];
    throw error;
  }
}

function clsactOf(ifindex: number) {
  return { ifindex, handle: CLSACT_HANDLE, parent: TC_H_CLSACT, kind: 'clsact' };
}

function filterOf(ifindex: number, place: Place) {
  return { ifindex, handle: HANDLE, parent: PARENTS[place], info: (PRIORITY << 16) | ALL_PROTOCOLS };
}

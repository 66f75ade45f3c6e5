/**
 * Programs at the ingress and egress of devices: filters of kind bpf in the discipline clsact (tc-bpf(8)).
 * They stay when the daemon goes. Our filters are known by their priority, handle and name.
 */
import { InlayError } from '../../errors.ts';
import { programId } from '../../linux/bpf/program.ts';
import {
  filtersAt,
  hasOurPriority,
  isOurs,
  makeClsact,
  type Place,
  PRIORITY,
  putFilter,
  removeClsact,
  removeFilter,
} from '../../linux/netlink/filters.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import { type ClsactThing, clsactFor, type FilterThing } from '../state.ts';
import type { Kind } from './kind.ts';

export const filterKind: Kind<FilterThing> = {
  ensure(wanted, context) {
    const { device, index, place, program, others, later } = wanted;
    if (later) return undefined;
    const { netlink, links } = context;
    const ifindex = others ? findLink(netlink, index ?? device)?.index : links.get(device);
    if (ifindex === undefined) return undefined;
    const what = `filter at the ${place} of ${device}`;
    const found = filtersAt(netlink, ifindex, place).filter(hasOurPriority);
    const ours = found.find(isOurs);
    if (program === undefined) {
      if (!ours) return undefined;
      netlink.do(removeFilter(ifindex, place, what));
      return `${what} is of an earlier daemon`;
    }
    if (ours?.options?.id === programId(program)) return undefined;
    if (!ours && found.length > 0) throw inTheWay(what, device, place);
    // At a device of others the discipline is a thing of its own, because it has to be removed by itself.
    if (others) clsactKind.ensure(clsactFor(wanted), context);
    else hasMadeClsact(netlink, device, ifindex);
    if (others) context.note({ kind: 'filter', device, place, others, ...(index !== undefined && { index }) });
    netlink.do(putFilter(ifindex, place, program, what));
    return `${what} is ${ours ? 'of an earlier daemon' : 'missing'}`;
  },

  undo({ device, index, place }, { netlink }) {
    const ifindex = findLink(netlink, index ?? device)?.index;
    if (ifindex === undefined) return false;
    const ours = hasFilter(netlink, ifindex, place);
    if (ours) netlink.do(removeFilter(ifindex, place, `filter of ${device}`));
    return ours;
  },

  // No command can load a program that is made on the spot.
  commands: () => [],
  describe: ({ device, place }) => `program at the ${place} of ${device}`,
};

/** The discipline that holds filters at a device of others, where we made it. */
export const clsactKind: Kind<ClsactThing> = {
  ensure(thing, context) {
    const { device, index } = thing;
    const ifindex = findLink(context.netlink, index ?? device)?.index;
    if (ifindex === undefined) return undefined;
    const wasNoted = context.isNoted(thing);
    context.note(thing);
    if (hasMadeClsact(context.netlink, device, ifindex)) return `clsact of ${device} is missing`;
    if (!wasNoted) context.forget(thing); // It is somebody else's.
    return undefined;
  },
  undo({ device, index }, { netlink }) {
    const ifindex = findLink(netlink, index ?? device)?.index;
    if (ifindex === undefined) return false;
    // Somebody else may have filters in it by now.
    if ([...filtersAt(netlink, ifindex, 'ingress'), ...filtersAt(netlink, ifindex, 'egress')].length > 0) return false;
    const [error] = netlink.tryAll([removeClsact(ifindex, `clsact of ${device}`)]);
    return error === undefined;
  },
  commands: () => [],
  describe: ({ device }) => `clsact of ${device}`,
};

/** Whether a device has a filter of ours. */
export function hasFilter(netlink: Netlink, ifindex: number, place: Place): boolean {
  return programAt(netlink, ifindex, place) !== undefined;
}

/** The program that a filter of ours runs, by the kernel's number; undefined if there is none. */
export function programAt(netlink: Netlink, ifindex: number, place: Place): number | undefined {
  return filtersAt(netlink, ifindex, place).find(isOurs)?.options?.id;
}

function inTheWay(what: string, device: string, place: Place): InlayError {
  return new InlayError('ERR_FAILED', `${what}: a filter of others has priority ${PRIORITY}`, {
    hint: `look whose it is: tc filter show dev ${device} ${place}`,
  });
}

/** False if there was one. */
function hasMadeClsact(netlink: Netlink, device: string, ifindex: number): boolean {
  const [error] = netlink.tryAll([makeClsact(ifindex, `clsact of ${device}`)]);
  if (error && error.code !== 'EEXIST') throw error;
  return error === undefined;
}

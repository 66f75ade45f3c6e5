/**
 * The programs of the fast path at containers' devices, as one thing: the data plane puts them there, as
 * containers come. They stay when the daemon goes, so that the next one replaces them without a gap.
 */
import { filtersAt, ingressDisciplines, isOurs, removeClsact, removeFilter } from '../../linux/netlink/filters.ts';
import type { Netlink } from '../../linux/netlink/netlink.ts';
import { vethEnds } from '../../linux/netlink/veth.ts';
import type { ContainerFiltersThing } from '../state.ts';
import type { Kind } from './kind.ts';

const CLSACT = 'clsact';
/** What the kernel answers where it has gone meanwhile, perhaps with its device. */
const GONE = ['ENOENT', 'ENODEV', 'EINVAL'];

export const containerFiltersKind: Kind<ContainerFiltersThing> = {
  ensure(thing, context) {
    if (context.isNoted(thing)) return undefined;
    context.note(thing);
    return "containers' devices have no programs";
  },
  undo(_, { netlink, isNoted }) {
    // Where underlays are veths, too, ours are there for other reasons.
    const isOther = (device: string, index: number) =>
      [{ device }, { device, index }].some(
        (known) => isNoted({ kind: 'clsact', ...known }) || isNoted({ kind: 'filter', ...known, place: 'ingress' }),
      );
    const found = filteredVeths(netlink, isOther);
    removeContainerFilters(netlink, found);
    return found.length > 0;
  },
  commands: () => [],
  describe: () => "programs at containers' devices",
};

/** Interface indexes of the veths that have a filter of ours. */
export function filteredVeths(
  netlink: Netlink,
  isOther: (device: string, index: number) => boolean = () => false,
): number[] {
  const disciplines = ingressDisciplines(netlink);
  if (![...disciplines.values()].includes(CLSACT)) return [];
  return vethEnds(netlink).flatMap(({ index, name = '' }) =>
    disciplines.get(index) === CLSACT && !isOther(name, index) && filtersAt(netlink, index, 'ingress').some(isOurs)
      ? [index]
      : [],
  );
}

/**
 * Removes our filters from these devices, and the disciplines that are then empty: a program only goes where
 * there was none. Returns the devices that have no discipline any more.
 */
export function removeContainerFilters(netlink: Netlink, indexes: readonly number[]): number[] {
  const what = "filter of a container's device";
  const errors = netlink.tryAll(indexes.map((index) => removeFilter(index, 'ingress', what)));
  const empty = indexes.filter(
    (index) => filtersAt(netlink, index, 'ingress').length + filtersAt(netlink, index, 'egress').length === 0,
  );
  errors.push(...netlink.tryAll(empty.map((index) => removeClsact(index, "clsact of a container's device"))));
  const failure = errors.find((error) => error && !GONE.includes(error.code));
  if (failure) throw failure;
  return empty;
}

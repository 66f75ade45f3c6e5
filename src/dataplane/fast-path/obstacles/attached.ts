/**
 * Programs and disciplines of others that packets of the fast path would go past: where they come in by the uplink, and at the
 * overlay's device. What is at the uplink for outgoing packets is not gone past: they pass its disciplines, and the filters in them.
 */
import { hasTcx } from '../../../linux/bpf/tcx.ts';
import type { Device } from '../../../linux/netfilter/packet.ts';
import { deviceOf, devicesBelow, hasXdp } from '../../../linux/netlink/device.ts';
import { Features } from '../../../linux/netlink/ethtool.ts';
import { type Filter, filtersAt, hasOurPriority, isOurs, type Place } from '../../../linux/netlink/filters.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import { Pace } from './pace.ts';

/**
 * NETIF_F_GRO_FRAGLIST: merged packets are chains of whole ones, with headers of their own, which cannot be taken off all of them
 * at once.
 */
const FRAGMENT_LISTS = 'rx-gro-list';

/** Disciplines that devices come with (net.core.default_qdisc): they only queue what waits, which then waits at the uplink. */
const QUEUES = [
  'noqueue',
  'noop',
  'mq',
  'pfifo_fast',
  'pfifo',
  'bfifo',
  'sfq',
  'fq',
  'fq_codel',
  'codel',
  'fq_pie',
  'pie',
];

export class Attached {
  readonly #netlink: Netlink;
  readonly #features = new Features();
  readonly #pace = new Pace();
  #merging: string | undefined;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** What the fast path would go past, in words. */
  gonePast(uplink: Device, overlay: Device | undefined): string | undefined {
    return (
      this.#at(uplink, 'ingress') ??
      (overlay && (this.#at(overlay, 'ingress', 'egress') ?? this.#disciplineOf(overlay)))
    );
  }

  /** The device that merges packets in a way that the fast path cannot do with, in words. */
  merging(uplink: Device): string | undefined {
    this.#pace.look(() => {
      const found = devicesBelow(this.#netlink, uplink.index).find(({ index }) =>
        this.#features.isActive(index, FRAGMENT_LISTS),
      );
      this.#merging = found && `${FRAGMENT_LISTS} of ${found.name} is on (ethtool)`;
    });
    return this.#merging;
  }

  close(): void {
    this.#features.close();
  }

  #at({ index, name }: Device, ...places: Place[]): string | undefined {
    for (const place of places) {
      if (filtersAt(this.#netlink, index, place).some(isOfOthers))
        return `${name} has a filter of others at its ${place} (tc)`;
      if (hasTcx(index, place)) return `${name} has a program of others at its ${place} (tcx)`;
    }
    // It runs before all else. But what it does to packets, it may do for the way that they take otherwise.
    const found = deviceOf(this.#netlink, index);
    return found && hasXdp(found) ? `${name} has an XDP program` : undefined;
  }

  #disciplineOf({ index, name }: Device): string | undefined {
    const kind = deviceOf(this.#netlink, index)?.discipline;
    return kind === undefined || QUEUES.includes(kind) ? undefined : `${name} has the discipline ${kind} (tc)`;
  }
}

/** An entry with handle 0 stands for a priority. */
function isOfOthers(found: Filter): boolean {
  return hasOurPriority(found) ? found.handle !== 0 && !isOurs(found) : true;
}

/**
 * The machine's table of IPv4 neighbours, one for all network namespaces. How full it is cannot be read:
 * the entries that count are not told apart from those that do not. But the kernel counts what it does then.
 */
import { NetlinkError, request } from '../../linux/netlink/message.ts';
import { type NeighbourTable, neighbourTable, RTM_GETNEIGHTBL } from '../../linux/netlink/neighbour.ts';
import { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import type { Remark } from './remark.ts';

/** ms after the last such event for which the remark stays. */
const LASTING = 60_000;

/** The part of the answer that is about the table itself. */
export type Counted = Pick<NeighbourTable, 'thresh2' | 'thresh3' | 'stats'>;

export class NeighbourTableLookOut {
  readonly #read: () => Counted | undefined;
  #before: Counted['stats'];
  #thrownOut = -Infinity;
  #full = -Infinity;

  constructor(read: () => Counted | undefined = readTable) {
    this.#read = read;
  }

  /** `now` in ms. */
  look(now: number): Remark[] {
    const found = this.#read();
    const stats = found?.stats;
    if (!found || !stats) return [];
    const before = this.#before;
    this.#before = stats;
    if (before && stats.forcedGcRuns > before.forcedGcRuns) this.#thrownOut = now;
    if (before && stats.tableFulls > before.tableFulls) this.#full = now;
    const { thresh2 = 0, thresh3 = 0 } = found;
    const hint = `if so many machines and containers are needed, in the machine's first network namespace: sysctl -w net.ipv4.neigh.default.gc_thresh2=${4 * thresh2}; sysctl -w net.ipv4.neigh.default.gc_thresh3=${4 * thresh3}`;
    if (now - this.#full <= LASTING) {
      const what = `the machine's neighbour table is full (gc_thresh3 ${thresh3}): packets to addresses that are not in it are dropped`;
      return [{ key: 'neighbours full', what, hint }];
    }
    if (now - this.#thrownOut <= LASTING) {
      const what = `the machine's neighbour table is near full (gc_thresh2 ${thresh2}, gc_thresh3 ${thresh3}): the kernel throws out entries before their time`;
      return [{ key: 'neighbours near full', what, hint }];
    }
    return [];
  }
}

/** The first part of the answer is about the table; what each device has comes behind it, and is not read. */
function readTable(): Counted | undefined {
  const netlink = Netlink.open();
  try {
    const asked = request(RTM_GETNEIGHTBL, 0, 'neighbour table', neighbourTable, { family: AF_INET });
    for (const part of netlink.parts(asked, neighbourTable)) {
      const found = part.find(({ name, stats }) => name === 'arp_cache' && stats);
      netlink.close();
      return found;
    }
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
  } finally {
    netlink.close();
  }
  return undefined;
}

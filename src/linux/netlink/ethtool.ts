/** Features of network devices, as ethtool(8) has them (Documentation/networking/ethtool-netlink.rst). */
import { attributes, bytes, list, message, struct, text, u8, u32 } from './codec.ts';
import { CTRL_CMD_GETFAMILY, family, GENL_ID_CTRL } from './generic.ts';
import { NetlinkError, request } from './message.ts';
import { Netlink } from './netlink.ts';
import { NETLINK_GENERIC } from './transport.ts';

// <linux/ethtool_netlink.h>
const STRSET_GET = 1;
const FEATURES_GET = 11;
/** Sets of features come as one bit each. */
const COMPACT_BITSETS = 1;
/** ETH_SS_FEATURES of <linux/ethtool.h>: the names of the features. */
const FEATURE_NAMES = 4;
/** NLA_F_NESTED of <linux/netlink.h>, which this family wants. */
const NESTED = 0x8000;
const BITS = 8;
/** What kernels answer that have no such family, no such request, or no such device. */
const UNKNOWN = ['ENOENT', 'EOPNOTSUPP', 'ENODEV'];

const header = struct(4, { command: [0, u8], version: [1, u8] });
const namesAsked = message(header, {
  header: [1 | NESTED, attributes({ flags: [3, u32] })],
  sets: [2 | NESTED, attributes({ set: [1 | NESTED, attributes({ id: [1, u32] })] })],
});
const namesTold = message(header, {
  sets: [
    2,
    attributes({ set: [1, attributes({ strings: [3, list(1, attributes({ index: [1, u32], name: [2, text] }))] })] }),
  ],
});
const featuresAsked = message(header, { header: [1 | NESTED, attributes({ index: [1, u32], flags: [3, u32] })] });
const featuresTold = message(header, { active: [4, attributes({ value: [4, bytes] })] });

export class Features {
  #netlink: Netlink | undefined;
  #family = 0;
  /** Their bits, by their names. */
  #bits = new Map<string, number>();

  /** Whether a feature of a device is active; undefined if the kernel does not tell. */
  isActive(ifindex: number, name: string): boolean | undefined {
    try {
      const netlink = this.#open();
      const bit = this.#bits.get(name);
      if (bit === undefined) return undefined;
      const body = { command: FEATURES_GET, version: 1, header: { index: ifindex, flags: COMPACT_BITSETS } };
      const asked = request(this.#family, 0, `features of link ${ifindex}`, featuresAsked, body);
      const word = netlink.get(asked, featuresTold).active?.value?.[Math.floor(bit / BITS)];
      return word === undefined ? undefined : (word & (1 << (bit % BITS))) !== 0;
    } catch (error) {
      if (error instanceof NetlinkError && UNKNOWN.includes(error.code)) return undefined;
      throw error;
    }
  }

  close(): void {
    this.#netlink?.close();
    this.#netlink = undefined;
  }

  #open(): Netlink {
    if (this.#netlink) return this.#netlink;
    const netlink = Netlink.open(NETLINK_GENERIC);
    try {
      const which = { command: CTRL_CMD_GETFAMILY, version: 1, name: 'ethtool' };
      this.#family = netlink.get(request(GENL_ID_CTRL, 0, 'family ethtool', family, which), family).id ?? 0;
      const body = { command: STRSET_GET, version: 1, header: {}, sets: { set: { id: FEATURE_NAMES } } };
      const { sets } = netlink.get(request(this.#family, 0, 'names of features', namesAsked, body), namesTold);
      this.#bits = new Map(sets?.set?.strings?.map(({ index = 0, name: of = '' }) => [of, index]));
    } catch (error) {
      netlink.close();
      throw error;
    }
    this.#netlink = netlink;
    return netlink;
  }
}

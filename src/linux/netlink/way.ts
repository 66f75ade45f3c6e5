/** Routes of any table, as far as they say where packets go (rtnetlink(7)). */
import { align, attributes, bytes, type Codec, message, s32, struct, u8, u16, u32, type ValueOf } from './codec.ts';

// <linux/rtnetlink.h>
export const RTN_THROW = 9;
export const RT_TABLE_COMPAT = 252;
export const RT_TABLE_DEFAULT = 253;
export const RT_TABLE_LOCAL = 255;

/** struct rtnexthop, and RTA_ENCAP_TYPE of what follows it. */
const hop = struct(8, { length: [0, u16], ifindex: [4, s32] });
const hopAttributes = attributes({ encapType: [21, u16] });

interface Hop {
  ifindex: number;
  encapType?: number | undefined;
}

/** RTA_MULTIPATH, which is only read. */
const hops: Codec<Hop[]> = {
  put: () => {},
  get: (view, start, end) => {
    const found: Hop[] = [];
    for (let at = start; at + hop.size <= end; ) {
      const { length, ifindex } = hop.get(view, at, end);
      if (length < hop.size || at + length > end) throw new RangeError(`a next hop of ${length} bytes`);
      found.push({ ifindex, ...hopAttributes.get(view, at + hop.size, at + length) });
      at += align(length);
    }
    return found;
  },
};

export const way = message(
  struct(12, {
    family: [0, u8],
    dstLength: [1, u8],
    tos: [3, u8],
    /** RT_TABLE_COMPAT where its number has no room: `anyTable` always has it. */
    table: [4, u8],
    protocol: [5, u8],
    type: [7, u8],
  }),
  {
    dst: [1, bytes],
    oif: [4, u32],
    gateway: [5, bytes],
    priority: [6, u32],
    multipath: [9, hops],
    anyTable: [15, u32],
    /** A gateway of another family: an IPv6 router. */
    via: [18, bytes],
    /** The route puts packets into a tunnel of its own. */
    encapType: [21, u16],
  },
);

export type Way = ValueOf<typeof way>;

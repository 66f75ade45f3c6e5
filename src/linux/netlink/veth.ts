/** Ends of veths: what decides how a packet goes into one and comes out of the other (<linux/if_link.h>). */
import { attributes, bytes, message, s32, struct, text, u8, u16, u32, type ValueOf } from './codec.ts';
import { RTM_GETLINK } from './link.ts';
import { type Message, NetlinkError, type Request, request } from './message.ts';
import type { Netlink } from './netlink.ts';

const KIND = 'veth';
/** RTEXT_FILTER_SKIP_STATS of <linux/rtnetlink.h>: leaves out counters. */
const SKIP_STATS = 1 << 3;
/** What the kernel answers where there is none, or no such namespace any more, or one that this process may not look into. */
const UNKNOWN = ['ENODEV', 'EINVAL', 'ENOENT', 'EPERM'];

const info = attributes({ kind: [1, text] });
/** IFLA_INET_CONF: all settings of IPv4 in a row, of which forwarding is the first (IPV4_DEVCONF_FORWARDING of <linux/ip.h>). */
const ipv4 = struct(4, { forwarding: [0, s32] });
const end = message(
  struct(16, { family: [0, u8], type: [2, u16], index: [4, s32], flags: [8, u32], change: [12, u32] }),
  {
    address: [1, bytes],
    name: [3, text],
    /** The interface index of the other end, in its namespace. */
    peer: [5, u32],
    /** The kind of the discipline for outgoing packets. */
    discipline: [6, text],
    /** The bridge, bond or VRF that the device is a part of. */
    master: [10, u32],
    info: [18, info],
    alias: [20, text],
    afSpec: [26, attributes({ ipv4: [2, attributes({ settings: [1, ipv4] })] })],
    extMask: [29, u32],
    /** The namespace of the other end, by a number that this one's has for it; missing if it is the same. */
    peerNetNsId: [37, s32],
    xdp: [43, attributes({ attached: [2, u8] })],
    /** Of a request: in which namespace the link is. */
    targetNetNsId: [46, s32],
  },
);

/** The byte arrays are views: they are good as long as the datagram is. */
export type VethEnd = ValueOf<typeof end>;

/** All in this namespace. */
export function vethEnds(netlink: Netlink): VethEnd[] {
  const body = { info: { kind: KIND }, extMask: SKIP_STATS };
  return netlink.dump(request(RTM_GETLINK, 0, 'veths', end, body), end).filter(isVeth);
}

/** The end with this interface index, in another namespace if one is given; undefined if there is none. */
export function vethEnd(netlink: Netlink, index: number, targetNetNsId?: number): VethEnd | undefined {
  try {
    const found = netlink.get(asked(index, targetNetNsId), end);
    return isVeth(found) ? found : undefined;
  } catch (error) {
    if (error instanceof NetlinkError && UNKNOWN.includes(error.code)) return undefined;
    throw error;
  }
}

/** The end that a notification is about; undefined if it is about another device. */
export function vethEndIn({ view, start, end: stop }: Message): VethEnd | undefined {
  const found = end.get(view, start, stop);
  return isVeth(found) ? found : undefined;
}

function asked(index: number, targetNetNsId: number | undefined): Request {
  return request(RTM_GETLINK, 0, `link ${index}`, end, { index, extMask: SKIP_STATS, targetNetNsId });
}

function isVeth(found: VethEnd): boolean {
  return found.info?.kind === KIND;
}

/**
 * Links: network devices of all kinds (rtnetlink(7), <linux/if_link.h>, <linux/if_tunnel.h>,
 * <linux/if_tun.h>, <linux/veth.h>).
 */
import {
  attributes,
  be16,
  be32,
  bytes,
  type Codec,
  flag,
  message,
  putAttribute,
  s32,
  struct,
  text,
  u8,
  u16,
  u32,
  u64,
  type ValueOf,
} from './codec.ts';

// <linux/rtnetlink.h>
export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTNLGRP_LINK = 1;

// <linux/if_arp.h>
export const ARPHRD_ETHER = 1;

// <linux/if.h>
export const IFF_UP = 0x1;
export const IFF_LOOPBACK = 0x8;
/** The interface index of the loopback device, which each network namespace begins with (LOOPBACK_IFINDEX in <net/flow.h>). */
export const LOOPBACK = 1;
export const IFF_NOARP = 0x80;

// <linux/if_link.h>
export const IN6_ADDR_GEN_MODE_NONE = 1;
export const VXLAN_DF_SET = 1;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const AF_INET6 = 10;

// <linux/if_tunnel.h>; the flags are in network order.
export const GRE_CSUM = 0x8000;
export const GRE_KEY = 0x2000;
export const TUNNEL_ENCAP_FOU = 1;

const gre = attributes({
  iflags: [2, be16],
  oflags: [3, be16],
  ikey: [4, be32],
  okey: [5, be32],
  local: [6, bytes],
  /**
   * The other end. Without it, or with 0.0.0.0, the device is multipoint: the neighbour entry says where a
   * packet goes.
   */
  remote: [7, bytes],
  ttl: [8, u8],
  /** 1: copied from the inner packet. */
  tos: [9, u8],
  pmtudisc: [10, u8],
  encapType: [14, u16],
  encapFlags: [15, u16],
  encapSport: [16, be16],
  encapDport: [17, be16],
  collectMetadata: [18, flag],
  ignoreDf: [19, u8],
});

const vxlan = attributes({
  id: [1, u32],
  link: [3, u32],
  local: [4, bytes],
  ttl: [5, u8],
  tos: [6, u8],
  learning: [7, u8],
  port: [15, be16],
  udpCsum: [18, u8],
  collectMetadata: [25, u8],
  ttlInherit: [28, flag],
  df: [29, u8],
});

/** Only the kernel sends these: TUN devices are made by ioctl(2). */
const tun = attributes({
  type: [3, u8],
  pi: [4, u8],
  vnetHdr: [5, u8],
  persist: [6, u8],
  multiQueue: [7, u8],
  numQueues: [8, u32],
});

const ifinfomsg = struct(16, {
  family: [0, u8],
  type: [2, u16],
  index: [4, s32],
  flags: [8, u32],
  change: [12, u32],
});

/** struct rtnl_link_stats64, its beginning. */
const stats64 = struct(64, {
  rxPackets: [0, u64],
  txPackets: [8, u64],
  rxBytes: [16, u64],
  txBytes: [24, u64],
  rxErrors: [32, u64],
  txErrors: [40, u64],
  rxDropped: [48, u64],
  txDropped: [56, u64],
});

export type LinkInfo =
  | { kind: 'gre'; data?: ValueOf<typeof gre> }
  | { kind: 'vxlan'; data?: ValueOf<typeof vxlan> }
  | { kind: 'tun'; data?: ValueOf<typeof tun> }
  | { kind: 'veth'; data?: { peer?: Link | undefined } }
  | { kind: string; data?: undefined };

const peer: Codec<Link> = { put: (writer, value) => link.put(writer, value), get: (...at) => link.get(...at) };
// biome-ignore lint/suspicious/noExplicitAny: each kind has data of its own type.
const KINDS: Record<string, Codec<any>> = { gre, vxlan, tun, veth: attributes({ peer: [1, peer] }) };

/** IFLA_LINKINFO: what is in the data depends on the kind. */
const linkInfo: Codec<LinkInfo> = {
  put: (writer, { kind, data }) => {
    putAttribute(writer, IFLA_INFO_KIND, text, kind);
    const codec = KINDS[kind];
    if (codec && data) putAttribute(writer, IFLA_INFO_DATA, codec, data);
  },
  get: (...at) => {
    const { kind = '', data } = linkInfoParts.get(...at);
    const codec = KINDS[kind];
    if (!codec || !data) return { kind };
    return { kind, data: codec.get(new DataView(data.buffer, data.byteOffset, data.length), 0, data.length) };
  },
};
const linkInfoParts = attributes({ kind: [IFLA_INFO_KIND, text], data: [IFLA_INFO_DATA, bytes] });

/** struct ifinfomsg and its attributes. */
export const link: Codec<ReceivedLink, Link> = message(ifinfomsg, {
  address: [1, bytes],
  name: [3, text],
  mtu: [4, u32],
  link: [5, u32],
  master: [10, u32],
  txQueueLength: [13, u32],
  info: [18, linkInfo],
  /** Network namespaces for a new device: that of a process, or of an open descriptor. */
  netNsPid: [19, u32],
  alias: [20, text],
  stats: [23, stats64],
  afSpec: [26, attributes({ inet6: [AF_INET6, attributes({ addrGenMode: [8, u8] })] })],
  /** A number that many links may share: one message deletes all of a group. */
  group: [27, u32],
  netNsFd: [28, u32],
  /** Of `link`: the namespace that it is in, by a number that the asker's namespace has for it. */
  linkNetNsId: [37, s32],
  /** Of a request: in which namespace the link is. */
  targetNetNsId: [46, s32],
  numTxQueues: [31, u32],
  numRxQueues: [32, u32],
  gsoMaxSegs: [40, u32],
  gsoMaxSize: [41, u32],
});

export interface Link extends Partial<ValueOf<typeof ifinfomsg>> {
  address?: Uint8Array | undefined;
  name?: string | undefined;
  mtu?: number | undefined;
  link?: number | undefined;
  master?: number | undefined;
  txQueueLength?: number | undefined;
  info?: LinkInfo | undefined;
  netNsPid?: number | undefined;
  alias?: string | undefined;
  stats?: ValueOf<typeof stats64> | undefined;
  afSpec?: { inet6?: { addrGenMode?: number | undefined } | undefined } | undefined;
  group?: number | undefined;
  netNsFd?: number | undefined;
  linkNetNsId?: number | undefined;
  targetNetNsId?: number | undefined;
  numTxQueues?: number | undefined;
  numRxQueues?: number | undefined;
  gsoMaxSegs?: number | undefined;
  gsoMaxSize?: number | undefined;
}

/** As the kernel sends it: the fields of the structure are there. */
export type ReceivedLink = Link & ValueOf<typeof ifinfomsg>;

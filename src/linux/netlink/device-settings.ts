/**
 * What the kernel has below net.ipv4.conf and net.ipv6.conf for one link, in the message about the link
 * (IFLA_AF_SPEC): one question tells all of it.
 */
import { attributes, bytes, type Codec, message, putAttribute, s32, struct, text, u8, u32 } from './codec.ts';
import { IFF_UP } from './link.ts';
import { NetlinkError, type Request, request } from './message.ts';
import type { Netlink } from './netlink.ts';
import { AF_INET } from './rtnetlink.ts';

const RTM_NEWLINK = 16;
const RTM_GETLINK = 18;
const AF_INET6 = 10;
/** RTEXT_FILTER_SKIP_STATS of <linux/rtnetlink.h>: leaves out counters. */
const SKIP_STATS = 1 << 3;

/** Numbers of the IPv4 settings (IPV4_DEVCONF_* of <linux/ip.h>), which begin with 1. */
const IPV4 = {
  forwarding: 1,
  accept_redirects: 4,
  send_redirects: 6,
  rp_filter: 8,
  route_localnet: 26,
} as const;
/** The same of IPv6 (DEVCONF_* of <linux/ipv6.h>), which begin with 0. */
const IPV6 = {
  accept_ra: 3,
  accept_redirects: 4,
  disable_ipv6: 26,
} as const;

export type Ipv4Setting = keyof typeof IPV4;
export type Ipv6Setting = keyof typeof IPV6;

/** All are in the answer as an array (IFLA_INET_CONF, IFLA_INET6_CONF); to set some, each is an attribute. */
function settings<N extends string>(numbers: Readonly<Record<N, number>>, first: number): Codec<Record<N, number>> {
  const names = Object.keys(numbers) as N[];
  return {
    put: (writer, values) => {
      for (const name of names) if (values[name] !== undefined) putAttribute(writer, numbers[name], s32, values[name]);
    },
    get: (view, start, end) => {
      const found = {} as Record<N, number>;
      for (const name of names) found[name] = s32.get(view, start + (numbers[name] - first) * s32.size, end);
      return found;
    },
  };
}

const deviceSettings = message(struct(16, { family: [0, u32], index: [4, s32], flags: [8, u32], change: [12, u32] }), {
  name: [3, text],
  info: [18, attributes({ kind: [1, text] })],
  alias: [20, text],
  group: [27, u32],
  extMask: [29, u32],
  afSpec: [
    26,
    attributes({
      inet: [AF_INET, attributes({ conf: [1, settings(IPV4, 1)] })],
      inet6: [AF_INET6, attributes({ conf: [2, settings(IPV6, 0)], addrGenMode: [8, u8] })],
    }),
  ],
  address: [1, bytes],
});

/** A device and its settings; those of a protocol that it does not have are missing. */
export interface DeviceSettings {
  index: number;
  name: string;
  /** Such as veth or bridge; undefined of a network card. */
  kind: string | undefined;
  alias: string | undefined;
  /** A number that many links may share. */
  group: number;
  isUp: boolean;
  ipv4: Readonly<Record<Ipv4Setting, number>> | undefined;
  ipv6: Readonly<Record<Ipv6Setting, number>> | undefined;
}

/** Undefined if there is no such device. */
export function settingsOfDevice(netlink: Netlink, index: number): DeviceSettings | undefined {
  const asked = request(RTM_GETLINK, 0, `link ${index}`, deviceSettings, { index, extMask: SKIP_STATS });
  try {
    const { name = '', flags, info, alias, group = 0, afSpec } = netlink.get(asked, deviceSettings);
    const isUp = (flags & IFF_UP) !== 0;
    return { index, name, kind: info?.kind, alias, group, isUp, ipv4: afSpec?.inet?.conf, ipv6: afSpec?.inet6?.conf };
  } catch (error) {
    if (error instanceof NetlinkError && ['ENODEV', 'EINVAL'].includes(error.code)) return undefined;
    throw error;
  }
}

/** What is to be changed of a device. */
export interface DeviceChange {
  isUp?: true;
  alias?: string;
  ipv4?: Readonly<Partial<Record<Ipv4Setting, number>>>;
  /** How the device gets its IPv6 address of the link (IN6_ADDR_GEN_MODE_*); only where the kernel has IPv6. */
  addrGenMode?: number;
}

/**
 * All of it in one message. Unlike /proc/sys this works where that is read-only; settings of IPv6 are to be
 * written there.
 */
export function changeDevice(index: number, { isUp, alias, ipv4, addrGenMode }: DeviceChange): Request {
  const body = {
    index,
    ...(isUp && { flags: IFF_UP, change: IFF_UP }),
    alias,
    ...((ipv4 ?? addrGenMode) !== undefined && {
      afSpec: {
        ...(ipv4 && { inet: { conf: ipv4 as Record<Ipv4Setting, number> } }),
        ...(addrGenMode !== undefined && { inet6: { addrGenMode } }),
      },
    }),
  };
  return request(RTM_NEWLINK, 0, `settings of link ${index}`, deviceSettings, body);
}

/** Changes settings of IPv4. False if there is no such device. */
export function changeDeviceSettings(
  netlink: Netlink,
  index: number,
  ipv4: Readonly<Partial<Record<Ipv4Setting, number>>>,
): boolean {
  const [error] = netlink.tryAll([changeDevice(index, { ipv4 })]);
  if (error && error.code !== 'ENODEV') throw error;
  return !error;
}

/** What says of a device how packets come to it and leave it: programs, disciplines, and the devices that it is made of (<linux/if_link.h>). */
import { attributes, message, s32, struct, text, u8, u32, type ValueOf } from './codec.ts';
import { RTM_GETLINK } from './link.ts';
import { NetlinkError, request } from './message.ts';
import type { Netlink } from './netlink.ts';

/** RTEXT_FILTER_SKIP_STATS of <linux/rtnetlink.h>: leaves out counters. */
const SKIP_STATS = 1 << 3;
/** Kinds of devices that lie on one other device. */
const ON_ANOTHER: readonly (string | undefined)[] = ['vlan', 'macvlan', 'macvtap', 'ipvlan', 'ipvtap', 'macsec'];
/** Kinds of devices that have other devices as their ports. */
const OF_PORTS: readonly (string | undefined)[] = ['bond', 'team', 'bridge'];
/** How many devices are looked at for one, at most. */
const MOST = 64;

const device = message(struct(16, { family: [0, u8], index: [4, s32], flags: [8, u32] }), {
  name: [3, text],
  lower: [5, u32],
  /** The kind of the discipline for outgoing packets. */
  discipline: [6, text],
  master: [10, u32],
  info: [18, attributes({ kind: [1, text] })],
  extMask: [29, u32],
  xdp: [43, attributes({ attached: [2, u8] })],
});

export type NetworkDevice = ValueOf<typeof device>;

/** The device with this interface index and those that it is made of, down to the network cards. */
export function devicesBelow(netlink: Netlink, index: number): NetworkDevice[] {
  const found = new Map<number, NetworkDevice>();
  const waiting = [index];
  for (let next = waiting.shift(); next !== undefined && found.size < MOST; next = waiting.shift()) {
    const each = found.has(next) ? undefined : deviceOf(netlink, next);
    if (!each) continue;
    found.set(next, each);
    if (ON_ANOTHER.includes(each.info?.kind) && each.lower) waiting.push(each.lower);
    if (OF_PORTS.includes(each.info?.kind)) waiting.push(...portsOf(netlink, next).slice(0, MOST));
  }
  return [...found.values()];
}

/** Whether a device has an XDP program. */
export function hasXdp({ xdp }: NetworkDevice): boolean {
  return (xdp?.attached ?? 0) !== 0;
}

export function deviceOf(netlink: Netlink, index: number): NetworkDevice | undefined {
  try {
    return netlink.get(request(RTM_GETLINK, 0, `link ${index}`, device, { index, extMask: SKIP_STATS }), device);
  } catch (error) {
    if (error instanceof NetlinkError && error.code === 'ENODEV') return undefined;
    throw error;
  }
}

function portsOf(netlink: Netlink, master: number): number[] {
  const asked = request(RTM_GETLINK, 0, `ports of link ${master}`, device, { master, extMask: SKIP_STATS });
  return netlink.dump(asked, device).flatMap((each) => (each.master === master ? [each.index] : []));
}

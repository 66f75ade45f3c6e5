/** The kernel's device for the overlay: multipoint GRE, or VXLAN, whose neighbours say where each packet goes. */

import type { Config } from '../../config/config.ts';
import { GRE_UDP_PORT } from '../../core/abi.ts';
import { addressBytes, ipv4Bytes, ipv4Number } from '../../linux/netlink/ipv4.ts';
import { GRE_CSUM, GRE_KEY, type LinkInfo, TUNNEL_ENCAP_FOU, VXLAN_DF_SET } from '../../linux/netlink/link.ts';
import { VXLAN_PORT } from '../../linux/protocols.ts';
import {
  type NetworkPlan,
  overlayThings,
  quietGreThings,
  settingsOf,
  type Thing,
  unusedSliceThings,
} from '../../machine/state.ts';
import type { Address } from '../../mesh/address.ts';

/** Without a key. */
const DEFAULT_VNI = 1;
/** Outer IPv4, UDP, VXLAN and inner Ethernet headers. */
export const VXLAN_OVERHEAD = 20 + 8 + 8 + 14;
/** The outer type of service that means: as the inner packet's (ip-link(8)). */
const TOS_INHERIT = 1;

/** Seconds; see NEIGHBOUR_PARAMETERS. */
const WEEK = 604_800;
/** Bytes that wait for one answer, as the kernel counts them, some 2 KiB for a small packet: bursts of first packets that come at once. Nobody is charged for them. */
const QUEUE = 512 << 10;

/**
 * The daemon is asked, three times a second apart, and nobody on the network is. A neighbour in use is not doubted for a week: as long the kernel forwards
 * without a daemon. All that time it is in the state DELAY, in which the kernel notes each use (neigh_event_send in <net/neighbour.h>), so that idle ones are
 * known by their age.
 */
const NEIGHBOUR_PARAMETERS = {
  app_solicit: 3,
  mcast_solicit: 0,
  ucast_solicit: 0,
  delay_first_probe_time: WEEK,
  unres_qlen_bytes: QUEUE,
};

export function vniOf(config: Config): number {
  return config.key ?? DEFAULT_VNI;
}

/** All from nothing to a device that asks; `filters` are there before it is up, so that no packet comes unchecked. */
export function kernelThings(config: Config, plan: NetworkPlan, filters: readonly Thing[]): Thing[] {
  const { encapsulation } = config;
  const { device, local, mappings } = plan;
  const address = encapsulation === 'vxlan' ? { address: macOf(Number(local.bits)) } : {};
  return [
    ...(encapsulation === 'gre-udp' ? [{ kind: 'fou', port: GRE_UDP_PORT } as const] : []),
    { kind: 'link', device, info: linkInfo(config, local), ...address },
    // Where it is up, it would take what our device does not, and nothing checks it there.
    ...(encapsulation === 'vxlan' ? [] : quietGreThings()),
    ...filters,
    { ...settingsOf(plan), arp: true },
    { kind: 'neighbour-parameters', device, parameters: NEIGHBOUR_PARAMETERS },
    ...overlayThings(plan),
    ...mappings.flatMap(unusedSliceThings),
  ];
}

function linkInfo(config: Config, local: Address): LinkInfo {
  const { encapsulation, ttl, dscp, pathMtuDiscovery } = config;
  const tos = dscp === 'uniform' ? TOS_INHERIT : dscp << 2;
  if (encapsulation === 'vxlan') {
    return {
      kind: 'vxlan',
      data: {
        id: vniOf(config),
        local: addressBytes(local),
        ...(ttl === 'inherit' ? { ttlInherit: true } : { ttl }),
        tos,
        learning: 0,
        port: VXLAN_PORT,
        df: pathMtuDiscovery ? VXLAN_DF_SET : 0,
      },
    };
  }
  const flags = (config.key === undefined ? 0 : GRE_KEY) | (config.greChecksum ? GRE_CSUM : 0);
  return {
    kind: 'gre',
    data: {
      iflags: flags,
      oflags: flags,
      ...(config.key === undefined ? {} : { ikey: config.key, okey: config.key }),
      local: addressBytes(local),
      ttl: ttl === 'inherit' ? 0 : ttl,
      tos,
      pmtudisc: pathMtuDiscovery ? 1 : 0,
      ignoreDf: pathMtuDiscovery ? 0 : 1,
      // Said in any case, so that a device that was made otherwise is not taken for the same.
      encapType: encapsulation === 'gre-udp' ? TUNNEL_ENCAP_FOU : 0,
      encapDport: encapsulation === 'gre-udp' ? GRE_UDP_PORT : 0,
    },
  };
}

/** Locally administered, unicast (IEEE 802 §8.4). */
const MAC_FIRST = 0x02;

/** The VM in such an address; undefined if it is not one. */
export function vmOfMac(mac: Uint8Array | undefined): number | undefined {
  return mac?.[0] === MAC_FIRST && mac[1] === 0 ? ipv4Number(mac.subarray(2)) : undefined;
}

/** The MAC address of a VM's VXLAN device: locally administered, the VM's underlay address in its bits. */
export function macOf(vm: number): Uint8Array {
  return Uint8Array.of(MAC_FIRST, 0, ...ipv4Bytes(vm));
}

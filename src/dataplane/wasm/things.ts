/** All that the wasm data plane makes on the machine, its TUN device included. */
import type { Config } from '../../config/config.ts';
import {
  conf,
  FALLBACK_GRE,
  type LinkThing,
  type NetworkPlan,
  overlayThings,
  quietGreThings,
  settingsOf,
  type Thing,
} from '../../machine/state.ts';

/**
 * What the kernel allows of a super-packet (GSO_MAX_SEGS and GSO_LEGACY_MAX_SIZE, <linux/netdevice.h>). One that is larger than its
 * device allows, the kernel cuts before it: with segments of one byte, one packet of a container's becomes 65,000. The core drops
 * such, so all come to it whole.
 */
const SUPER_PACKETS = { gsoMaxSegs: 65535, gsoMaxSize: 65536 };

/** `reinjects` as in the engine. */
export function wasmThings(config: Config, plan: NetworkPlan, reinjects: boolean): Thing[] {
  const { device } = plan;
  return [
    tunThing(config, device),
    { ...settingsOf(plan), ...SUPER_PACKETS },
    // ICMP messages about packets of this VM itself come from its own overlay address, out of the device. Where this is not allowed, its own connections are all that miss them.
    { ...conf(device, 'accept_local', '1'), optional: true },
    // The kernel forwards packets that come from our device with this VM's own underlay address as their source.
    ...(reinjects ? [{ ...conf(device, 'rp_filter', '0'), optional: true } as const] : []),
    ...overlayThings(plan),
    { kind: 'neighbour', device },
    ...quietFallbackGre(),
  ];
}

function tunThing({ engine, queues }: Config, device: string): LinkThing {
  const data = { vnetHdr: engine === 'linux' ? 1 : 0, multiQueue: queues > 1 ? 1 : 0 };
  return { kind: 'link', device, info: { kind: 'tun', data } };
}

/**
 * Where the module ip_gre is loaded, the kernel handles protocol 47 beside our socket: with gre0 down it answers every packet with an ICMP error, with gre0 up
 * it delivers each packet a second time. So gre0 goes up, and reverse path filtering drops what it decapsulates. Up, it would also take IPv6 out of anyone's
 * GRE packets.
 */
function quietFallbackGre(): Thing[] {
  const ipv6 = `net/ipv6/conf/${FALLBACK_GRE}/disable_ipv6`;
  return [
    ...quietGreThings(),
    { kind: 'link-up', device: FALLBACK_GRE, others: true },
    { kind: 'sysctl', name: ipv6, value: '1', device: FALLBACK_GRE, others: true },
  ];
}

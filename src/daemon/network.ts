/** What this VM's overlay network is to look like, from the configuration and the machine. */
import type { Config } from '../config/config.ts';
import type { Mesh } from '../containers/mesh.ts';
import { vniOf } from '../dataplane/kernel/device.ts';
import { InlayError } from '../errors.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import type { BarrierSettings } from '../machine/barrier/barrier.ts';
import type { NetworkPlan } from '../machine/state.ts';
import { findUnderlay, type Underlay } from '../machine/underlay.ts';
import type { Address } from '../mesh/address.ts';
import { mappingsWith } from '../mesh/mapping.ts';

/** Largest MTU of a TUN device, and of IPv4. */
const MAX_MTU = 65535;
/** Every IPv4 host takes 68 bytes (RFC 791 §3.2): an underlay that leaves less is none. */
const MIN_MTU = 68;

/**
 * `overhead` is the bytes of all headers around a packet, `before` this VM's last underlay address. Throws
 * ERR_CONFIG if this machine cannot be a VM of the mesh.
 */
export function planNetwork(
  config: Config,
  overhead: number,
  netlink: Netlink,
  before?: Address,
): { plan: NetworkPlan; underlay: Underlay } {
  const { device, runDir, mappings } = config;
  const underlay = findUnderlay(netlink, mappings, config.local, before);
  const { local } = underlay;
  checkUnderlayMtu(config, underlay.mtu);
  for (const mapping of mappingsWith(mappings, local)) mapping.checkVm(local);
  return { plan: { device, runDir, local, mappings, mtu: overlayMtu(config, overhead, underlay.mtu) }, underlay };
}

/** What attaching containers has to know of it. */
export function meshOf({ addressCoolDown }: Config, { mappings, local, mtu }: NetworkPlan): Mesh {
  return { mappings, local, mtu, coolDown: Math.ceil(addressCoolDown / 1000) };
}

const ROOT = 0;

/** What the barrier has to know of the configuration. */
export function barrierSettings(config: Config): BarrierSettings {
  const { containerAccess = [], dataplane, encapsulation } = config;
  // What the kernel sends in UDP has the owner of the socket that the inner packet came from.
  const isKernelUdp = dataplane === 'kernel' && encapsulation !== 'gre';
  return {
    access: containerAccess,
    ...(encapsulation === 'vxlan' && { vni: vniOf(config) }),
    ...(!isKernelUdp && { users: [...new Set([ROOT, process.geteuid?.() ?? ROOT])] }),
  };
}

/** Throws ERR_CONFIG if underlay-mtu is more than `found`, the bytes that the underlay takes. */
export function checkUnderlayMtu({ underlayMtu = 0 }: Config, found: number): void {
  if (underlayMtu <= found) return;
  throw new InlayError(
    'ERR_CONFIG',
    `underlay-mtu ${underlayMtu} is more than this machine sends: the device and the route to other VMs take ${found} bytes`,
    { hint: `set underlay-mtu to ${found} at most, or leave it out: Inlay follows the device and the route by itself` },
  );
}

/** The overlay's MTU over an underlay with this one. Throws ERR_FAILED if there is no room. */
export function overlayMtu({ underlayMtu }: Config, overhead: number, found: number): number {
  const mtu = Math.min(found, underlayMtu ?? MAX_MTU, MAX_MTU) - overhead;
  if (mtu < MIN_MTU) throw new InlayError('ERR_FAILED', `underlay MTU ${found} leaves no room for packets`);
  return mtu;
}

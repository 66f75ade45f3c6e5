/** What this VM's overlay network is to look like, from the configuration and the machine. */
import type { Config } from '../config/config.ts';
import { overhead } from '../core/core.ts';
import { kernelSteps, VXLAN_OVERHEAD } from '../dataplane/kernel/device.ts';
import { wasmSteps } from '../dataplane/wasm/steps.ts';
import { InlayError } from '../errors.ts';
import type { NetworkPlan, Step } from '../machine/steps.ts';
import { findUnderlay } from '../machine/underlay.ts';
import { mappingsWith } from '../mesh/mapping.ts';

/** Largest MTU of a TUN device, and of IPv4. */
const MAX_MTU = 65535;
/** Every IPv4 host takes 68 bytes (RFC 791 §3.2): an underlay that leaves less is none. */
const MIN_MTU = 68;

/** Throws ERR_CONFIG if this machine cannot be a VM of the mesh. */
export function planNetwork(config: Config): NetworkPlan {
  const { device, mappings } = config;
  const { local, mtu: underlayMtu } = findUnderlay(mappings, config.local);
  for (const mapping of mappingsWith(mappings, local)) mapping.checkVm(local);
  const mtu = Math.min(underlayMtu, config.underlayMtu ?? MAX_MTU, MAX_MTU) - overheadOf(config);
  if (mtu < MIN_MTU) throw new InlayError('ERR_FAILED', `underlay MTU ${underlayMtu} leaves no room for packets`);
  return { device, local, mappings, mtu };
}

/** Bytes of all headers around a packet. */
export function overheadOf(config: Config): number {
  return config.encapsulation === 'vxlan' ? VXLAN_OVERHEAD : overhead(config.encapsulation, config);
}

/** All that is done to the machine, the device included. */
export function stepsOf(config: Config, plan: NetworkPlan): Step[] {
  if (config.dataplane === 'wasm') return wasmSteps(config, plan);
  const { make, setUp } = kernelSteps(config, plan);
  return [...make, ...setUp];
}

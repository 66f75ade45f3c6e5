/** All that the wasm data plane does to the machine, its TUN device included. */
import type { Config } from '../../config/config.ts';
import type { Encapsulation } from '../../core/core.ts';
import { type NetworkPlan, type Step, tunSteps } from '../../machine/steps.ts';

export function wasmSteps(config: Config, plan: NetworkPlan): Step[] {
  const { device, engine, queues } = config;
  const data = { vnetHdr: engine === 'linux' ? 1 : 0, multiQueue: queues > 1 ? 1 : 0 };
  return [{ kind: 'link', device, info: { kind: 'tun', data } }, ...tunSteps(plan, encapsulationOf(config))];
}

/** The configuration has been checked: vxlan is the kernel's alone. */
export function encapsulationOf({ encapsulation }: Config): Encapsulation {
  return encapsulation === 'vxlan' ? 'gre' : encapsulation;
}

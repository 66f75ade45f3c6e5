/** `up --dry-run`: the commands that do the same as the daemon. */

import type { Config } from '../config/config.ts';
import { Entries } from '../dataplane/kernel/entries.ts';
import type { NetworkPlan } from '../machine/steps.ts';
import { command } from '../machine/words.ts';
import { type Address, formatAddress } from '../mesh/address.ts';
import { planNetwork, stepsOf } from './network.ts';

/** Lines for a shell. What no command can do is a comment. */
export function dryRun(config: Config): string[] {
  const plan = planNetwork(config);
  const commands = stepsOf(config, plan).map(command);
  return [...commands, ...(config.dataplane === 'kernel' ? kernelComments(config, plan) : WASM_COMMENTS)];
}

const WASM_COMMENTS = ['# From then on the daemon moves the packets between the device and the underlay.'];

function kernelComments(config: Config, plan: NetworkPlan): string[] {
  const { mappings, local, device } = plan;
  const isVxlan = config.encapsulation === 'vxlan';
  const vm = neighbourOf(local);
  const entries = new Entries({ mappings, local, device, ifindex: 0, isVxlan });
  return [
    `# From then on the daemon answers the kernel: for the VM ${formatAddress(vm)}, when the first packet is for it,`,
    ...entries.commands(Number(vm.bits)).map((line) => `#   ${line}`),
    `# eBPF programs at the ingress and egress of ${device}${isVxlan ? ', and at the ingress of the underlay,' : ''} check where packets come from.`,
  ];
}

/** Another VM, for the example. */
function neighbourOf(local: Address): Address {
  return { width: local.width, bits: local.bits ^ 1n };
}

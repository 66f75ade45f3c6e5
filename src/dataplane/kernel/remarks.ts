/** What the neighbour daemon does, for `--dry-run`: as commands, for one VM. */
import type { Config } from '../../config/config.ts';
import type { NetworkPlan } from '../../machine/state.ts';
import { type Address, formatAddress } from '../../mesh/address.ts';
import { Entries } from './entries.ts';

export function kernelRemarks(config: Config, { mappings, local, device }: NetworkPlan): string[] {
  const isVxlan = config.encapsulation === 'vxlan';
  const vm = neighbourOf(local);
  const entries = new Entries({ mappings, local, device, ifindex: 0, isVxlan, overhead: 0 });
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

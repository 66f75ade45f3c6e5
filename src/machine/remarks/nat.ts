/**
 * Rules that change the source of what Inlay carries. Other VMs drop an outer packet whose source is not the
 * VM's underlay address: its inner source does not live there. It is said only where a rule surely applies
 * and surely changes something.
 */
import { type BaseChain, type Fate, fates } from '../../linux/netfilter/fate.ts';
import type { Packet } from '../../linux/netfilter/packet.ts';
import { NF_INET_POST_ROUTING } from '../../linux/netlink/nf-tables.ts';
import { formatAddress, formatPrefix, ipv4 } from '../../mesh/address.ts';
import { accept, nameOf } from './commands.ts';
import { fromContainer, ownMapping, toVm } from './packets.ts';
import type { Remark, Vantage } from './remark.ts';

export function natRemarks(chain: BaseChain, vantage: Vantage): Remark[] {
  if (chain.hook !== NF_INET_POST_ROUTING) return [];
  return [...outerRemarks(chain, vantage), ...innerRemarks(chain, vantage)];
}

function outerRemarks(chain: BaseChain, vantage: Vantage): Remark[] {
  const { plan, outer, underlay } = vantage;
  const local = Number(plan.local.bits);
  const masquerade = underlay?.masquerade && Number(underlay.masquerade.bits);
  const sources = translated(chain, toVm(vantage)).map((fate) => (fate.kind === 'snat' ? fate.address : masquerade));
  const changed = sources.find((source) => source !== undefined && source !== local);
  if (changed === undefined || !sources.every((source) => source !== undefined && source !== local)) return [];
  const address = formatAddress(plan.local);
  const excepted = accept(chain, [{ source: address, protocol: outer.protocol, port: outer.port }]);
  return [
    {
      key: `nat outer ${nameOf(chain)}`,
      what: `NAT gives packets to other VMs the source ${formatAddress(ipv4(changed))} instead of ${address} on ${underlay?.device.name}: other VMs drop them (${nameOf(chain)})`,
      hint: `${excepted}; what is tracked already keeps the wrong source until it is forgotten: conntrack -D -s ${address} -p ${outer.port === undefined ? 'gre' : 'udp'}`,
    },
  ];
}

/** Nothing else than a VM's own packets has its source changed on the way into the overlay. */
function innerRemarks(chain: BaseChain, vantage: Vantage): Remark[] {
  const [fate] = translated(chain, fromContainer(vantage));
  const slice = ownMapping(vantage)?.sliceOf(vantage.plan.local);
  if (!fate || !slice) return [];
  return [
    {
      key: `nat inner ${nameOf(chain)}`,
      what: `NAT changes the source of containers' packets to other VMs, which should come from ${formatPrefix(slice)} (${nameOf(chain)})`,
      hint: accept(chain, [{ out: vantage.overlay.name }]),
    },
  ];
}

/** The fates of packets whose source is surely changed; none if it may stay. */
function translated(chain: BaseChain, packets: readonly Packet[]): Fate[] {
  const all = packets.flatMap((packet) => fates(chain, packet));
  return all.every(({ kind }) => kind === 'snat' || kind === 'masquerade') ? all : [];
}

/** The packets that matter to Inlay, as a rule set sees them. */
import { NO_DEVICE, only, type Packet } from '../../linux/netfilter/packet.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from '../../linux/protocols.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';
import type { Vantage } from './remark.ts';

/** The mapping that this VM is a VM of; of several, the first stands for all. */
export function ownMapping({ plan: { mappings, local } }: Vantage): Mapping | undefined {
  return mappingsWith(mappings, local)[0];
}

/** Rule sets let ICMP pass where they drop all else: these stand for what containers have to say. */
const PROTOCOLS = [IPPROTO_TCP, IPPROTO_UDP];

/** From a container of this VM to other VMs. None where this VM has no slice. */
export function fromContainer(vantage: Vantage, state: Packet['state'] = 'new'): Packet[] {
  const mapping = ownMapping(vantage);
  if (!mapping) return [];
  const { overlay, container, plan } = vantage;
  const addresses = { source: mapping.sliceOf(plan.local), destination: mapping.overlay };
  return PROTOCOLS.map((protocol) => ({ in: container, out: overlay, ...addresses, protocol, state }));
}

/** From other VMs to a container. */
export function toContainer(vantage: Vantage, state: Packet['state'] = 'new'): Packet[] {
  return fromContainer(vantage, state).map(reversed);
}

/** An outer packet from this VM to another. */
export function toVm(vantage: Vantage): Packet[] {
  const mapping = ownMapping(vantage);
  if (!mapping || !vantage.underlay) return [];
  const { protocol, port } = vantage.outer;
  return [
    {
      ...{ in: NO_DEVICE, out: vantage.underlay.device, protocol, port, state: 'new' },
      ...{ source: only(vantage.plan.local), destination: mapping.underlay },
    },
  ];
}

/** The same from another VM to this one, which has not sent to it yet. */
export function fromVm(vantage: Vantage): Packet[] {
  return toVm(vantage).map(reversed);
}

function reversed({ in: input, out, source, destination, ...rest }: Packet): Packet {
  return { ...rest, in: out, out: input, source: destination, destination: source };
}

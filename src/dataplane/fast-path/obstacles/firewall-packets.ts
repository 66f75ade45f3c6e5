/** The packets of the fast path as rule sets would see them on their ordinary way. */
import { type Device, type DevicesNamed, NO_DEVICE, only, type Packet } from '../../../linux/netfilter/packet.ts';
import {
  NF_INET_FORWARD,
  NF_INET_LOCAL_IN,
  NF_INET_LOCAL_OUT,
  NF_INET_POST_ROUTING,
  NF_INET_PRE_ROUTING,
} from '../../../linux/netlink/nf-tables.ts';
import type { OuterFormat } from '../../../machine/remarks/remark.ts';
import type { NetworkPlan } from '../../../machine/state.ts';
import type { Address, Prefix } from '../../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../../mesh/mapping.ts';

export interface PacketFacts {
  plan: NetworkPlan;
  uplink: Device;
  /** The overlay's device; undefined while there is none. */
  overlay: Device | undefined;
  /** What the names of all containers' devices begin with. */
  containers: Device | DevicesNamed;
  /** What outer packets look like: those that are sent, and all that are received. */
  sends: OuterFormat;
  receives: readonly OuterFormat[];
}

/** Packets that take the same way; their states are not told. */
export interface FirewallCase {
  /** In words. */
  what: string;
  packet: Omit<Packet, 'state'>;
  /** Where rule sets see them, such as NF_INET_FORWARD. */
  hooks: readonly number[];
}

const EVERYWHERE: Prefix = { width: 32, bits: 0n, length: 0 };
const ARRIVING = [NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN];
const LEAVING = [NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING];
const FORWARDED = [NF_INET_PRE_ROUTING, NF_INET_FORWARD, NF_INET_POST_ROUTING];

/** Packets between VMs. */
export function betweenVms({ plan: { mappings, local }, uplink, sends, receives }: PacketFacts): FirewallCase[] {
  return mappings.flatMap(({ underlay }): FirewallCase[] => [
    ...receives.map((format) => ({
      what: 'packets of other VMs',
      packet: { in: uplink, out: NO_DEVICE, source: underlay, destination: only(local), ...format },
      hooks: ARRIVING,
    })),
    {
      what: 'packets to other VMs',
      packet: { in: NO_DEVICE, out: uplink, source: only(local), destination: underlay, ...sends },
      hooks: LEAVING,
    },
  ]);
}

/** Packets between containers. */
export function betweenContainers({ plan: { mappings, local }, overlay, containers }: PacketFacts): FirewallCase[] {
  const own = slicesOf(mappings, local);
  const between = own.flatMap((slice) =>
    mappings.flatMap(({ overlay: all }): FirewallCase[] => [
      {
        what: 'packets of containers to other VMs',
        packet: { in: containers, out: overlay, source: slice, destination: all, isForOthers: true },
        hooks: FORWARDED,
      },
      {
        what: 'packets of other VMs to containers',
        packet: { in: overlay, out: containers, source: all, destination: slice, isForOthers: true },
        hooks: FORWARDED,
      },
    ]),
  );
  const inside = own.flatMap((from) =>
    own.map(
      (to): FirewallCase => ({
        what: 'packets between containers of this VM',
        packet: { in: containers, out: containers, source: from, destination: to, isForOthers: true },
        hooks: FORWARDED,
      }),
    ),
  );
  return [...between, ...inside];
}

/** What containers send to addresses outside the overlay or of this VM. Rules may give it another destination. */
export function toElsewhere({ plan: { mappings, local }, overlay, containers }: PacketFacts): FirewallCase[] {
  const hooks = [NF_INET_PRE_ROUTING];
  return [
    ...slicesOf(mappings, local).map((source) => ({
      what: 'packets of containers',
      packet: { in: containers, out: NO_DEVICE, source, destination: EVERYWHERE },
      hooks,
    })),
    ...mappings.map(({ overlay: source }) => ({
      what: 'packets of other VMs',
      packet: { in: overlay, out: NO_DEVICE, source, destination: EVERYWHERE },
      hooks,
    })),
  ];
}

function slicesOf(mappings: readonly Mapping[], local: Address): Prefix[] {
  return mappingsWith(mappings, local).map((mapping) => mapping.sliceOf(local));
}

/** A packet as it is at a hook: where it leaves is not known before it is routed, and where it came from not afterwards. */
export function at(hook: number, { packet }: FirewallCase, state: Packet['state']): Packet {
  if (hook === NF_INET_PRE_ROUTING) return { ...packet, state, out: NO_DEVICE };
  // Rules for changing addresses may have marked it meanwhile.
  return { ...packet, state, mark: undefined, ...(hook === NF_INET_POST_ROUTING && { in: undefined }) };
}

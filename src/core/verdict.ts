/** Names and meanings of the verdicts: what counters, metrics and documentation call them. */
import * as abi from './abi.ts';

export interface DropReason {
  readonly verdict: number;
  readonly name: string;
  readonly meaning: string;
  /** What the operator can do about it, where something can be said. */
  readonly hint?: string;
  /** Such packets are dropped all the time where nothing is wrong. */
  readonly isRoutine?: true;
}

const ROUTINE = { isRoutine: true } as const;
const SAME_PREFIXES = 'give all VMs the same --overlay and --underlay prefixes, in the same order';

export const DROP_REASONS: readonly DropReason[] = [
  reason(abi.DROP_BAD_DESCRIPTOR, 'bad-descriptor', 'the host described a packet outside the slots'),
  reason(abi.DROP_TRUNCATED, 'truncated', 'the packet ends before its headers or its stated length do'),
  reason(abi.DROP_NOT_IPV4, 'not-ipv4', 'the version is not 4', ROUTINE),
  reason(abi.DROP_BAD_HEADER_LENGTH, 'bad-header-length', 'the IPv4 header is shorter than 20 bytes'),
  reason(abi.DROP_BAD_TOTAL_LENGTH, 'bad-total-length', 'the total length is less than the header'),
  reason(abi.DROP_BAD_HEADER_CHECKSUM, 'bad-header-checksum', 'the IPv4 header checksum is wrong'),
  reason(abi.DROP_FOREIGN_SOURCE, 'foreign-source', "outbound: the source is not in this VM's slice", {
    hint: `the sender has an address that is not one of this VM's slice: inlay explain ADDRESS tells whose it is; or ${SAME_PREFIXES}`,
  }),
  reason(abi.DROP_NO_MAPPING, 'no-mapping', 'outbound: no mapping covers the destination'),
  reason(abi.DROP_OWN_SLICE, 'own-slice', "outbound: the destination is in this VM's own slice, so it would loop", {
    hint: 'no container of this VM has that address, or its route has gone: ip route get ADDRESS',
  }),
  reason(
    abi.DROP_RESERVED_ADDRESS,
    'reserved-address',
    "the destination can be nobody's: a slice itself, its all-ones address, or the last slice of all",
    { hint: 'inlay explain ADDRESS tells which addresses of a slice containers can have' },
  ),
  reason(abi.DROP_TOO_LONG, 'too-long', 'the packet would need more fragments or segments than one call has room for', {
    hint: 'the path to that VM takes very little: inlay tunnels shows its MTU',
  }),
  reason(abi.DROP_NOT_GRE, 'not-gre', 'inbound: the outer protocol is not 47', {
    hint: 'something else than Inlay sends to this VM',
  }),
  reason(abi.DROP_FRAGMENT, 'fragment', 'inbound: a fragment of an outer packet', {
    hint: 'a router fragments what VMs send: lower --underlay-mtu there, or leave --path-mtu-discovery on',
  }),
  reason(abi.DROP_NOT_FOR_US, 'not-for-us', "inbound: the outer destination is not this VM's underlay address", {
    hint: 'has the underlay address changed? Start the daemon again',
  }),
  reason(abi.DROP_FOREIGN_UNDERLAY, 'foreign-underlay', 'inbound: the outer source is no other VM of the underlay', {
    hint: `a tunnel of somebody else ends at this VM, or ${SAME_PREFIXES}`,
  }),
  reason(abi.DROP_GRE_VERSION, 'gre-version', 'inbound: the GRE version is not 0'),
  reason(abi.DROP_GRE_FLAGS, 'gre-flags', 'inbound: GRE flags that must be zero are set'),
  reason(abi.DROP_GRE_CHECKSUM, 'gre-checksum', 'inbound: the GRE checksum is wrong', {
    hint: 'the packet was damaged on its way, or a device on it changes packets without putting the GRE checksum right',
  }),
  reason(abi.DROP_GRE_PROTOCOL, 'gre-protocol', 'inbound: the GRE payload is not IPv4', {
    hint: 'another kind of GRE tunnel, such as one for Ethernet or IPv6, ends at this VM',
  }),
  reason(abi.DROP_GRE_KEY, 'gre-key', 'inbound: the GRE key is missing, unexpected or different', {
    hint: 'give all VMs the same --key',
  }),
  reason(abi.DROP_SPOOFED_SOURCE, 'spoofed-source', 'inbound: the inner source does not live on the sending VM', {
    hint: `the packets leave the sending VM with another address than its own: NAT there (MASQUERADE, SNAT), or a second address (--local); or ${SAME_PREFIXES}`,
  }),
  reason(
    abi.DROP_FOREIGN_DESTINATION,
    'foreign-destination',
    "inbound: the inner destination is not in this VM's slice",
    { hint: `the sending VM takes this one for another: ${SAME_PREFIXES}, and --local where a VM has two addresses` },
  ),
  reason(abi.DROP_NOT_WRITTEN, 'not-written', 'the device or socket did not take the packet: full, too big or refused'),
  reason(abi.DROP_BAD_OFFLOAD, 'bad-offload', 'outbound: the virtio header does not fit the packet'),
  reason(
    abi.DROP_TOO_BIG,
    'too-big',
    "outbound: the packet is larger than the tunnel's MTU and may not be fragmented",
    { ...ROUTINE, hint: 'the sender is told what fits; if this goes on, it does not hear ICMP: lower its MTU' },
  ),
  reason(abi.DROP_NESTED_GRE, 'nested-gre', 'the inner packet is GRE itself'),
  reason(abi.DROP_GRE_SEQUENCE, 'gre-sequence', 'inbound: the GRE sequence number is missing or out of order', {
    hint: 'give all VMs --gre-sequence or none; a network that reorders packets loses some with it',
  }),
  reason(abi.DROP_ECN, 'ecn', 'inbound: congestion was experienced by a packet that cannot tell (RFC 6040)', ROUTINE),
  reason(abi.DROP_ICMP_CHECKSUM, 'icmp-checksum', 'the ICMP checksum is wrong'),
  reason(
    abi.DROP_FOREIGN_ICMP,
    'foreign-icmp',
    'the ICMP message is not about a packet of ours, or says nothing that is listened to',
    ROUTINE,
  ),
  reason(
    abi.DROP_MERGED,
    'merged',
    'inbound: the kernel merged packets of another VM (GRO), and does not say how long each was',
    { hint: 'give the daemon CAP_BPF, or ethtool -K DEVICE rx-udp-gro-forwarding off rx-gro-list off' },
  ),
  reason(
    abi.DROP_TINY_SEGMENTS,
    'tiny-segments',
    'outbound: a super-packet is to be cut into smaller segments than any stack sends',
    {
      hint: 'a container makes work for this VM on purpose; or its device merges small packets: ethtool -K DEVICE gro off',
    },
  ),
  reason(
    abi.DROP_TOO_MANY_TUNNELS,
    'too-many-tunnels',
    'outbound: its sender opens tunnels to VMs never heard from faster than one may',
    { hint: 'a container looks for others at addresses where none answers' },
  ),
  reason(abi.DROP_OVER_SHARE, 'over-share', 'its sender sends more than its share while the VM is busy', {
    hint: 'one container sends more than this VM can forward: what the others send gets through',
  }),
  reason(
    abi.DROP_DIVERTED,
    'diverted',
    'outbound, kernel data plane: the packet was about to go to another VM than the one of its destination',
    {
      hint: 'a route, a neighbour or an ICMP redirect leads astray: ip route get ADDRESS, ip neighbour show dev DEVICE',
    },
  ),
];

function reason(
  verdict: number,
  name: string,
  meaning: string,
  more: Pick<DropReason, 'hint' | 'isRoutine'> = {},
): DropReason {
  return { verdict, name, meaning, ...more };
}

/** What is known about a drop reason. */
export function dropReason(verdict: number): DropReason {
  return DROP_REASONS[-verdict - 1] ?? reason(verdict, `unknown (${verdict})`, 'not known to this version');
}

/** The name of a verdict: `forward`, or that of the drop reason. */
export function verdictName(verdict: number): string {
  return verdict === abi.FORWARD ? 'forward' : dropReason(verdict).name;
}

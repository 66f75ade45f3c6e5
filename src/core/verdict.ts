/** Names and meanings of the verdicts: what counters, metrics and documentation call them. */
import * as abi from './abi.ts';

export interface DropReason {
  readonly verdict: number;
  readonly name: string;
  readonly meaning: string;
}

/** The drop reasons in order: that with verdict -1 first. */
export const DROP_REASONS: readonly DropReason[] = [
  reason(abi.DROP_BAD_DESCRIPTOR, 'bad-descriptor', 'the host described a packet outside the slots'),
  reason(abi.DROP_TRUNCATED, 'truncated', 'the packet ends before its headers or its stated length do'),
  reason(abi.DROP_NOT_IPV4, 'not-ipv4', 'the version is not 4'),
  reason(abi.DROP_BAD_HEADER_LENGTH, 'bad-header-length', 'the IPv4 header is shorter than 20 bytes'),
  reason(abi.DROP_BAD_TOTAL_LENGTH, 'bad-total-length', 'the total length is less than the header'),
  reason(abi.DROP_BAD_HEADER_CHECKSUM, 'bad-header-checksum', 'the IPv4 header checksum is wrong'),
  reason(abi.DROP_FOREIGN_SOURCE, 'foreign-source', "outbound: the source is not in this VM's slice"),
  reason(abi.DROP_NO_MAPPING, 'no-mapping', 'outbound: no mapping covers the destination'),
  reason(abi.DROP_OWN_SLICE, 'own-slice', "outbound: the destination is in this VM's own slice, so it would loop"),
  reason(
    abi.DROP_RESERVED_ADDRESS,
    'reserved-address',
    "the destination can be nobody's: a slice itself, its all-ones address, or the last slice of all",
  ),
  reason(abi.DROP_TOO_LONG, 'too-long', 'the packet would need more fragments or segments than one call has room for'),
  reason(abi.DROP_NOT_GRE, 'not-gre', 'inbound: the outer protocol is not 47'),
  reason(abi.DROP_FRAGMENT, 'fragment', 'inbound: a fragment of an outer packet'),
  reason(abi.DROP_NOT_FOR_US, 'not-for-us', "inbound: the outer destination is not this VM's underlay address"),
  reason(abi.DROP_FOREIGN_UNDERLAY, 'foreign-underlay', 'inbound: the outer source is no other VM of the underlay'),
  reason(abi.DROP_GRE_VERSION, 'gre-version', 'inbound: the GRE version is not 0'),
  reason(abi.DROP_GRE_FLAGS, 'gre-flags', 'inbound: GRE flags that must be zero are set'),
  reason(abi.DROP_GRE_CHECKSUM, 'gre-checksum', 'inbound: the GRE checksum is wrong'),
  reason(abi.DROP_GRE_PROTOCOL, 'gre-protocol', 'inbound: the GRE payload is not IPv4'),
  reason(abi.DROP_GRE_KEY, 'gre-key', 'inbound: the GRE key is missing, unexpected or different'),
  reason(abi.DROP_SPOOFED_SOURCE, 'spoofed-source', 'inbound: the inner source does not live on the sending VM'),
  reason(
    abi.DROP_FOREIGN_DESTINATION,
    'foreign-destination',
    "inbound: the inner destination is not in this VM's slice",
  ),
  reason(abi.DROP_NOT_WRITTEN, 'not-written', 'the device or socket did not take the packet: full, too big or refused'),
  reason(abi.DROP_BAD_OFFLOAD, 'bad-offload', 'outbound: the virtio header does not fit the packet'),
  reason(abi.DROP_TOO_BIG, 'too-big', "outbound: the packet is larger than the tunnel's MTU and may not be fragmented"),
  reason(abi.DROP_NESTED_GRE, 'nested-gre', 'the inner packet is GRE itself'),
  reason(abi.DROP_GRE_SEQUENCE, 'gre-sequence', 'inbound: the GRE sequence number is missing or out of order'),
  reason(abi.DROP_ECN, 'ecn', 'inbound: congestion was experienced by a packet that cannot tell (RFC 6040)'),
  reason(abi.DROP_ICMP_CHECKSUM, 'icmp-checksum', 'the ICMP checksum is wrong'),
  reason(
    abi.DROP_FOREIGN_ICMP,
    'foreign-icmp',
    'the ICMP message is not about a packet of ours, or says nothing that is listened to',
  ),
  reason(
    abi.DROP_MERGED,
    'merged',
    'inbound: the kernel merged packets of another VM (GRO), and does not say how long each was',
  ),
  reason(
    abi.DROP_TINY_SEGMENTS,
    'tiny-segments',
    'outbound: a super-packet is to be cut into smaller segments than any stack sends',
  ),
  reason(
    abi.DROP_TOO_MANY_TUNNELS,
    'too-many-tunnels',
    'outbound: its sender opens tunnels to VMs never heard from faster than one may',
  ),
  reason(abi.DROP_OVER_SHARE, 'over-share', 'its sender sends more than its share while the VM is busy'),
  reason(
    abi.DROP_DIVERTED,
    'diverted',
    'outbound, kernel data plane: the packet was about to go to another VM than the one of its destination',
  ),
];

function reason(verdict: number, name: string, meaning: string): DropReason {
  return { verdict, name, meaning };
}

/** What is known about a drop reason. */
export function dropReason(verdict: number): DropReason {
  return DROP_REASONS[-verdict - 1] ?? reason(verdict, `unknown (${verdict})`, 'not known to this version');
}

/** The name of a verdict: `forward`, or that of the drop reason. */
export function verdictName(verdict: number): string {
  return verdict === abi.FORWARD ? 'forward' : dropReason(verdict).name;
}

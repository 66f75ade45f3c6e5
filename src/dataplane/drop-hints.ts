/** What an operator can do about packets that are dropped: the core does not know who runs it, so it does not say. */
import * as abi from '../core/abi.ts';

const SAME_PREFIXES = 'give all VMs the same --overlay and --underlay prefixes, in the same order';

const HINTS: ReadonlyMap<number, string> = new Map([
  [
    abi.DROP_FOREIGN_SOURCE,
    `the sender has an address that is not one of this VM's slice: inlay explain ADDRESS tells whose it is; or ${SAME_PREFIXES}`,
  ],
  [abi.DROP_OWN_SLICE, 'no container of this VM has that address, or its route has gone: ip route get ADDRESS'],
  [abi.DROP_RESERVED_ADDRESS, 'inlay explain ADDRESS tells which addresses of a slice containers can have'],
  [abi.DROP_TOO_LONG, 'the path to that VM takes very little: inlay tunnels shows its MTU'],
  [abi.DROP_NOT_GRE, 'something else than Inlay sends to this VM'],
  [abi.DROP_FRAGMENT, 'a router fragments what VMs send: lower --underlay-mtu there, or leave --path-mtu-discovery on'],
  [abi.DROP_NOT_FOR_US, 'has the underlay address changed? Start the daemon again'],
  [abi.DROP_FOREIGN_UNDERLAY, `a tunnel of somebody else ends at this VM, or ${SAME_PREFIXES}`],
  [
    abi.DROP_GRE_CHECKSUM,
    'the packet was damaged on its way, or a device on it changes packets without putting the GRE checksum right',
  ],
  [abi.DROP_GRE_PROTOCOL, 'another kind of GRE tunnel, such as one for Ethernet or IPv6, ends at this VM'],
  [abi.DROP_GRE_KEY, 'give all VMs the same --key'],
  [
    abi.DROP_SPOOFED_SOURCE,
    `the packets leave the sending VM with another address than its own: NAT there (MASQUERADE, SNAT), or a second address (--local); or ${SAME_PREFIXES}`,
  ],
  [
    abi.DROP_FOREIGN_DESTINATION,
    `the sending VM takes this one for another: ${SAME_PREFIXES}, and --local where a VM has two addresses`,
  ],
  [abi.DROP_TOO_BIG, 'the sender is told what fits; if this goes on, it does not hear ICMP: lower its MTU'],
  [abi.DROP_GRE_SEQUENCE, 'give all VMs --gre-sequence or none; a network that reorders packets loses some with it'],
  [abi.DROP_MERGED, 'give the daemon CAP_BPF, or ethtool -K DEVICE rx-udp-gro-forwarding off rx-gro-list off'],
  [
    abi.DROP_TINY_SEGMENTS,
    'a container makes work for this VM on purpose; or its device merges small packets: ethtool -K DEVICE gro off',
  ],
  [abi.DROP_TOO_MANY_TUNNELS, 'a container looks for others at addresses where none answers'],
  [abi.DROP_OVER_SHARE, 'one container sends more than this VM can forward: what the others send gets through'],
  [
    abi.DROP_DIVERTED,
    'a route, a neighbour or an ICMP redirect leads astray: ip route get ADDRESS, ip neighbour show dev DEVICE',
  ],
]);

/** Packets are dropped for these reasons all the time where nothing is wrong. */
const ROUTINE: ReadonlySet<number> = new Set([
  abi.DROP_NOT_IPV4,
  abi.DROP_TOO_BIG,
  abi.DROP_ECN,
  abi.DROP_FOREIGN_ICMP,
]);

/** What can be done about packets dropped for this reason, where something can be said. */
export function dropHint(verdict: number): string | undefined {
  return HINTS.get(verdict);
}

export function isRoutineDrop(verdict: number): boolean {
  return ROUTINE.has(verdict);
}

/** What an operator can do about drops, by their reason; those that are not here are no trouble of Inlay's, or need a closer look. */
import type { DROP_REASONS } from '../core/verdict.ts';

type Reason = (typeof DROP_REASONS)[number]['name'];

const SAME_PREFIXES = 'the same overlay and underlay prefixes on all VMs? Compare inlay status there';

export const CURES: Readonly<Record<Reason, string>> = {
  'foreign-source': 'a container or this host sends with an address of elsewhere: inlay explain says whose it is',
  'own-slice': 'no container of this VM has that address: is one detached, or its /32 route missing?',
  fragment: "the path takes less than the underlay's MTU says: set --underlay-mtu",
  'not-for-us': 'was the underlay address changed? Start the daemon again',
  'foreign-underlay': `is there NAT between VMs (MASQUERADE)? Have they ${SAME_PREFIXES}`,
  'gre-checksum': 'packets are damaged on the way, or by a NIC: ethtool -S shows its errors',
  'gre-key': 'give all VMs the same --key',
  'gre-sequence': 'give all VMs the same --gre-sequence; packets that overtake others are dropped, too',
  'spoofed-source': `does the other VM send from another of its addresses (MASQUERADE, two addresses)? Have they ${SAME_PREFIXES}`,
  'foreign-destination': `have they ${SAME_PREFIXES}`,
  'too-big': 'the sender is told what fits; if this goes on, it does not hear ICMP: lower its MTU',
  'too-long': 'the path to that VM takes too little: inlay tunnels shows its MTU',
  'not-written': 'the device or socket is full, or a firewall at OUTPUT refuses',
};

/** What it means that the kernel does not take a packet, by its error. */
export const REFUSALS: Readonly<Record<string, string>> = {
  EACCES: 'a route prohibits it',
  EHOSTUNREACH: 'no route to that VM',
  EINVAL: 'a blackhole route, or a packet that the kernel cannot send',
  EMSGSIZE: 'longer than the way to that VM takes',
  ENETDOWN: "the underlay's device is down",
  ENETUNREACH: 'no route to that VM',
  ENOBUFS: "the queue of the underlay's device is full",
  ENODEV: 'the device has gone',
  EPERM: 'a firewall at OUTPUT?',
};

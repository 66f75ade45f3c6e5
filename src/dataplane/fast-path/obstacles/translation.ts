/**
 * Chains of nftables and iptables that change addresses (nat), of which connection tracking remembers what they did. Where one
 * gives a container's packets another container as their destination, as for a service, the answers are packets between
 * containers. On their ordinary way they get the address back that was asked; the programs know nothing of it.
 */
import { type BaseChain, type Fate, fates } from '../../../linux/netfilter/fate.ts';
import type { Packet } from '../../../linux/netfilter/packet.ts';
import { contains, ipv4 } from '../../../mesh/address.ts';
import { at, type PacketFacts, toElsewhere } from './firewall-packets.ts';

/** Of each connection, such chains see the first packet only. */
export const FIRST: readonly Packet['state'][] = ['new', 'related'];

export function isForAddresses({ type }: BaseChain): boolean {
  return type === 'nat';
}

/** Whether a chain may lead packets of containers back into the overlay, in words. Throws TooLargeError. */
export function leadsBack(chain: BaseChain, facts: PacketFacts): string | undefined {
  if (!isForAddresses(chain)) return undefined;
  const isBack = (fate: Fate) => mayBeInside(fate, facts);
  const found = toElsewhere(facts)
    .filter(({ hooks }) => hooks.includes(chain.hook))
    .find((each) => FIRST.some((state) => fates(chain, at(chain.hook, each, state)).some(isBack)));
  return found && `may lead ${found.what} to other containers`;
}

/** What is sent to this machine instead (redirect) is answered by itself. */
function mayBeInside(fate: Fate, { plan: { mappings } }: PacketFacts): boolean {
  if (fate.kind === 'other') return true;
  if (fate.kind !== 'dnat') return false;
  const { address } = fate;
  return address === undefined || mappings.some(({ overlay }) => contains(overlay, ipv4(address)));
}

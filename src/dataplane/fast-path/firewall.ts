/** Rule sets of nftables and iptables that packets of the fast path would go past. */
import { legacyTables } from '../../linux/netfilter/iptables-legacy.ts';
import { FAMILIES, nftChains } from '../../linux/netfilter/nft.ts';
import { deviceOfTable } from '../../linux/netfilter/own-tables.ts';
import { type Chain, NF_ACCEPT } from '../../linux/netlink/nf-tables.ts';

/** The type of chains, and in iptables the table, whose rules are for changing addresses. */
const NAT = 'nat';

/** The first that is found, in words. */
export function firewallObstacle(): string | undefined {
  const table = legacyTables().find((name) => name !== NAT);
  if (table) return `iptables has a table ${table}`;
  const chain = nftChains().find(isObstacle);
  return chain && `nftables has a chain ${FAMILIES.get(chain.family)} ${chain.table} ${chain.name}`;
}

function isObstacle({ family, table, hook, type, policy }: Chain): boolean {
  if (!FAMILIES.has(family) || hook === undefined || deviceOfTable(table) !== undefined) return false;
  return type !== NAT || policy !== NF_ACCEPT;
}

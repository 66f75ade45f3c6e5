/**
 * The rules of this machine, by nftables or iptables: where they drop what Inlay carries, or change its
 * addresses.
 */
import { errorCode } from '../../errors.ts';
import { type BaseChain, TooLargeError } from '../../linux/netfilter/fate.ts';
import { legacyChains, legacyTables, readLegacyTable } from '../../linux/netfilter/iptables-legacy.ts';
import { Nftables, nftGeneration } from '../../linux/netfilter/nft.ts';
import { NF_INET_FORWARD, NF_INET_LOCAL_IN, NF_INET_POST_ROUTING } from '../../linux/netlink/nf-tables.ts';
import { dropRemarks } from './drops.ts';
import { natRemarks } from './nat.ts';
import type { Remark, Vantage } from './remark.ts';

export const HOOKS = [NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_POST_ROUTING];
/** The chains of iptables-legacy at those hooks, by table. */
export const LEGACY_HOOKS: Record<string, Record<number, string>> = {
  filter: { [NF_INET_LOCAL_IN]: 'INPUT', [NF_INET_FORWARD]: 'FORWARD' },
  nat: { [NF_INET_POST_ROUTING]: 'POSTROUTING' },
};

export class FirewallLookOut {
  /**
   * Of nftables, what was found in which state of it: its rules are read again only when they have changed.
   */
  #known: { state: string; remarks: Remark[] } | undefined;

  async look(vantage: Vantage): Promise<Remark[]> {
    return [...(await this.#nftables(vantage)), ...this.#legacy(vantage)];
  }

  async #nftables(vantage: Vantage): Promise<Remark[]> {
    const generation = nftGeneration();
    if (generation === undefined) return [];
    const state = JSON.stringify([generation, vantage], (_, value) => (typeof value === 'bigint' ? `${value}` : value));
    if (this.#known?.state === state) return this.#known.remarks;
    const nftables = new Nftables();
    try {
      const chains = await nftables.baseChains(HOOKS);
      this.#known = { state, remarks: chains.flatMap((chain) => judge(chain, vantage)) };
      return this.#known.remarks;
    } finally {
      nftables.close();
    }
  }

  #legacy(vantage: Vantage): Remark[] {
    return readableTables().flatMap((table) => {
      const hooks = LEGACY_HOOKS[table];
      if (!hooks) return [];
      return quietIfLarge(() => legacyChains(table, readLegacyTable(table), hooks)).flatMap((each) =>
        judge(each, vantage),
      );
    });
  }
}

/** Only root may read the names of the tables, whatever capabilities others have. */
function readableTables(): string[] {
  try {
    return legacyTables();
  } catch (error) {
    if (errorCode(error) === 'EACCES') return [];
    throw error;
  }
}

/** What one chain does to us. */
export function judge(chain: BaseChain, vantage: Vantage): Remark[] {
  return quietIfLarge(() => (chain.type === 'nat' ? natRemarks(chain, vantage) : dropRemarks(chain, vantage)));
}

/** A rule set that is too large is not judged. */
function quietIfLarge<T>(look: () => T[]): T[] {
  try {
    return look();
  } catch (error) {
    if (error instanceof TooLargeError) return [];
    throw error;
  }
}

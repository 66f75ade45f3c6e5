/**
 * The rules of this machine, by nftables or iptables: where they drop what Inlay carries, or change its
 * addresses.
 */
import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
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
  /** By rule set: what was found in which state of it. It is judged again only when it has changed. */
  readonly #known = new Map<string, { state: string; remarks: Remark[] }>();

  async look(vantage: Vantage): Promise<Remark[]> {
    const found = [await this.#nftables(vantage)];
    for (const table of readableTables()) found.push(await this.#legacy(table, vantage));
    return found.flat();
  }

  async #nftables(vantage: Vantage): Promise<Remark[]> {
    const generation = nftGeneration();
    if (generation === undefined) return [];
    return this.#judged('nftables', generation, vantage, async () => {
      const nftables = new Nftables();
      try {
        return await judgeAll(await nftables.baseChains(HOOKS), vantage);
      } finally {
        nftables.close();
      }
    });
  }

  async #legacy(name: string, vantage: Vantage): Promise<Remark[]> {
    const hooks = LEGACY_HOOKS[name];
    const [table] = hooks ? quietIfLarge(() => [readLegacyTable(name)]) : [];
    if (!hooks || !table) return [];
    const digest = createHash('sha256').update(table.info).update(table.entries).digest('hex');
    return this.#judged(name, digest, vantage, () => judgeAll(legacyChains(name, table, hooks), vantage));
  }

  async #judged(ruleSet: string, version: number | string, vantage: Vantage, anew: () => Promise<Remark[]>) {
    const state = JSON.stringify([version, vantage], (_, value) => (typeof value === 'bigint' ? `${value}` : value));
    const known = this.#known.get(ruleSet);
    if (known?.state === state) return known.remarks;
    const remarks = await anew();
    this.#known.set(ruleSet, { state, remarks });
    return remarks;
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

/** What all chains do to us. Others have their turn between. */
export async function judgeAll(chains: readonly BaseChain[], vantage: Vantage): Promise<Remark[]> {
  const found: Remark[] = [];
  for (const chain of chains) {
    found.push(...judge(chain, vantage));
    await turn();
  }
  return found;
}

/** What one chain does to us. */
function judge(chain: BaseChain, vantage: Vantage): Remark[] {
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

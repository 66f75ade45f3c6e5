/** Tables of nftables that are ours: each is written as a whole, in one transaction, and read back. */
import { errorCode } from '../../errors.ts';
import { NLM_F_APPEND, NLM_F_CREATE, type Request, request } from '../netlink/message.ts';
import { Netlink } from '../netlink/netlink.ts';
import {
  bare,
  type Chain,
  chain,
  generation,
  NF_ACCEPT,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_IPV4,
  NFT_MSG_DELTABLE,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWTABLE,
  NFT_TABLE_F_DORMANT,
  type Rule,
  rule,
  table,
} from '../netlink/nf-tables.ts';
import { NETLINK_NETFILTER } from '../netlink/transport.ts';

/** Our tables begin with this. */
const PREFIX = 'inlay-';
const family = NFPROTO_IPV4;
const resource = NFNL_SUBSYS_NFTABLES;
/** What the kernel answers where there is no such table or chain. */
const MISSING = 'ENOENT';

export type OwnChain = { name: string; hook?: { number: number; priority: number }; rules: readonly OwnRule[] };
export type OwnRule = Pick<Rule, 'expressions' | 'userdata'>;

/** The name of the table that belongs to an overlay device. */
export function tableOf(device: string): string {
  return PREFIX + device;
}

/** The device whose table has this name; undefined if it is not ours. */
export function deviceOfTable(name: string | undefined): string | undefined {
  return name?.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined;
}

export class OwnTables {
  #netlink: Netlink | undefined;

  /** A number that each change of any rule set of this network namespace makes larger. */
  get generation(): number {
    return this.#socket.get(request(NFT_MSG_GETGEN, 0, 'generation of nftables', generation, {}), generation).id ?? 0;
  }

  /** The names of all tables of IPv4. */
  names(): string[] {
    const asked = request(NFT_MSG_GETTABLE, 0, 'tables of nftables', table, { family });
    return this.#socket.dump(asked, table).flatMap((each) => (each.family === family ? (each.name ?? []) : []));
  }

  /** The chains of these names with their rules; undefined where one of them is missing, or the table sleeps. */
  read(name: string, chains: readonly string[]): OwnChain[] | undefined {
    try {
      const asked = request(NFT_MSG_GETTABLE, 0, `table ${name}`, table, { family, name });
      const { flags = 0 } = this.#socket.get(asked, table);
      if (flags & NFT_TABLE_F_DORMANT) return undefined;
      const all = this.rules(name);
      return chains.map((each) => {
        const ask = request(NFT_MSG_GETCHAIN, 0, `chain ${each}`, chain, { family, table: name, name: each });
        const rules = all.filter((found) => found.chain === each);
        return { name: each, ...hookOf(this.#socket.get(ask, chain)), rules };
      });
    } catch (error) {
      if (errorCode(error) === MISSING) return undefined;
      throw error;
    }
  }

  /** The rules of all chains, in their order; none if there is no such table. */
  rules(name: string): Rule[] {
    const asked = request(NFT_MSG_GETRULE, 0, `rules of ${name}`, rule, { family, table: name });
    return this.#socket.dump(asked, rule).filter((each) => each.table === name);
  }

  /** Writes the table, whatever it was: no packet passes without the old rules or the new ones. */
  replace(name: string, chains: readonly OwnChain[]): void {
    const what = `table ${name}`;
    const create = request(NFT_MSG_NEWTABLE, NLM_F_CREATE, what, table, { family, name });
    this.#transact([
      create,
      request(NFT_MSG_DELTABLE, 0, what, table, { family, name }),
      create,
      ...chains.map(({ name: own, hook }) => {
        const base = hook && {
          hook: { hooknum: hook.number, priority: hook.priority },
          policy: NF_ACCEPT,
          type: 'filter',
        };
        return request(NFT_MSG_NEWCHAIN, NLM_F_CREATE, `chain ${own}`, chain, {
          family,
          table: name,
          name: own,
          ...base,
        });
      }),
      ...chains.flatMap(({ name: own, rules }) =>
        rules.map((each) =>
          request(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, `rule of ${own}`, rule, {
            ...{ family, table: name, chain: own, ...each },
          }),
        ),
      ),
    ]);
  }

  /** False if there was none. */
  remove(name: string): boolean {
    try {
      this.#transact([request(NFT_MSG_DELTABLE, 0, `table ${name}`, table, { family, name })]);
      return true;
    } catch (error) {
      if (errorCode(error) === MISSING) return false;
      throw error;
    }
  }

  close(): void {
    this.#netlink?.close();
    this.#netlink = undefined;
  }

  #transact(requests: readonly Request[]): void {
    const edge = (type: number) => request(type, 0, 'transaction of nftables', bare, { resource });
    this.#socket.together([edge(NFNL_MSG_BATCH_BEGIN), ...requests, edge(NFNL_MSG_BATCH_END)]);
  }

  get #socket(): Netlink {
    this.#netlink ??= Netlink.open(NETLINK_NETFILTER);
    return this.#netlink;
  }
}

function hookOf({ hook, policy, type }: Chain): Pick<OwnChain, 'hook'> {
  if (hook?.hooknum === undefined) return {};
  // A chain of ours accepts at its end, and is of this type.
  const isOurs = policy === NF_ACCEPT && type === 'filter';
  return { hook: { number: isOurs ? hook.hooknum : -1, priority: (hook.priority ?? 0) | 0 } };
}

/** The rule sets of nftables in this network namespace, as the kernel has them. */
import { setImmediate as turn } from 'node:timers/promises';
import { errorCode } from '../../errors.ts';
import type { Decoder } from '../netlink/codec.ts';
import { type Request, request } from '../netlink/message.ts';
import { Netlink } from '../netlink/netlink.ts';
import {
  type Chain,
  chain,
  type Element,
  elements,
  generation,
  NF_ACCEPT,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFPROTO_NETDEV,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSET,
  NFT_MSG_GETSETELEM,
  NFT_MSG_GETTABLE,
  NFT_SET_EVAL,
  NFT_SET_TIMEOUT,
  NFT_TABLE_F_DORMANT,
  rule,
  set,
  table,
} from '../netlink/nf-tables.ts';
import { NETLINK_NETFILTER } from '../netlink/transport.ts';
import { loadedModules } from '../proc.ts';
import { type BaseChain, type Rule, TooLargeError } from './fate.ts';
import { ruleOf } from './nft-rule.ts';

/** What a kernel without nftables answers: to the request for its generation, in which nothing can be wrong, or to the socket already. */
const WITHOUT_NFTABLES = ['EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT'];
/** Rules of one chain, and elements of one set, that are read at most. */
const MAX_RULES = 2000;
const MAX_ELEMENTS = 256;
/** The families of chains that IPv4 packets pass. */
export const FAMILIES: ReadonlyMap<number, 'inet' | 'ip'> = new Map([
  [NFPROTO_INET, 'inet'],
  [NFPROTO_IPV4, 'ip'],
]);

/**
 * Whether the kernel has said that it has no nftables. Each time it is asked it looks for a module to load.
 */
let hasNoNftables = false;

/** Asks the kernel by a socket of nftables; undefined if it has no nftables. */
function askNftables<T>(ask: (netlink: Netlink) => T): T | undefined {
  if (hasNoNftables && !/^nf_tables /m.test(loadedModules())) return undefined;
  hasNoNftables = false;
  let netlink: Netlink | undefined;
  try {
    netlink = Netlink.open(NETLINK_NETFILTER);
    return ask(netlink);
  } catch (error) {
    hasNoNftables = isWithout(error) && (!netlink || isWithout(errorOf(netlink)));
    if (hasNoNftables) return undefined;
    throw error;
  } finally {
    netlink?.close();
  }
}

function isWithout(error: unknown): boolean {
  return WITHOUT_NFTABLES.includes(errorCode(error) ?? '');
}

/** The error with which the kernel answers the simplest of all requests; undefined if it can. */
function errorOf(netlink: Netlink): unknown {
  try {
    netlink.get(GET_GENERATION, generation);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** nft(8) names sets without a name so: they are as their rules were made. */
const ANONYMOUS = '__';

const GET_CHAINS: Request = request(NFT_MSG_GETCHAIN, 0, 'chains of nftables', chain, {});
const GET_TABLES: Request = request(NFT_MSG_GETTABLE, 0, 'tables of nftables', table, {});
const GET_GENERATION: Request = request(NFT_MSG_GETGEN, 0, 'generation of nftables', generation, {});

/** All chains. */
export function nftChains(): Chain[] {
  return askNftables((netlink) => netlink.dump(GET_CHAINS, chain)) ?? [];
}

/** A number that changes with every change of any rule set; undefined if there is no nftables. */
export function nftGeneration(): number | undefined {
  return askNftables((netlink) => netlink.get(GET_GENERATION, generation).id);
}

/** The rule sets, as they are when they are first asked for. To be closed. */
export class Nftables {
  readonly #open: () => Netlink;
  #netlink: Netlink;
  readonly #rules = new Map<string, readonly Rule[]>();
  readonly #elements = new Map<string, readonly Element[] | undefined>();

  constructor(open: () => Netlink = () => Netlink.open(NETLINK_NETFILTER)) {
    this.#open = open;
    this.#netlink = open();
  }

  /** The base chains at these hooks. Others have their turn between. */
  async baseChains(hooks: readonly number[]): Promise<BaseChain[]> {
    const chains = this.chains(({ family, hook }) => FAMILIES.has(family) && hooks.includes(hook?.hooknum ?? -1));
    for (;;) {
      const { done, value } = chains.next();
      if (done) return value;
      await turn();
    }
  }

  /** The base chains that are wanted. Kubernetes makes tens of thousands of chains: they are read in parts. */
  *chains(isWanted: (chain: Chain) => boolean): Generator<undefined, BaseChain[]> {
    const dormant = new Set(
      this.#netlink
        .dump(GET_TABLES, table)
        .flatMap((each) => ((each.flags ?? 0) & NFT_TABLE_F_DORMANT ? [tableKey(each.family, each.name)] : [])),
    );
    const names = new Map<string, Set<string>>();
    const found: Chain[] = [];
    for (const part of this.#netlink.parts(GET_CHAINS, chain)) {
      for (const each of part) {
        const key = tableKey(each.family, each.table);
        names.set(key, (names.get(key) ?? new Set()).add(each.name ?? ''));
        if (each.hook && isWanted(each) && !dormant.has(key)) found.push(each);
      }
      yield;
    }
    return found.map((each) => this.#baseChain(each, names.get(tableKey(each.family, each.table)) ?? new Set()));
  }

  close(): void {
    this.#netlink.close();
  }

  #baseChain({ family, table = '', name = '', hook, type = '', policy }: Chain, names: ReadonlySet<string>) {
    return {
      ...{ name, table, type, family: nameOfFamily(family), hook: hook?.hooknum ?? -1 },
      ...((hook?.device ?? hook?.devices) !== undefined && { devices: hook?.devices ?? [hook?.device ?? ''] }),
      // iptables has its own names for chains; nobody else writes them in capitals.
      tool: family === NFPROTO_IPV4 && name === name.toUpperCase() ? 'iptables' : 'nft',
      policy: (policy ?? NF_ACCEPT) === NF_ACCEPT ? 'accept' : 'drop',
      hasChain: (wanted: string) => names.has(wanted),
      rules: (wanted: string = name) => this.#rulesOf(family, table, wanted),
    } as const;
  }

  #rulesOf(family: number, table: string, chain: string): readonly Rule[] {
    const key = `${tableKey(family, table)} ${chain}`;
    const known = this.#rules.get(key);
    if (known) return known;
    const elementsOf = (set: string) => this.#elementsOf(family, table, set);
    const asked = request(NFT_MSG_GETRULE, 0, `rules of ${key}`, rule, { family, table, chain });
    const found = this.#atMost(MAX_RULES, asked, rule, ({ expressions = [] }) => [ruleOf(expressions, elementsOf)]);
    if (!found) throw new TooLargeError(`more than ${MAX_RULES} rules in ${table} ${chain}`);
    this.#rules.set(key, found);
    return found;
  }

  /** Undefined for a set that is large, changes by itself or has intervals: whether something is in it is not told. */
  #elementsOf(family: number, table: string, set: string): readonly Element[] | undefined {
    const key = `${tableKey(family, table)} ${set}`;
    if (this.#elements.has(key)) return this.#elements.get(key);
    const asked = request(NFT_MSG_GETSETELEM, 0, `set ${key}`, elements, { family, table, set });
    const found = this.#atMost(MAX_ELEMENTS, asked, elements, (each) => each.elements ?? []);
    const isKnown = found?.every(({ flags, keyEnd }) => !flags && !keyEnd) && !this.#changes(family, table, set);
    this.#elements.set(key, isKnown ? found : undefined);
    return this.#elements.get(key);
  }

  /** Whether what is in a set changes without anybody changing the rule set. */
  #changes(family: number, table: string, name: string): boolean {
    if (name.startsWith(ANONYMOUS)) return false;
    const { flags = 0 } = this.#netlink.get(
      request(NFT_MSG_GETSET, 0, `set ${name}`, set, { family, table, name }),
      set,
    );
    return (flags & (NFT_SET_TIMEOUT | NFT_SET_EVAL)) !== 0;
  }

  /** Undefined if there are more. Then the rest, which may be a million, is not read. */
  #atMost<T, E>(most: number, asked: Request, decoder: Decoder<T>, partsOf: (each: T) => readonly E[]) {
    const found: E[] = [];
    for (const part of this.#netlink.parts(asked, decoder)) {
      found.push(...part.flatMap(partsOf));
      if (found.length <= most) continue;
      this.#netlink.close();
      this.#netlink = this.#open();
      return undefined;
    }
    return found;
  }
}

function tableKey(family: number, name = ''): string {
  return `${family} ${name}`;
}

function nameOfFamily(family: number): BaseChain['family'] {
  return family === NFPROTO_NETDEV ? 'netdev' : (FAMILIES.get(family) ?? 'inet');
}

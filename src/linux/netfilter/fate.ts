/**
 * What a rule set does to packets, as far as it can be told: the ways that they may take through a chain.
 * Whatever is not understood may do anything, so "surely" is said of what is certain.
 */
import type { Answer, Packet } from './packet.ts';

/**
 * What a rule does to a packet that it applies to. `touch` stands for what decides nothing, but changes the packet or
 * something else, such as a log. What rules count does not.
 */
export type Action =
  | { kind: 'none' | 'mark' | 'touch' | 'return' | Final }
  | Translation
  | { kind: 'jump' | 'goto'; chain: string };

/** Another source or destination (IPv4, u32); undefined if it is not known, or one of several. */
type Translation = { kind: 'snat' | 'dnat'; address: number | undefined };
/**
 * What ends the way. `redirect` is a translation to an address of this machine; `other` stands for whatever is not understood, such
 * as a queue to a program.
 */
type Final = 'accept' | 'drop' | 'masquerade' | 'redirect' | 'other';
export type Fate = { kind: Final | 'through' } | Translation;

/** What a rule says of a packet: whether it applies, and what it does then. */
export type Rule = (packet: Packet) => { applies: Answer; actions: readonly Action[] };

/** A chain that packets come to by themselves. */
export interface BaseChain {
  /** As `iptables -t filter -S FORWARD` or `nft list chain` name it. */
  name: string;
  table: string;
  family: 'ip' | 'inet' | 'netdev';
  /** Who made it, which says what it is changed with. */
  tool: 'nft' | 'iptables' | 'iptables-legacy';
  /** Where packets come to it, such as NF_INET_FORWARD. */
  hook: number;
  /** Of the chain: 'filter', 'nat' or 'route'. */
  type: string;
  /** The devices that it is at, if it is at some. */
  devices?: readonly string[];
  policy: 'accept' | 'drop';
  /** Whether its table has a chain of this name. */
  hasChain(name: string): boolean;
  /** Its rules, or those of another chain of the table. Throws TooLargeError. */
  rules(chain?: string): Iterable<Rule>;
}

/** The rule set is too large to be looked through. */
export class TooLargeError extends Error {}

/** NFT_JUMP_STACK_SIZE in <net/netfilter/nf_tables.h>. */
const MAX_DEPTH = 16;
/** Rules that are asked for one packet, at most. */
const MAX_STEPS = 4000;

/** All that may become of the packets in this chain. Throws TooLargeError. */
export function fates(base: BaseChain, packet: Packet): Fate[] {
  const found = new Map<string, Fate>();
  const walk = new Walk(base, { mark: 0, ...packet }, (fate) => found.set(JSON.stringify(fate), fate));
  if (walk.chain(undefined, 0)) found.set('policy', { kind: base.policy });
  return [...found.values()];
}

/** Whether a chain surely accepts all these packets, and does nothing else. Throws TooLargeError. */
export function leavesAlone(base: BaseChain, packet: Packet): boolean {
  let isAlone = true;
  const end = ({ kind }: Fate) => {
    if (kind !== 'accept') isAlone = false;
  };
  const touch = () => {
    isAlone = false;
  };
  const mayPassAll = new Walk(base, { mark: 0, ...packet }, end, touch).chain(undefined, 0);
  return isAlone && (base.policy === 'accept' || !mayPassAll);
}

class Walk {
  readonly #base: BaseChain;
  #packet: Packet;
  readonly #end: (fate: Fate) => void;
  readonly #touch: () => void;
  #steps = 0;

  constructor(base: BaseChain, packet: Packet, end: (fate: Fate) => void, touch: () => void = () => {}) {
    this.#base = base;
    this.#packet = packet;
    this.#end = end;
    this.#touch = touch;
  }

  /** Whether packets may come out at the chain's end. */
  chain(name: string | undefined, depth: number): boolean {
    if (depth > MAX_DEPTH) throw new TooLargeError('chains that are too deep');
    let mayReturn = false;
    for (const rule of this.#base.rules(name)) {
      if (++this.#steps > MAX_STEPS) throw new TooLargeError(`more than ${MAX_STEPS} rules`);
      const { applies, actions } = rule(this.#packet);
      if (applies === 'no') continue;
      const next = this.#do(actions, depth);
      mayReturn ||= next.mayReturn;
      if (applies === 'yes' && !next.mayGoOn) return mayReturn;
    }
    return true;
  }

  #do(actions: readonly Action[], depth: number): { mayReturn: boolean; mayGoOn: boolean } {
    for (const action of actions) {
      switch (action.kind) {
        case 'none':
          break;
        case 'touch':
          this.#touch();
          break;
        case 'mark':
          this.#touch();
          this.#packet = { ...this.#packet, mark: undefined };
          break;
        case 'return':
          return { mayReturn: true, mayGoOn: false };
        case 'goto':
          return { mayReturn: this.chain(action.chain, depth + 1), mayGoOn: false };
        case 'jump':
          return { mayReturn: false, mayGoOn: this.chain(action.chain, depth + 1) };
        case 'other':
          this.#end(action as Fate);
          return { mayReturn: true, mayGoOn: true };
        default:
          this.#end(action as Fate);
          return { mayReturn: false, mayGoOn: false };
      }
    }
    return { mayReturn: false, mayGoOn: true };
  }
}

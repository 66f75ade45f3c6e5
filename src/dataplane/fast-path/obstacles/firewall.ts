/**
 * Rule sets of nftables and iptables that packets of the fast path would go past. A chain is none if it surely accepts all those
 * packets and does nothing else, as an empty one does, or docker's rules for its own bridges. What chains for changing addresses
 * (nat) do to packets between VMs is told by itself (machine/remarks/nat.ts).
 */
import { createHash } from 'node:crypto';
import { errorCode } from '../../../errors.ts';
import { type BaseChain, leavesAlone, TooLargeError } from '../../../linux/netfilter/fate.ts';
import { legacyChains, legacyTables, readLegacyTable } from '../../../linux/netfilter/iptables-legacy.ts';
import { FAMILIES, Nftables, nftGeneration } from '../../../linux/netfilter/nft.ts';
import { deviceOfTable } from '../../../linux/netfilter/own-tables.ts';
import { STATES } from '../../../linux/netfilter/packet.ts';
import { jumpIfType, loadType } from '../../../linux/netlink/message-filter.ts';
import { Monitor } from '../../../linux/netlink/monitor.ts';
import {
  type Chain,
  NF_INET_FORWARD,
  NF_INET_INGRESS,
  NF_INET_LOCAL_IN,
  NF_INET_LOCAL_OUT,
  NF_INET_POST_ROUTING,
  NF_INET_PRE_ROUTING,
  NFNLGRP_NFTABLES,
  NFPROTO_NETDEV,
  NFT_MSG_NEWGEN,
} from '../../../linux/netlink/nf-tables.ts';
import { NETLINK_NETFILTER, openTransport } from '../../../linux/netlink/transport.ts';
import { ALL, assemble, RETURN } from '../../../linux/socket-filter.ts';
import { nameOf } from '../../../machine/remarks/commands.ts';
import { at, betweenContainers, betweenVms, type PacketFacts } from './firewall-packets.ts';
import { Pace } from './pace.ts';
import { FIRST, isForAddresses, leadsBack } from './translation.ts';

/** Tables of iptables, and which chains of theirs packets come to by themselves. */
const LEGACY: Record<string, Record<number, string>> = {
  raw: { [NF_INET_PRE_ROUTING]: 'PREROUTING', [NF_INET_LOCAL_OUT]: 'OUTPUT' },
  mangle: {
    ...{ [NF_INET_PRE_ROUTING]: 'PREROUTING', [NF_INET_LOCAL_IN]: 'INPUT', [NF_INET_FORWARD]: 'FORWARD' },
    ...{ [NF_INET_LOCAL_OUT]: 'OUTPUT', [NF_INET_POST_ROUTING]: 'POSTROUTING' },
  },
  filter: { [NF_INET_LOCAL_IN]: 'INPUT', [NF_INET_FORWARD]: 'FORWARD', [NF_INET_LOCAL_OUT]: 'OUTPUT' },
  nat: { [NF_INET_PRE_ROUTING]: 'PREROUTING', [NF_INET_POST_ROUTING]: 'POSTROUTING' },
  security: { [NF_INET_LOCAL_IN]: 'INPUT', [NF_INET_FORWARD]: 'FORWARD', [NF_INET_LOCAL_OUT]: 'OUTPUT' },
};
/** ms that rule sets are looked through again before other work has its turn. */
const SLICE = 5;
/**
 * ms that a later answer may be one of before a change; then the packets go their ordinary way until there is another. And ms that
 * the first answer may take at once.
 */
const PATIENCE = 1000;
const UNKNOWN = 'rule sets of nftables and iptables are being looked through';
/** Looks through rule sets take one part in so many of the time, at most. */
const SHARE = 10;
/** A change of the rule sets is told by one message, whatever it consists of. */
const generations = assemble([
  loadType,
  ...jumpIfType([NFT_MSG_NEWGEN], 'take'),
  [RETURN, 0],
  { label: 'take' },
  [RETURN, ALL],
]);

export interface FirewallFacts extends PacketFacts {
  /** Whether a device of this name is a container's. */
  isContainer: (name: string) => boolean;
}

export class Firewalls {
  readonly #onChange: (after?: number) => void;
  #monitor: Monitor | undefined;
  /** What the rule sets and the packets were when they were looked through, and what was found. */
  #state: string | undefined;
  #found: string | undefined = UNKNOWN;
  /** When something was first seen that is not looked through yet, in ms. */
  #changed = Infinity;
  #work: Generator<undefined, string | undefined> | undefined;
  /** ms that the work has taken, and before which it does not begin anew. */
  #taken = 0;
  #notBefore = 0;
  readonly #pace = new Pace();
  #legacy = '';
  #closed = false;

  /** `onChange` is called when rule sets have changed or were looked through, or with the ms after which it is time to look. */
  constructor(onChange: (after?: number) => void) {
    this.#onChange = onChange;
  }

  /** The first chain that may do something to packets, in words; while rule sets are looked through, what was found before. */
  look(facts: FirewallFacts): string | undefined {
    if (!this.#work) this.#begin(facts);
    return this.#found ?? (performance.now() - this.#changed > PATIENCE ? UNKNOWN : undefined);
  }

  close(): void {
    this.#closed = true;
    this.#monitor?.close();
    this.#work?.return(undefined);
    this.#work = undefined;
  }

  #begin(facts: FirewallFacts): void {
    this.#listen();
    const state = this.#stateOf(facts);
    if (state === this.#state) return;
    const now = performance.now();
    this.#changed = Math.min(this.#changed, now);
    if (now < this.#notBefore) {
      this.#onChange(this.#notBefore - now);
      return;
    }
    this.#work = judge(facts);
    this.#taken = 0;
    // A daemon that starts waits for the answer: without one it would remove the programs of the one before.
    this.#goOn(state, this.#found === UNKNOWN ? PATIENCE : SLICE);
  }

  #goOn(state: string, slice = SLICE): void {
    const begin = performance.now();
    try {
      for (;;) {
        const step = this.#work?.next();
        if (!step || step.done) {
          this.#found = step?.value;
          this.#end(state, begin);
          return;
        }
        if (performance.now() - begin > slice) break;
      }
    } catch (error) {
      // What changed meanwhile is looked through again.
      if (errorCode(error) !== 'EINTR') this.#found = `rule sets cannot be looked through: ${(error as Error).message}`;
      this.#end(undefined, begin);
      return;
    }
    this.#taken += performance.now() - begin;
    setImmediate(() => {
      if (this.#closed) return;
      this.#goOn(state);
      if (!this.#work) this.#onChange();
    });
  }

  #end(state: string | undefined, begin: number): void {
    const now = performance.now();
    this.#work = undefined;
    this.#state = state;
    if (state !== undefined) this.#changed = Infinity;
    this.#notBefore = now + SHARE * (this.#taken + now - begin);
  }

  #stateOf({ isContainer, ...facts }: FirewallFacts): string {
    this.#pace.look(() => {
      this.#legacy = legacyTables()
        .map((name) => `${name} ${digestOf(name)}`)
        .join();
    });
    const asText = (_: string, value: unknown) => (typeof value === 'bigint' ? `${value}` : value);
    return JSON.stringify([nftGeneration(), this.#legacy, facts], asText);
  }

  #listen(): void {
    if (this.#monitor) return;
    try {
      const filter = () => generations;
      this.#monitor = new Monitor(openTransport(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], filter), {
        onMessages: () => this.#onChange(),
        onOverrun: () => this.#onChange(),
        onFailure: () => {
          this.#monitor = undefined;
          this.#onChange();
        },
      });
    } catch {} // Without it, a change is found by the next look.
  }
}

function digestOf(table: string): string {
  const { info, entries } = readLegacyTable(table);
  return createHash('sha256').update(info).update(entries).digest('hex');
}

function* judge(facts: FirewallFacts): Generator<undefined, string | undefined> {
  for (const name of legacyTables()) {
    const found = yield* firstOf(legacyChains(name, readLegacyTable(name), LEGACY[name] ?? {}), facts);
    if (found !== undefined) return found;
  }
  if (nftGeneration() === undefined) return undefined;
  const nftables = new Nftables();
  try {
    return yield* firstOf(yield* nftables.chains(isMeant), facts);
  } finally {
    nftables.close();
  }
}

function isMeant({ family, table, hook }: Chain): boolean {
  // The barrier drops nothing that the programs take.
  if (deviceOfTable(table) !== undefined || (!FAMILIES.has(family) && family !== NFPROTO_NETDEV)) return false;
  return hook !== undefined;
}

function* firstOf(chains: readonly BaseChain[], facts: FirewallFacts): Generator<undefined, string | undefined> {
  for (const chain of chains) {
    try {
      const found = isAtDevices(chain)
        ? placeOf(chain, facts)
        : ((yield* touchedBy(chain, facts)) ?? leadsBack(chain, facts));
      if (found !== undefined) return `${nameOf(chain)} ${found}`;
    } catch (error) {
      if (error instanceof TooLargeError) return `${nameOf(chain)} is too large to be looked through`;
      throw error;
    }
    yield;
  }
  return undefined;
}

/** Before routing, or behind it: the packets of one device. */
function isAtDevices({ family, hook }: BaseChain): boolean {
  return family === 'netdev' || hook === NF_INET_INGRESS;
}

function placeOf(chain: BaseChain, { uplink, overlay, isContainer }: FirewallFacts): string | undefined {
  const isOnTheWay = (name: string) => [uplink.name, overlay?.name].includes(name) || isContainer(name);
  const place = chain.devices?.find((name) => name.endsWith('*') || isOnTheWay(name));
  const isEmpty = chain.policy === 'accept' && [...chain.rules()].length === 0;
  return place === undefined || isEmpty ? undefined : `is at ${place}`;
}

function* touchedBy(chain: BaseChain, facts: FirewallFacts): Generator<undefined, string | undefined> {
  const isTranslation = isForAddresses(chain) && chain.policy === 'accept';
  const cases = [...(isTranslation ? [] : betweenVms(facts)), ...betweenContainers(facts)];
  const states = isForAddresses(chain) ? FIRST : STATES;
  for (const each of cases.filter(({ hooks }) => hooks.includes(chain.hook))) {
    if (!states.every((state) => leavesAlone(chain, at(chain.hook, each, state))))
      return `may do something to ${each.what}`;
    yield;
  }
  return undefined;
}

/**
 * Rules of policy routing (ip-rule(8)) by which packets may take another way than the fast path sends them. Two kinds of packets
 * are followed through the rules, in the order in which the kernel asks them: outer packets of this VM, and containers' packets to
 * the overlay. Neither has a mark: whoever could give them one is an obstacle by itself, as a firewall is.
 */
import { type Answer, answerOf, both, not, only } from '../../../linux/netfilter/packet.ts';
import { addressOf } from '../../../linux/netlink/ipv4.ts';
import type { Message } from '../../../linux/netlink/message.ts';
import type { Netlink } from '../../../linux/netlink/netlink.ts';
import {
  type AnyRoute,
  anyRoute,
  RT_TABLE_DEFAULT,
  RT_TABLE_LOCAL,
  RT_TABLE_MAIN,
} from '../../../linux/netlink/route.ts';
import { rules } from '../../../linux/netlink/rtnetlink.ts';
import {
  FIB_RULE_INVERT,
  FR_ACT_NOP,
  FR_ACT_TO_TBL,
  FR_ACT_UNREACHABLE,
  type Rule,
} from '../../../linux/netlink/rule.ts';
import { CATCH_ALL_PROTOCOL, type NetworkPlan } from '../../../machine/state.ts';
import { contains, formatPrefix, overlaps, type Prefix } from '../../../mesh/address.ts';
import { mappingsWith } from '../../../mesh/mapping.ts';
import { Pace } from './pace.ts';
import type { Uplink } from './uplink.ts';
import { coverOf, devicesOf, routesAbout, waysTo } from './ways.ts';

const LOOPBACK_NAME = 'lo';
/** What a table or a field without a value has (-1). */
const NONE = 0xffffffff;

/** Packets that are alike. */
interface Flow {
  source: Prefix;
  destination: Prefix;
  /** Of outer packets: the routes of table main for them, and the IP protocol. */
  outer?: { routes: readonly AnyRoute[]; protocol: number };
}

export interface RoutingFacts {
  plan: NetworkPlan;
  uplink: Uplink;
  /** The routes of table main that have to do with the underlay. */
  routes: readonly AnyRoute[];
  /** The IP protocol of outer packets. */
  protocol: number;
}

export class PolicyRouting {
  readonly #netlink: Netlink;
  readonly #pace = new Pace();
  #found: string | undefined;
  #hasOtherWays = false;
  /** What other tables have, as long as nothing is heard of them. */
  readonly #tables = new Map<number, readonly AnyRoute[]>();

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** Whether a notification is about a route of a table that was looked at. */
  concerns({ view, start, end }: Message): boolean {
    const { table, anyTable = table } = anyRoute.get(view, start, end);
    return this.#tables.delete(anyTable);
  }

  reload(): void {
    this.#tables.clear();
  }

  /** Whether a table other than main has routes to other VMs, though they all leave by the same device. */
  get hasOtherWays(): boolean {
    return this.#hasOtherWays;
  }

  /** The first rule that may lead packets elsewhere, in words. */
  look(facts: RoutingFacts): string | undefined {
    const looked = this.#pace.look(() => this.#look(facts));
    if (looked) this.#found = looked.found;
    return this.#found;
  }

  #look(facts: RoutingFacts): string | undefined {
    // The kernel does not tell of routes that go with their device: what is in the way is looked at again.
    if (this.#found !== undefined) this.#tables.clear();
    this.#hasOtherWays = false;
    let flows = flowsOf(facts);
    for (const rule of rules(this.#netlink)) {
      const undecided: Flow[] = [];
      for (const flow of flows) {
        const answer = appliesTo(rule, flow, facts.uplink);
        if (answer !== 'no' && this.#leadsElsewhere(rule, flow, facts)) return wordsOf(rule, flow);
        if (!(answer === 'yes' && decides(rule, flow))) undecided.push(flow);
      }
      if (undecided.length === 0) return undefined;
      flows = undecided;
    }
    return undefined;
  }

  #leadsElsewhere(rule: Rule, { destination, outer }: Flow, { plan, uplink }: RoutingFacts): boolean {
    if (rule.protocol === CATCH_ALL_PROTOCOL || rule.action === FR_ACT_NOP) return false;
    if (rule.action !== FR_ACT_TO_TBL) return true;
    const table = tableOf(rule);
    // What table main says is looked at by itself.
    if ([RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT].includes(table)) return false;
    const ways = waysTo(destination, this.#routesOf(table, plan));
    return ways.some(
      (way) => !outer || devicesOf(way).length === 0 || devicesOf(way).some((to) => to !== uplink.index),
    );
  }

  #routesOf(table: number, { mappings }: NetworkPlan): readonly AnyRoute[] {
    const known = this.#tables.get(table);
    if (known) return known;
    const { routes, isWhole } = routesAbout(
      table,
      mappings.flatMap(({ overlay, underlay }) => [overlay, underlay]),
    );
    if (isWhole) this.#tables.set(table, routes);
    return routes;
  }
}

function flowsOf({ plan: { mappings, local }, routes, protocol }: RoutingFacts): Flow[] {
  const own = mappingsWith(mappings, local).map((mapping) => mapping.sliceOf(local));
  return mappings.flatMap(({ overlay, underlay }): Flow[] => [
    { source: only(local), destination: underlay, outer: { routes, protocol } },
    ...own.flatMap((slice) => [
      { source: slice, destination: overlay },
      { source: overlay, destination: slice },
    ]),
  ]);
}

/** Whether the kernel follows a rule for these packets (fib_rule_match in net/core/fib_rules.c). */
function appliesTo(rule: Rule, { source, destination, outer }: Flow, uplink: Uplink): Answer {
  const { inputName, outputName, mark = 0, markMask = 0, l3mdev, ipProtocol } = rule;
  const hasMore = [rule.users, rule.sourcePorts, rule.destinationPorts, rule.dscp].some((each) => each !== undefined);
  const answer = both(
    covers(rule.src, rule.srcLength, source),
    covers(rule.dst, rule.dstLength, destination),
    answerOf((mark & markMask) === 0),
    // The uplink belongs to no VRF, and containers' devices to none whose packets are taken.
    answerOf(!l3mdev),
    // The kernel is asked by the fast path for a way by the uplink, and by a socket for any.
    outputName === undefined ? 'yes' : outer && outputName === uplink.name ? 'maybe' : 'no',
    inputName === undefined ? 'yes' : outer ? answerOf(inputName === LOOPBACK_NAME) : 'maybe',
    !ipProtocol || !outer ? 'yes' : answerOf(ipProtocol === outer.protocol),
    rule.tos !== 0 || hasMore || (ipProtocol && !outer) ? 'maybe' : 'yes',
  );
  return rule.flags & FIB_RULE_INVERT ? not(answer) : answer;
}

function covers(bytes: Uint8Array | undefined, length: number, packets: Prefix): Answer {
  const prefix: Prefix = { width: 32, bits: addressOf(bytes)?.bits ?? 0n, length };
  if (!overlaps(prefix, packets)) return 'no';
  return prefix.length <= packets.length && contains(prefix, packets) ? 'yes' : 'maybe';
}

/** Whether no later rule is asked for these packets, to which this one applies. */
function decides(rule: Rule, { destination, outer }: Flow): boolean {
  const isOurs = rule.protocol === CATCH_ALL_PROTOCOL;
  if (isOurs && rule.action === FR_ACT_UNREACHABLE) return true;
  if (!outer || rule.action !== FR_ACT_TO_TBL || tableOf(rule) !== RT_TABLE_MAIN) return false;
  const { suppressPrefixLength = NONE, suppressGroup = NONE } = rule;
  const shortest = suppressPrefixLength === NONE ? 0 : suppressPrefixLength + 1;
  return suppressGroup === NONE && coverOf(destination, outer.routes) >= shortest;
}

function tableOf({ anyTable, table }: Rule): number {
  return anyTable ?? table;
}

function wordsOf({ priority = 0 }: Rule, { destination }: Flow): string {
  return `the rule of policy routing with priority ${priority} may lead packets to ${formatPrefix(destination)} elsewhere`;
}

/** Rules of policy routing. Ours are known by their protocol number. */
import { addressBytes } from '../../linux/netlink/ipv4.ts';
import { NLM_F_CREATE, NLM_F_EXCL, request } from '../../linux/netlink/message.ts';
import { RT_TABLE_MAIN } from '../../linux/netlink/route.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import {
  FR_ACT_TO_TBL,
  FR_ACT_UNREACHABLE,
  RTM_DELRULE,
  RTM_NEWRULE,
  type RuleRequest,
  rule,
} from '../../linux/netlink/rule.ts';
import { type Prefix, parsePrefix } from '../../mesh/address.ts';
import { CATCH_ALL_PROTOCOL, type RuleThing } from '../state.ts';
import type { Kind } from './kind.ts';

const GONE = ['ENOENT'];
const UNKNOWN = ['EOPNOTSUPP', 'EAFNOSUPPORT'];

export const ruleKind: Kind<RuleThing> = {
  ensure(wanted, context) {
    const what = `rule ${ruleText(wanted)}`;
    context.note(wanted);
    const make = request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, what, rule, bodyOf(wanted));
    const [error] = context.netlink.tryAll([make]);
    if (!error) return `${what} is missing`;
    // A kernel without policy routing (CONFIG_IP_MULTIPLE_TABLES): the catch-all's route has to do.
    if (UNKNOWN.includes(error.code)) context.forget(wanted);
    else if (error.code !== 'EEXIST') throw error;
    return undefined;
  },

  undo(wanted, { netlink }) {
    const [error] = netlink.tryAll([request(RTM_DELRULE, 0, `rule ${ruleText(wanted)}`, rule, bodyOf(wanted))]);
    if (error && !GONE.includes(error.code)) throw error;
    return error === undefined;
  },

  commands: (wanted) => [`ip rule add ${ruleText(wanted)}`],
  describe: (wanted) => `rule ${ruleText(wanted)}`,
};

function bodyOf({ to, priority, action }: RuleThing): RuleRequest {
  const prefix = parsePrefix(to) as Prefix;
  const isLookup = action === 'main';
  return {
    ...{ family: AF_INET, dstLength: prefix.length, dst: addressBytes(prefix), priority, protocol: CATCH_ALL_PROTOCOL },
    action: isLookup ? FR_ACT_TO_TBL : FR_ACT_UNREACHABLE,
    // Routes shorter than the overlay prefix, such as the default route, do not count.
    ...(isLookup && { table: RT_TABLE_MAIN, suppressPrefixLength: prefix.length - 1 }),
  };
}

function ruleText({ to, priority, action }: RuleThing): string {
  const length = Number(to.split('/')[1]) - 1;
  const then = action === 'main' ? `lookup main suppress_prefixlength ${length}` : 'unreachable';
  return `to ${to} priority ${priority} ${then} protocol ${CATCH_ALL_PROTOCOL}`;
}

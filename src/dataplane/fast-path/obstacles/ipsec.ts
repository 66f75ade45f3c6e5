/**
 * Policies of IPsec that packets of the fast path would go past. The kernel asks them about outer packets of this VM, and about
 * containers' packets that it forwards.
 */
import { errorCode } from '../../../errors.ts';
import { type Request, request } from '../../../linux/netlink/message.ts';
import { Monitor } from '../../../linux/netlink/monitor.ts';
import { Netlink } from '../../../linux/netlink/netlink.ts';
import { AF_INET } from '../../../linux/netlink/rtnetlink.ts';
import { NETLINK_XFRM, openTransport } from '../../../linux/netlink/transport.ts';
import {
  type Policy,
  policy,
  policyDefault,
  policyId,
  XFRM_MSG_GETDEFAULT,
  XFRM_MSG_GETPOLICY,
  XFRM_POLICY_ALLOW,
  XFRM_USERPOLICY_BLOCK,
  XFRMNLGRP_POLICY,
} from '../../../linux/netlink/xfrm.ts';
import { loadedModules } from '../../../linux/proc.ts';
import { formatPrefix, ipv4, overlaps, type Prefix } from '../../../mesh/address.ts';
import { Pace } from './pace.ts';

/** Packets from one prefix to another, in both directions; `protocol` where it is known. */
export interface Pair {
  between: readonly [Prefix, Prefix];
  protocol?: number;
}

/** What a kernel without IPsec answers. */
const WITHOUT = ['EPROTONOSUPPORT', 'EAFNOSUPPORT'];
/** What a kernel answers that has no such request. */
const UNKNOWN = ['EINVAL', 'EOPNOTSUPP'];
/** The module by which policies are made. */
const MODULE = /^xfrm_user /m;
const AF_UNSPEC = 0;

const GET_POLICIES: Request = request(XFRM_MSG_GETPOLICY, 0, 'policies of IPsec', policyId, {});
const GET_DEFAULT: Request = request(XFRM_MSG_GETDEFAULT, 0, 'default policy of IPsec', policyDefault, {
  ...{ in: 0, forward: 0, out: 0 },
});

export class IpsecPolicies {
  readonly #onChange: (after?: number) => void;
  readonly #pace = new Pace();
  #monitor: Monitor | undefined;
  /** Whether nothing was heard since the last look at all policies. */
  #isKnown = false;
  #found: string | undefined;
  #asked = '';
  #isWithout = false;

  /** `onChange` is called as soon as a policy has come or gone, or with the ms after which it is time to look. */
  constructor(onChange: (after?: number) => void) {
    this.#onChange = onChange;
  }

  /** The first policy that is about such packets, in words. */
  look(pairs: readonly Pair[]): string | undefined {
    try {
      if (this.#isWithout && !MODULE.test(loadedModules())) return undefined;
      this.#isWithout = false;
      this.#listen();
      const asked = JSON.stringify(pairs, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
      if (this.#monitor && this.#isKnown && asked === this.#asked) return this.#found;
      const looked = this.#pace.look(() => firstOf(pairs));
      if (!looked) {
        this.#onChange(this.#pace.wait);
        return this.#found ?? 'policies of IPsec keep changing';
      }
      this.#found = looked.found;
      this.#asked = asked;
      this.#isKnown = true;
      return looked.found;
    } catch (error) {
      this.#isWithout = WITHOUT.includes(errorCode(error) ?? '');
      return this.#isWithout ? undefined : `policies of IPsec cannot be read: ${(error as Error).message}`;
    }
  }

  close(): void {
    this.#monitor?.close();
    this.#monitor = undefined;
  }

  /** Before the policies are read, so that no change is missed. */
  #listen(): void {
    if (this.#monitor) return;
    this.#isKnown = false;
    const heard = () => {
      this.#isKnown = false;
      this.#onChange();
    };
    this.#monitor = new Monitor(openTransport(NETLINK_XFRM, [XFRMNLGRP_POLICY]), {
      onMessages: heard,
      onOverrun: heard,
      onFailure: () => {
        this.#monitor = undefined;
        heard();
      },
    });
  }
}

function firstOf(pairs: readonly Pair[]): string | undefined {
  // A socket of its own: what is not read goes with it.
  const netlink = Netlink.open(NETLINK_XFRM);
  try {
    if (blocks(netlink)) return 'IPsec drops packets that no policy is about';
    for (const part of netlink.parts(GET_POLICIES, policy))
      for (const each of part) if (pairs.some((pair) => isAbout(each, pair))) return wordsOf(each);
    return undefined;
  } finally {
    netlink.close();
  }
}

function blocks(netlink: Netlink): boolean {
  try {
    return Object.values(netlink.get(GET_DEFAULT, policyDefault)).includes(XFRM_USERPOLICY_BLOCK);
  } catch (error) {
    if (UNKNOWN.includes(errorCode(error) ?? '')) return false;
    throw error;
  }
}

/** Whether a policy may do something to such packets, whatever others come before it. Packets have no mark, and are not an xfrm device's. */
function isAbout(found: Policy, { between: [a, b], protocol }: Pair): boolean {
  const { family, action, templates, mark, interfaceId } = found;
  if (family !== AF_INET && family !== AF_UNSPEC) return false;
  const letsPass = action === XFRM_POLICY_ALLOW && templates === undefined;
  if (letsPass || interfaceId || (mark && mark.value !== 0)) return false;
  if (protocol !== undefined && found.protocol !== 0 && found.protocol !== protocol) return false;
  const { source, destination } = prefixesOf(found);
  return (overlaps(source, a) && overlaps(destination, b)) || (overlaps(source, b) && overlaps(destination, a));
}

function prefixesOf({ source, sourceLength, destination, destinationLength }: Policy) {
  return {
    source: { ...ipv4(source), length: sourceLength },
    destination: { ...ipv4(destination), length: destinationLength },
  };
}

function wordsOf(found: Policy): string {
  const { source, destination } = prefixesOf(found);
  return `a policy of IPsec is about packets from ${formatPrefix(source)} to ${formatPrefix(destination)}`;
}

/**
 * What stays when a daemon ends, until `inlay down`: the catch-all, which is an unreachable route to the overlay and two rules of
 * policy routing; and the fast path.
 */
import { expect } from 'vitest';

/** As `ip -j route` and `ip -j rule` tell them, but for the overlay. */
const ROUTE = { type: 'unreachable', protocol: '75', metric: 1 };
const RULES = [
  { priority: 32700, table: 'main', protocol: '75' },
  { priority: 32701, action: 'unreachable', protocol: '75' },
];

/** What `down` says that it removes: of the overlay 10.0.0.0/8, the route and all, in this order; and the barrier, which stays as long. */
export const CATCH_ALL_ROUTE = 'route unreachable 10.0.0.0/8 proto 75 metric 1';
export const CATCH_ALL_REMOVED = [
  'table ip inlay-inlay0 of nftables',
  'rule to 10.0.0.0/8 priority 32701 unreachable protocol 75',
  'rule to 10.0.0.0/8 priority 32700 lookup main suppress_prefixlength 7 protocol 75',
  CATCH_ALL_ROUTE,
]
  .map((what) => `removed  ${what}\n`)
  .join('');

/** The same of the fast path, where eth0 leads to other VMs and there was no container. */
export const FAST_PATH_REMOVED = 'removed  program at the ingress of eth0\nremoved  clsact of eth0\n';

type Shown = Record<string, unknown>;

/** Routes as `ip -j route` tells them, but for that of `overlay`, which has to be among them once. */
export function withoutCatchAllRoute(routes: readonly unknown[], overlay = '10.0.0.0/8'): unknown[] {
  return without(routes, { ...ROUTE, dst: overlay });
}

/** The same for `ip -j rule`. */
export function withoutCatchAllRules(rules: readonly unknown[], overlay = '10.0.0.0/8'): unknown[] {
  const [dst, length] = overlay.split('/');
  return RULES.reduce<readonly unknown[]>(
    (rest, rule) => without(rest, { ...rule, dst, dstlen: Number(length) }),
    rules,
  ) as unknown[];
}

function without(all: readonly unknown[], fields: Shown): unknown[] {
  const isIt = (shown: unknown) => Object.entries(fields).every(([name, value]) => (shown as Shown)[name] === value);
  expect(all.filter(isIt)).toHaveLength(1);
  return all.filter((each) => !isIt(each));
}

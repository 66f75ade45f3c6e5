/** What is said of containers' devices and of the neighbour table, and which routes lead to which devices. */
import os from 'node:os';
import { describe, expect, test } from 'vitest';
import { NetlinkError } from '../../src/linux/netlink/message.ts';
import type { Netlink } from '../../src/linux/netlink/netlink.ts';
import type { GuardedDevice } from '../../src/machine/guard.ts';
import { GuardedRoutes } from '../../src/machine/guarded-routes.ts';
import { containerRemarks } from '../../src/machine/remarks/containers.ts';
import { type Counted, NeighbourTableLookOut } from '../../src/machine/remarks/neighbour-table.ts';
import type { ContainerRoute } from '../../src/machine/table.ts';
import { guardKind } from '../../src/machine/things/guard.ts';
import type { Context } from '../../src/machine/things/kind.ts';

const SAFE = { forwarding: 1, rp_filter: 1, accept_redirects: 0, send_redirects: 0, route_localnet: 0 };

interface Traits extends Partial<Omit<GuardedDevice, 'found'>> {
  name?: string;
  kind?: string | undefined;
  ipv4?: Partial<typeof SAFE>;
}

function deviceOf({ name = 'veth1', kind = 'veth', ipv4 = {}, ...rest }: Traits = {}): GuardedDevice {
  const found = {
    index: 7,
    name,
    kind,
    alias: undefined,
    group: 0,
    isUp: true,
    ipv4: { ...SAFE, ...ipv4 },
    ipv6: undefined,
  };
  return { found, uses: { isNumbered: false, hasIpv6: false }, isUplink: false, ...rest };
}

const NUMBERED = { uses: { isNumbered: true, hasIpv6: false } };

describe('what was changed at a device is taken back', () => {
  const { ENODEV, EPERM } = os.constants.errno;
  /** `errno` is what the kernel answers to the change. */
  function undo(errno: number): boolean | undefined {
    const netlink = {
      get: () => ({ name: 'veth1', afSpec: { inet: { conf: SAFE } } }),
      dump: () => [],
      tryAll: () => [new NetlinkError(errno, 'settings of link 7')],
    };
    const context = { netlink: netlink as unknown as Netlink } as Context;
    return guardKind.undo?.({ kind: 'guard', device: 'veth1', index: 7 }, context, 'ipv4/rp_filter=0');
  }

  test('nothing, where the device goes at that moment', () => {
    expect(undo(ENODEV)).toBe(false);
  });
  test('or it is an error, where the device stays', () => {
    expect(() => undo(EPERM)).toThrow(/^EPERM/);
  });
});

describe('remarks about containers’ devices', () => {
  const none = { rpFilter: 0, routeLocalnet: 0, acceptLocal: 0 };
  const keys = (traits: Traits, forAll: Partial<typeof none> = {}) =>
    containerRemarks([deviceOf(), deviceOf(traits)], { ...none, ...forAll }).map(({ key }) => key);

  test.each<[string, Traits, Partial<typeof none>, string[]]>([
    ['safe', {}, {}, []],
    ['unnumbered, while all are loose: strict nevertheless', {}, { rpFilter: 2 }, []],
    ['numbered and strict', NUMBERED, {}, []],
    ['numbered, and strict for all', { ...NUMBERED, ipv4: { rp_filter: 0 } }, { rpFilter: 1 }, []],
    ['numbered and not filtered', { ...NUMBERED, ipv4: { rp_filter: 0 } }, {}, ['lax']],
    ['numbered and loose', { ...NUMBERED, ipv4: { rp_filter: 2 } }, { rpFilter: 1 }, ['lax']],
    ['numbered, while all are loose', NUMBERED, { rpFilter: 2 }, ['lax']],
    ['accept_local without effect', NUMBERED, { acceptLocal: 1 }, []],
    ['accept_local', { ...NUMBERED, ipv4: { rp_filter: 0 } }, { acceptLocal: 1 }, ['lax', 'accept-local']],
    ['route_localnet', { ipv4: { route_localnet: 1 } }, {}, ['route-localnet']],
    ['route_localnet of all', {}, { routeLocalnet: 1 }, ['route-localnet']],
    ['a bridge', { kind: 'bridge' }, {}, ['bridge']],
    ['IPv6', { uses: { isNumbered: false, hasIpv6: true } }, {}, ['ipv6']],
    ['an uplink is nothing else', { ...NUMBERED, isUplink: true, ipv4: { rp_filter: 0 } }, {}, ['uplink']],
    ['what cannot be set', { trouble: { what: 'it is read-only', hint: 'let it be writable' } }, {}, ['guard']],
  ])('%s', (_, traits, forAll, expected) => {
    expect(keys(traits, forAll)).toEqual(expected);
  });

  test('name three devices of many, and what to type', () => {
    const devices = ['a', 'b.1', 'c', 'd'].map((name) => deviceOf({ ...NUMBERED, name, ipv4: { rp_filter: 0 } }));
    expect(containerRemarks(devices, { ...none, rpFilter: 2 })).toEqual([
      {
        key: 'lax',
        what: expect.stringContaining('not strict on 4 devices, such as a, b.1, c, which'),
        hint: ['all', 'a', 'b/1', 'c'].map((name) => `sysctl -w net.ipv4.conf.${name}.rp_filter=1`).join('; '),
      },
    ]);
  });
});

describe('the neighbour table', () => {
  function lookOut() {
    const stats = { forcedGcRuns: 5, tableFulls: 5 };
    const read = (): Counted => ({ thresh2: 512, thresh3: 1024, stats: { ...stats } });
    const found = new NeighbourTableLookOut(read);
    return { stats, keys: (now: number) => found.look(now).map(({ key }) => key) };
  }

  test('is not full because it was once, before', () => {
    const { keys } = lookOut();
    expect([keys(0), keys(5000)]).toEqual([[], []]);
  });

  test('is near full for a minute after entries were thrown out, and full after one had no room', () => {
    const { stats, keys } = lookOut();
    keys(0);
    stats.forcedGcRuns++;
    expect([keys(5000), keys(65_000), keys(65_001)]).toEqual([['neighbours near full'], ['neighbours near full'], []]);
    stats.forcedGcRuns++;
    stats.tableFulls++;
    expect([keys(70_000), keys(130_000), keys(130_001)]).toEqual([['neighbours full'], ['neighbours full'], []]);
  });

  test('of which the kernel tells nothing is no remark', () => {
    expect(new NeighbourTableLookOut(() => undefined).look(0)).toEqual([]);
  });
});

describe('routes of containers', () => {
  const route = (link: number, more: Partial<ContainerRoute> = {}): ContainerRoute => {
    return { dst: Uint8Array.of(10, 16, 32, 91), dstLength: 32, link, hasGone: false, ...more };
  };

  test('a device is left with its last route, and by one that leads to another instead', () => {
    const routes = new GuardedRoutes();
    expect([routes.take('x', route(7)), routes.take('y', route(7)), routes.take('x', route(7))]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(routes.take('x', route(7, { hasGone: true }))).toBeUndefined();
    expect(routes.has(7)).toBe(true);
    expect(routes.take('y', route(8))).toBe(7);
    expect([routes.has(7), routes.has(8)]).toEqual([false, true]);
    // That the route to the first is gone may be told late.
    expect(routes.take('y', route(7, { hasGone: true }))).toBeUndefined();
    expect(routes.has(8)).toBe(true);
    routes.drop(8);
    expect(routes.has(8)).toBe(false);
  });

  test('containers are waited for in turn until their neighbour entries are kept, and prefixes are not', () => {
    const routes = new GuardedRoutes();
    for (const [i, name] of ['a', 'b', 'c'].entries()) routes.take(name, route(i + 1));
    routes.take('d', route(4, { dstLength: 28 }));
    const names = (count: number) => routes.waiting(count).map((container) => container.route);
    expect([names(2), names(2), names(9)]).toEqual([
      ['a', 'b'],
      ['c', 'a'],
      ['b', 'c', 'a'],
    ]);
    const [first] = routes.waiting(1);
    if (first) routes.settle(first, true);
    expect(names(9)).toEqual(['c', 'a']);
    expect(routes.settled(2).map((container) => container.route)).toEqual(['b']);
  });
});

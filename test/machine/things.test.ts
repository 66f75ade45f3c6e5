/** Each kind of thing: brought about once, right the second time, never over what others have, and taken back only where it is ours. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { InlayError } from '../../src/errors.ts';
import { address, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import { IFF_NOARP, IFF_UP, link, RTM_DELLINK, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { NetlinkError, NLM_F_CREATE, NLM_F_REPLACE, request } from '../../src/linux/netlink/message.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RT_TABLE_MAIN,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../../src/linux/netlink/route.ts';
import { CATCH_ALL_PROTOCOL, keyOf, ROUTE_PROTOCOL, type RouteThing, type Thing } from '../../src/machine/state.ts';
import { MainTable } from '../../src/machine/table.ts';
import type { Context } from '../../src/machine/things/kind.ts';
import { kindOf } from '../../src/machine/things/kinds.ts';
import { type Prefix, parsePrefix } from '../../src/mesh/address.ts';
import { missing, skip } from '../net/require.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';
import { toJson } from '../netlink/json.ts';

const RTPROT_STATIC = 4;
const MAC = Uint8Array.of(2, 0, 192, 168, 16, 32);
const bytes = (...all: number[]) => Uint8Array.from(all);
const vxlan: Thing = {
  kind: 'link',
  device: 'inlay0',
  info: { kind: 'vxlan', data: { id: 1, local: bytes(192, 168, 16, 32), learning: 0, port: 4789, ttl: 64 } },
  address: MAC,
};
const gre: Thing = {
  kind: 'link',
  device: 'inlay0',
  info: { kind: 'gre', data: { local: bytes(192, 168, 16, 32), ttl: 64 } },
};
const settings: Thing = {
  ...{ kind: 'link-settings', device: 'inlay0', alias: 'inlay 192.168.16.32 inlay0' },
  ...{ mtu: 1400, txQueueLength: 1000 },
};
const addresses: Thing = { kind: 'addresses', device: 'inlay0', addresses: ['10.16.32.1'] };
const up: Thing = { kind: 'link-up', device: 'inlay0' };
const overlay: RouteThing = { kind: 'route', to: '10.0.0.0/8', device: 'inlay0', metric: 0, protocol: ROUTE_PROTOCOL };
const catchAll: RouteThing = { kind: 'route', to: '10.0.0.0/8', metric: 1, protocol: CATCH_ALL_PROTOCOL };
const slice: RouteThing = { kind: 'route', to: '10.16.32.0/24', metric: 0xffffffff, protocol: ROUTE_PROTOCOL };
const rule: Thing = { kind: 'rule', to: '10.0.0.0/8', priority: 32700, action: 'main' };
const lastRule: Thing = { kind: 'rule', to: '10.0.0.0/8', priority: 32701, action: 'unreachable' };
const sysctl: Thing = { kind: 'sysctl', name: 'net/ipv4/conf/inlay0/forwarding', value: '1', device: 'inlay0' };
const parameters: Thing = {
  kind: 'neighbour-parameters',
  device: 'inlay0',
  parameters: { app_solicit: 3, mcast_solicit: 0 },
};

const all: Record<Thing['kind'], Thing> = {
  link: vxlan,
  'link-settings': settings,
  addresses,
  'neighbour-parameters': parameters,
  'link-up': up,
  route: overlay,
  rule,
  sysctl,
  fou: { kind: 'fou', port: 6635 },
  filter: { kind: 'filter', device: 'inlay0', place: 'ingress', program: 3 },
  clsact: { kind: 'clsact', device: 'eth0' },
  'container-filters': { kind: 'container-filters' },
  barrier: { kind: 'barrier', table: 'inlay-inlay0' },
  guard: { kind: 'guard', device: 'veth91', index: 7 },
  neighbour: { kind: 'neighbour', device: 'inlay0' },
  directory: { kind: 'directory', path: '/run/inlay' },
};

describe('keys', () => {
  test('are each thing’s own', () => {
    const things: Thing[] = [
      ...Object.values(all),
      ...[catchAll, slice, lastRule, { ...overlay, to: '10.0.0.0/9' }],
      { kind: 'filter', device: 'inlay0', place: 'egress' },
      { kind: 'filter', device: 'eth0', place: 'ingress' },
      { ...sysctl, name: 'net/ipv4/conf/inlay0/rp_filter' } as Thing,
      { kind: 'fou', port: 6636 },
      { kind: 'directory', path: '/run/inlay2' },
      ...Object.values(all).flatMap((thing): Thing[] =>
        'device' in thing && !['route', 'sysctl', 'guard'].includes(thing.kind) ? [{ ...thing, device: 'other' }] : [],
      ),
    ];
    expect(new Set(things.map(keyOf)).size).toBe(things.length);
  });

  test('are the same for two states of one thing', () => {
    const pairs: [Thing, Thing][] = [
      [vxlan, gre],
      [settings, { ...settings, mtu: 1300 }],
      [addresses, { ...addresses, addresses: [] }],
      [overlay, { ...overlay, device: 'inlay1', source: '10.16.32.1', protocol: 4 }],
      [sysctl, { ...sysctl, value: '0', others: true }],
      [all.filter, { kind: 'filter', device: 'inlay0', place: 'ingress' }],
    ];
    for (const [one, other] of pairs) expect(keyOf(one)).toBe(keyOf(other));
  });
});

describe('words', () => {
  test.each(Object.entries(all))('%s: what it is, in one line', (_, thing) => {
    const words = kindOf(thing).describe(thing);
    expect(words).toMatch(/^[a-z]+( \S+)+$/i);
    expect(words).not.toMatch(/undefined|object|NaN/);
  });

  test('two things have no words in common', () => {
    const things = [...Object.values(all), catchAll, slice];
    expect(new Set(things.map((thing) => kindOf(thing).describe(thing))).size).toBe(things.length);
  });

  const commands: Record<Thing['kind'], string[]> = {
    link: [
      'ip link add name inlay0 address 02:00:c0:a8:10:20 type vxlan id 1 local 192.168.16.32 dstport 4789 nolearning ttl 64',
    ],
    'link-settings': [
      'ip link set dev inlay0 addrgenmode none',
      "ip link set dev inlay0 alias 'inlay 192.168.16.32 inlay0' mtu 1400 txqueuelen 1000",
    ],
    addresses: ['ip address add 10.16.32.1/32 dev inlay0'],
    'neighbour-parameters': [
      'sysctl -qw net/ipv4/neigh/inlay0/app_solicit=3',
      'sysctl -qw net/ipv4/neigh/inlay0/mcast_solicit=0',
    ],
    'link-up': ['ip link set dev inlay0 up'],
    route: ['ip route add 10.0.0.0/8 dev inlay0 proto 73'],
    rule: ['ip rule add to 10.0.0.0/8 priority 32700 lookup main suppress_prefixlength 7 protocol 75'],
    sysctl: ['sysctl -qw net/ipv4/conf/inlay0/forwarding=1'],
    fou: ['ip fou add port 6635 ipproto 47'],
    // A remark of the data plane tells of programs, and the discipline goes with them.
    filter: [],
    clsact: [],
    'container-filters': [],
    // Without its facts there is nothing to be said: test/machine/barrier.test.ts has the commands.
    barrier: [],
    guard: [
      ...['rp_filter=1', 'accept_redirects=0', 'send_redirects=0'].map(
        (each) => `sysctl -qw net/ipv4/conf/veth91/${each}`,
      ),
      'sysctl -qw net/ipv6/conf/veth91/disable_ipv6=1',
    ],
    neighbour: ['ip neighbour replace 0.0.0.0 dev inlay0 nud permanent'],
    directory: ['mkdir -p /run/inlay'],
  };
  test.each(Object.entries(all))('%s: the commands that do the same', (kind, thing) => {
    expect(kindOf(thing).commands(thing)).toEqual(commands[kind as Thing['kind']]);
  });

  test.each<[string, Thing, string]>([
    ['an unreachable route', catchAll, 'ip route add unreachable 10.0.0.0/8 proto 75 metric 1'],
    ['the last metric', slice, 'ip route add unreachable 10.16.32.0/24 proto 73 metric 4294967295'],
    ['a source', { ...overlay, source: '10.16.32.1' }, 'ip route add 10.0.0.0/8 dev inlay0 src 10.16.32.1 proto 73'],
    [
      'a TUN device',
      { kind: 'link', device: 'inlay0', info: { kind: 'tun', data: { vnetHdr: 1, multiQueue: 1 } } as never },
      'ip tuntap add dev inlay0 mode tun vnet_hdr multi_queue',
    ],
    [
      'a device of others',
      { kind: 'link-up', device: 'gre0', others: true },
      'ip link set dev gre0 up 2>/dev/null || true',
    ],
    ['a sysctl of others', { ...sysctl, others: true } as Thing, 'sysctl -e -qw net/ipv4/conf/inlay0/forwarding=1'],
  ])('%s', (_, thing, command) => {
    expect(kindOf(thing).commands(thing)).toEqual([command]);
  });
});

describe('in a kernel in memory', () => {
  function machine() {
    const kernel = new FakeKernel();
    const netlink = new Netlink(kernel.connect());
    const others = new Netlink(kernel.connect());
    const notes = new Map<string, Thing>();
    const context: Context = {
      ...{ netlink, table: new MainTable(netlink), links: new Map(), barrier: undefined as never },
      note: (thing) => void (notes.has(keyOf(thing)) || notes.set(keyOf(thing), thing)),
      forget: (thing) => void notes.delete(keyOf(thing)),
      before: () => undefined,
      isNoted: (thing) => notes.has(keyOf(thing)),
    };
    const load = () =>
      context.table.load([parsePrefix('10.0.0.0/8') as Prefix], [parsePrefix('10.16.32.0/24') as Prefix]);
    const ensure = (thing: Thing) => kindOf(thing).ensure(thing, context);
    const undo = (thing: Thing, before?: string) => kindOf(thing).undo?.(thing, context, before);
    const addRoute = (to: string, body: Partial<RouteRequest>) => {
      const { length, ...dst } = parsePrefix(to) as Prefix;
      const four = bytes(...[24n, 16n, 8n, 0n].map((shift) => Number((dst.bits >> shift) & 255n)));
      const given = {
        family: 2,
        dst: four,
        dstLength: length,
        table: RT_TABLE_MAIN,
        type: RTN_UNICAST,
        protocol: RTPROT_STATIC,
        ...body,
      };
      others.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, to, route, given as RouteRequest));
      load();
    };
    const named = (name: string) => kernel.links.find((each) => each.name === name);
    /** A device of ours, up. */
    const withDevice = () => {
      for (const thing of [vxlan, settings, up]) ensure(thing);
    };
    load();
    return { kernel, netlink, others, notes, context, ensure, undo, addRoute, named, withDevice };
  }

  const kinds: Thing[] = [vxlan, settings, addresses, up, overlay, catchAll, slice];
  test('what is missing is made, and nothing is wrong the second time', () => {
    const { ensure, kernel } = machine();
    const first = kinds.map(ensure);
    expect(first.filter((wrong) => wrong === undefined || /undefined|NaN/.test(wrong))).toEqual([]);
    const before = structuredClone([kernel.links, kernel.addresses, kernel.routes]);
    expect(kinds.map(ensure)).toEqual(kinds.map(() => undefined));
    expect([kernel.links, kernel.addresses, kernel.routes]).toEqual(before);
  });

  test('what is taken back is gone, and is not there to be taken back the second time', () => {
    const { ensure, undo, kernel } = machine();
    for (const thing of kinds) ensure(thing);
    const undone = [slice, catchAll, overlay, vxlan];
    expect(undone.map((thing) => undo(thing))).toEqual([true, true, true, true]);
    expect([kernel.routes, kernel.addresses, kernel.links.map(({ name }) => name)]).toEqual([[], [], ['lo']]);
    expect(undone.map((thing) => undo(thing))).toEqual([false, false, false, false]);
  });

  describe('devices', () => {
    test.each([
      { name: 'of another kind', made: { name: 'inlay0' } },
      { name: 'of the same kind, without our alias', made: { name: 'inlay0', info: vxlan.info } },
      { name: 'with an alias of others', made: { name: 'inlay0', info: vxlan.info, alias: 'inlayed' } },
      { name: 'of another kind, with our alias', made: { name: 'inlay0', alias: 'inlay 192.168.16.32 inlay0' } },
    ])('one of others stays: $name', ({ made }) => {
      const { kernel, ensure, undo, notes } = machine();
      kernel.addLink(made);
      const before = structuredClone(kernel.links);
      expect(() => ensure(vxlan)).toThrow(InlayError);
      expect(() => ensure(vxlan)).toThrow(/^device inlay0 exists already/);
      expect([...notes]).toEqual([]);
      expect(undo(vxlan)).toBe(false);
      expect(kernel.links).toEqual(before);
    });

    test('one that others make at the same moment stays, and nothing is noted', () => {
      const { kernel, ensure, notes } = machine();
      kernel.failNext(RTM_NEWLINK, 17); // EEXIST
      expect(() => ensure(vxlan)).toThrow();
      expect([...notes]).toEqual([]);
    });

    test('a kind that the kernel does not have: InlayError with a hint, and nothing is noted', () => {
      const { kernel, ensure, notes } = machine();
      kernel.failNext(RTM_NEWLINK, 95, 'Unknown device type'); // EOPNOTSUPP
      expect(() => ensure(vxlan)).toThrow(expect.objectContaining({ hint: expect.stringContaining('modprobe vxlan') }));
      expect([...notes]).toEqual([]);
    });

    test('one of ours without an alias yet is known by the note, if it is as we make it', () => {
      const { kernel, ensure, context, undo } = machine();
      context.note(vxlan);
      const index = kernel.addLink({ name: 'inlay0', info: vxlan.info, address: MAC });
      expect(ensure(vxlan)).toBeUndefined();
      expect(context.links.get('inlay0')).toBe(index);
      expect(undo(vxlan)).toBe(true);
    });

    test('one of an earlier daemon, of another kind, is made anew', () => {
      const { kernel, ensure, named } = machine();
      kernel.addLink({ name: 'inlay0', info: gre.info, alias: 'inlay 192.168.16.32 inlay0' });
      expect(ensure(vxlan)).toBe('device inlay0 has other settings');
      expect(named('inlay0')?.info?.kind).toBe('vxlan');
    });

    test('one that was renamed gets its name back', () => {
      const { ensure, others, context, named, withDevice } = machine();
      withDevice();
      const index = context.links.get('inlay0') ?? 0;
      others.do(request(RTM_NEWLINK, 0, 'x', link, { index, name: 'other' }));
      expect(ensure(vxlan)).toBe('device inlay0 is called other');
      expect(named('inlay0')?.index).toBe(index);
      expect(ensure(up)).toBe('device inlay0 is down');
    });

    test('one that was renamed stays so where others have its name', () => {
      const { ensure, others, context, named, withDevice, kernel } = machine();
      withDevice();
      others.do(request(RTM_NEWLINK, 0, 'x', link, { index: context.links.get('inlay0') ?? 0, name: 'other' }));
      kernel.addLink({ name: 'inlay0' });
      expect(() => ensure(vxlan)).toThrow(InlayError);
      expect([named('other')?.info?.kind, named('inlay0')?.info]).toEqual(['vxlan', undefined]);
    });

    test('a TUN device is its engine’s: it is not made, and one of others stays', () => {
      const tun: Thing = { kind: 'link', device: 'inlay0', info: { kind: 'tun' } };
      const { kernel, ensure, undo, notes } = machine();
      expect(() => ensure(tun)).toThrow('device inlay0 has gone');
      kernel.addLink({ name: 'inlay0', info: { kind: 'tun' } });
      expect(() => ensure(tun)).toThrow(/exists already/);
      expect(undo(tun)).toBe(false);
      expect([...notes]).toEqual([]);
    });
  });

  test('settings: what differs is put right, and said', () => {
    const { ensure, others, context, named, withDevice } = machine();
    withDevice();
    others.do(
      request(RTM_NEWLINK, 0, 'x', link, { index: context.links.get('inlay0') ?? 0, mtu: 1300, txQueueLength: 5 }),
    );
    expect(ensure(settings)).toBe('device inlay0 has mtu 1300, not 1400 and txQueueLength 5, not 1000');
    expect(named('inlay0')).toMatchObject({ mtu: 1400, txQueueLength: 1000, alias: 'inlay 192.168.16.32 inlay0' });
  });

  test('settings: a device that never asks for neighbours is made to', () => {
    const { ensure, context, named, kernel } = machine();
    context.note(gre);
    kernel.addLink({ name: 'inlay0', info: gre.info });
    ensure(gre);
    expect((named('inlay0')?.flags ?? 0) & IFF_NOARP).not.toBe(0);
    expect(ensure({ ...settings, arp: true })).toContain('arp off');
    expect((named('inlay0')?.flags ?? 0) & (IFF_NOARP | IFF_UP)).toBe(IFF_UP);
    expect(ensure({ ...settings, arp: true })).toBeUndefined();
  });

  test('addresses: missing ones are given, and those that are not to be there are taken', () => {
    const { ensure, kernel, withDevice } = machine();
    withDevice();
    ensure({ ...addresses, addresses: ['10.16.33.1', '240.0.0.1'] });
    expect(ensure({ ...addresses, addresses: ['240.0.0.1', '10.16.32.1'] })).toBe(
      'inlay0: address 10.16.32.1 is missing, address 10.16.33.1 is not ours',
    );
    expect(kernel.addresses.map(({ local }) => local?.join('.')).toSorted()).toEqual(['10.16.32.1', '240.0.0.1']);
  });

  describe('routes', () => {
    test.each<{ name: string; wanted: RouteThing; made: Partial<RouteRequest> }>([
      { name: 'through another device', wanted: overlay, made: {} },
      { name: 'at the metric of the catch-all', wanted: catchAll, made: { priority: 1 } },
      { name: 'to our containers', wanted: overlay, made: { protocol: 74 } },
    ])('one of others stays, is named, and nothing is noted: $name', ({ wanted, made }) => {
      const { kernel, ensure, undo, notes, addRoute, withDevice } = machine();
      withDevice();
      notes.clear();
      const oif = kernel.addLink({ name: 'eth0' });
      addRoute(wanted.to, { oif, ...made });
      const before = structuredClone(kernel.routes);
      expect(() => ensure(wanted)).toThrow(InlayError);
      expect(() => ensure(wanted)).toThrow(/^a route to 10\.0\.0\.0\/8 exists already: 10\.0\.0\.0\/8 dev eth0 proto/);
      expect([...notes]).toEqual([]);
      expect(undo(wanted)).toBe(false);
      expect(kernel.routes).toEqual(before);
    });

    test('what an earlier process noted stays noted', () => {
      const { kernel, ensure, notes, addRoute, withDevice, context } = machine();
      withDevice();
      context.note(overlay);
      addRoute(overlay.to, { oif: kernel.addLink({ name: 'eth0' }) });
      expect(() => ensure(overlay)).toThrow(InlayError);
      expect(notes.has(keyOf(overlay))).toBe(true);
    });

    test('an unreachable one of others does as well, and is not ours', () => {
      const { kernel, ensure, undo, notes, addRoute } = machine();
      addRoute(catchAll.to, { type: RTN_UNREACHABLE, priority: 1 });
      expect(ensure(catchAll)).toBeUndefined();
      expect([...notes]).toEqual([]);
      expect(undo(catchAll)).toBe(false);
      expect(kernel.routes.length).toBe(1);
    });

    test('an unreachable one with another metric is in nobody’s way', () => {
      const { kernel, ensure, addRoute, withDevice } = machine();
      withDevice();
      addRoute(overlay.to, { type: RTN_UNREACHABLE, priority: 4096 });
      expect([ensure(overlay), ensure(catchAll)]).toEqual([
        'route 10.0.0.0/8 dev inlay0 proto 73 is missing',
        'route unreachable 10.0.0.0/8 proto 75 metric 1 is missing',
      ]);
      expect(kernel.routes.length).toBe(3);
    });

    test('one of ours that is not as it should be is replaced', () => {
      const { kernel, ensure, addRoute, withDevice, context } = machine();
      withDevice();
      const prefsrc = Uint8Array.of(10, 16, 32, 9);
      addRoute(overlay.to, { oif: context.links.get('inlay0'), prefsrc, protocol: ROUTE_PROTOCOL });
      expect(ensure(overlay)).toBe('route 10.0.0.0/8 dev inlay0 proto 73 was 10.0.0.0/8 dev inlay0 proto 73');
      expect(kernel.routes.map(({ oif }) => oif)).toEqual([context.links.get('inlay0')]);
      expect(ensure(overlay)).toBeUndefined();
    });

    test('one of another daemon, to its own device, is in the way', () => {
      const { kernel, ensure, addRoute, withDevice } = machine();
      withDevice();
      addRoute(overlay.to, { oif: kernel.addLink({ name: 'inlay1' }), protocol: ROUTE_PROTOCOL });
      expect(() => ensure(overlay)).toThrow('a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev inlay1 proto 73');
      expect(kernel.routes.length).toBe(1);
    });

    test('one that went with its device is not looked for', () => {
      const { undo, ensure, withDevice, others, context } = machine();
      withDevice();
      ensure(overlay);
      others.do(request(RTM_DELLINK, 0, 'x', link, { index: context.links.get('inlay0') ?? 0 }));
      expect(undo(overlay)).toBe(false);
      context.links.delete('inlay0');
      expect(undo(overlay)).toBe(false);
    });
  });

  describe('a table that changes while it is read', () => {
    test('is read again', () => {
      const { kernel, ensure, withDevice, context } = machine();
      withDevice();
      for (let i = 0; i < 10; i++) kernel.addLink({ name: `eth${i}` });
      ensure({ ...addresses, addresses: Array.from({ length: 10 }, (_, i) => `10.16.32.${i + 1}`) });
      const other = new Netlink(kernel.connect());
      let parts = 0;
      kernel.dumps.onPart = () => {
        if (++parts > 6) return; // Not for ever.
        const body = { family: 2, prefixLength: 32, index: 1, local: bytes(127, 0, 1, parts) };
        other.do(request(RTM_NEWADDR, NLM_F_CREATE, 'x', address, body));
      };
      expect(
        ensure({ ...addresses, addresses: Array.from({ length: 10 }, (_, i) => `10.16.32.${i + 1}`) }),
      ).toBeUndefined();
      expect(parts).toBeGreaterThan(3);
      expect(context.links.size).toBe(1);
    });

    test('is an error that says so where it never stops', () => {
      const { kernel, addRoute, context } = machine();
      for (let i = 0; i < 5; i++) addRoute(`172.16.${i}.0/24`, { type: RTN_UNREACHABLE });
      const other = new Netlink(kernel.connect());
      let i = 0;
      kernel.dumps.onPart = () => {
        const body = {
          family: 2,
          dst: bytes(172, 17, ++i & 255, 0),
          dstLength: 24,
          table: RT_TABLE_MAIN,
          type: RTN_UNREACHABLE,
        };
        other.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, 'x', route, body as RouteRequest));
      };
      expect(() => context.table.load([], [])).toThrow(NetlinkError);
      expect(() => context.table.load([], [])).toThrow(/EINTR/);
    });
  });
});

const MACHINE = fileURLToPath(new URL('./machine.mjs', import.meta.url));
type Step =
  | [verb: 'ensure' | 'keepOnly', things: readonly unknown[]]
  | [verb: 'undo' | 'noted' | 'restart']
  | [verb: 'sh', command: string]
  | [verb: 'note', entry: { thing: Thing; before?: string }];
// biome-ignore lint/suspicious/noExplicitAny: each step has a result of its own form.
type Result = any;

describe.skipIf(skip('things', await missing('tc', 'sysctl')))('in a kernel', () => {
  let lab: Lab;
  let count = 0;
  beforeAll(async () => {
    lab = await Lab.open();
  });
  afterAll(() => lab.close());

  /** Takes the steps one after the other, in a namespace of their own that has eth0 with 192.168.16.32/24. */
  async function take(...steps: Step[]): Promise<Result[]> {
    const name = `vm${++count}`;
    await lab.ip(undefined, [`netns add ${name}`]);
    await lab.ip(name, [
      'link set lo up',
      'link add eth0 type veth peer name eth1',
      'link set eth0 up',
      'link set eth1 up',
      'address add 192.168.16.32/24 dev eth0',
    ]);
    const results = JSON.parse(await lab.must(name, [process.execPath, MACHINE], toJson(steps)));
    await lab.ip(undefined, [`netns delete ${name}`]);
    return results;
  }

  const filter = (more = {}) => ({
    kind: 'filter',
    device: 'eth0',
    place: 'ingress',
    program: 'program:one',
    others: true,
    ...more,
  });
  const ofEth0 = (value: string): Thing => ({
    kind: 'sysctl',
    name: 'net/ipv4/conf/eth0/rp_filter',
    value,
    device: 'eth0',
    others: true,
  });
  const mine = [vxlan, settings, addresses, parameters, up, overlay, catchAll, rule, lastRule, slice, sysctl];
  const readFilter = 'cat /proc/sys/net/ipv4/conf/eth0/rp_filter';
  const showFilters = 'tc filter show dev eth0 ingress';

  test('all of a device: nothing is wrong the second time, nor after a restart; all that is left goes', async () => {
    const things = [...mine, filter({ device: 'inlay0', others: undefined }), filter(), ofEth0('1')];
    const [first, second, noted, , third, undone, after, rest] = await take(
      ['ensure', things],
      ['ensure', things],
      ['noted'],
      ['restart'],
      // The program is another process's: it is put there anew.
      ['ensure', things.filter((thing) => thing.kind !== 'filter')],
      ['undo'],
      ['noted'],
      ['sh', `ip -o link; ip route; ${showFilters}; tc qdisc show dev eth0`],
    );
    expect(first).toMatchObject({ troubles: [], refused: [] });
    // A program at a device of others is no repair where it was not there before.
    expect(first.repaired.length).toBe(things.length - 1);
    expect(second).toEqual({ repaired: [], troubles: [], refused: [] });
    expect(noted.map(({ thing }: Result) => thing.kind).toSorted()).toEqual([
      'clsact',
      'filter',
      'link',
      'route',
      'route',
      'route',
      'rule',
      'rule',
      'sysctl',
    ]);
    expect(third).toEqual({ repaired: [], troubles: [], refused: [] });
    expect(undone.length).toBeGreaterThanOrEqual(5);
    expect(after).toEqual([]);
    expect(rest).not.toMatch(/inlay|proto 7|clsact/);
  });

  test('the commands of a dry run do the same', async () => {
    const commands = mine.flatMap((thing) => kindOf(thing).commands(thing));
    const [done, after] = await take(['sh', commands.join('\n')], ['ensure', mine]);
    expect(done).toBe('');
    expect(after).toEqual({ repaired: [], troubles: [], refused: [] });
  });

  test('a route of others stays', async () => {
    const [, , ensured, undone, routes] = await take(
      ['ensure', [vxlan, settings, up]],
      ['sh', 'ip route add 10.0.0.0/8 via 192.168.16.1'],
      ['ensure', [overlay]],
      ['undo'],
      ['sh', 'ip route show 10.0.0.0/8'],
    );
    expect(ensured.troubles).toEqual([
      {
        what: 'a route to 10.0.0.0/8 exists already: 10.0.0.0/8 via 192.168.16.1 dev eth0 proto 3',
        hint: expect.stringContaining('ip route del 10.0.0.0/8'),
      },
    ]);
    expect(undone).toEqual(['device inlay0']);
    expect(routes).toMatch(/^10\.0\.0\.0\/8 via 192\.168\.16\.1/);
  });

  test('a route that others put before ours stays, and is told', async () => {
    const [, , ensured, , routes] = await take(
      ['ensure', [vxlan, settings, up, { ...overlay, source: undefined }]],
      // Ours is to change, and the notification is not there yet.
      ['sh', 'ip address add 10.16.32.1/32 dev inlay0; ip route prepend 10.0.0.0/8 via 192.168.16.1'],
      ['ensure', [{ ...overlay, source: '10.16.32.1' }]],
      ['undo'],
      ['sh', 'ip route show 10.0.0.0/8'],
    );
    expect(routes).toMatch(/^10\.0\.0\.0\/8 via 192\.168\.16\.1/);
    expect(ensured.troubles.length).toBe(1);
  });

  test('a route of others with a type of service is in nobody’s way', async () => {
    const [, ensured, again] = await take(
      ['sh', 'ip route add 10.0.0.0/8 tos 0x10 via 192.168.16.1'],
      ['ensure', [vxlan, settings, up, overlay]],
      ['ensure', [overlay]],
      ['undo'],
    );
    expect(ensured.troubles).toEqual([]);
    expect(again).toEqual({ repaired: [], troubles: [], refused: [] });
    const [, restarted] = (
      await take(
        ['sh', 'ip route add 10.0.0.0/8 tos 0x10 via 192.168.16.1'],
        ['ensure', [vxlan, settings, up, overlay]],
        ['restart'],
        ['ensure', [vxlan, overlay]],
      )
    ).slice(2);
    expect(restarted).toEqual({ repaired: [], troubles: [], refused: [] });
  });

  test('what belongs to a device of others that is in the way is not touched', async () => {
    const [before, ensured, after] = await take(
      ['sh', 'ip link add inlay0 type veth peer name x; ip -o link show inlay0; ip route'],
      ['ensure', mine],
      ['sh', 'ip -o link show inlay0; ip route show proto static'],
    );
    expect(ensured.troubles[0].what).toMatch(/^device inlay0 exists already/);
    expect(ensured.troubles.length).toBe(1);
    expect(after.trim()).toBe(before.split('\n').find((line: string) => line.includes('inlay0')));
  });

  describe('sysctls', () => {
    const set = (value: string): Step => ['sh', `echo ${value} > /proc/sys/net/ipv4/conf/eth0/rp_filter`];
    const read: Step = ['sh', readFilter];

    test('get their value back', async () => {
      const [, ensured, now, again, , undone, after] = await take(
        set('2'),
        ['ensure', [ofEth0('1')]],
        read,
        ['ensure', [ofEth0('1')]],
        ['restart'],
        ['undo'],
        read,
      );
      expect(ensured.repaired).toEqual(['net.ipv4.conf.eth0.rp_filter is 2, not 1']);
      expect([now, again.repaired, undone, after]).toEqual(['1\n', [], ['sysctl net.ipv4.conf.eth0.rp_filter'], '2\n']);
    });

    test('that somebody set to a third value stay', async () => {
      const [, , , undone, after, noted] = await take(set('2'), ['ensure', [ofEth0('1')]], set('0'), ['undo'], read, [
        'noted',
      ]);
      expect([undone, after, noted]).toEqual([[], '0\n', []]);
    });

    test('that have the value already are not ours', async () => {
      const [, , noted, undone, after] = await take(set('1'), ['ensure', [ofEth0('1')]], ['noted'], ['undo'], read);
      expect([noted, undone, after]).toEqual([[], [], '1\n']);
    });

    test('that cannot be set are told and not noted', async () => {
      const [ensured, noted] = await take(['ensure', [ofEth0('wrong')]], ['noted']);
      expect(ensured.troubles).toEqual([
        { what: 'net.ipv4.conf.eth0.rp_filter is 0 and cannot be set to wrong: EINVAL', hint: expect.any(String) },
      ]);
      expect(noted).toEqual([]);
    });

    const none = { kind: 'sysctl', device: 'none', name: 'net/ipv4/conf/none/forwarding', value: '1' };
    test('of a device that is not there are an error, unless it may be missing', async () => {
      const [needed, may, noted] = await take(['ensure', [none]], ['ensure', [{ ...none, others: true }]], ['noted']);
      expect(needed.troubles.length).toBe(1);
      expect([may, noted]).toEqual([{ repaired: [], troubles: [], refused: [] }, []]);
    });
  });

  test('a device of others that was down goes down again; one that was up stays up', async () => {
    const eth = (device: string) => ({ kind: 'link-up', device, others: true });
    // The only device of others that Inlay puts up. Where the module ip_gre is loaded, it is there already.
    const [, ensured, noted, , , after] = await take(
      ['sh', 'ip link show gre0 || ip link add gre0 type veth peer name gre1; ip link set gre0 down'],
      ['ensure', [eth('eth0'), eth('gre0'), eth('none')]],
      ['noted'],
      ['restart'],
      ['undo'],
      ['sh', 'ip -o link show eth0 up; ip -o link show gre0 up'],
    );
    expect(ensured.repaired).toEqual(['device gre0 is down']);
    expect(noted).toEqual([{ thing: eth('gre0') }]);
    expect(after).toMatch(/eth0/);
    expect(after).not.toMatch(/gre0/);
  });

  describe('filters', () => {
    const foreign = (prio: number, handle = 1) =>
      `tc filter add dev eth0 ingress prio ${prio} handle ${handle} protocol all bpf bytecode "1,6 0 0 0"`;

    test('one of others at our priority stays, is named, and nothing is noted', async () => {
      const [before, ensured, noted, undone, after] = await take(
        ['sh', `tc qdisc add dev eth0 clsact; ${foreign(73)}; ${showFilters}`],
        ['ensure', [filter()]],
        ['noted'],
        ['undo'],
        ['sh', showFilters],
      );
      expect(ensured.troubles).toEqual([
        {
          what: 'filter at the ingress of eth0: a filter of others has priority 73',
          hint: 'look whose it is: tc filter show dev eth0 ingress',
        },
      ]);
      expect([noted, undone, after]).toEqual([[], [], before]);
    });

    test('one of others is not taken back for ours, whatever stands in the journal', async () => {
      const [before, , , undone, after] = await take(
        ['sh', `tc qdisc add dev eth0 clsact; ${foreign(73)}; ${showFilters}`],
        ['note', { thing: { kind: 'clsact', device: 'eth0' } }],
        ['note', { thing: { kind: 'filter', device: 'eth0', place: 'ingress', others: true } }],
        ['undo'],
        ['sh', showFilters],
      );
      expect([undone, after]).toEqual([[], before]);
    });

    test('others at other priorities stay, and so does the discipline that they are in', async () => {
      const [, , undone, after, noted] = await take(
        ['ensure', [filter()]],
        ['sh', foreign(5)],
        ['undo'],
        ['sh', `${showFilters}; tc qdisc show dev eth0`],
        ['noted'],
      );
      expect(undone).toEqual(['program at the ingress of eth0']);
      expect(after).toMatch(/pref 5 bpf/);
      expect(after).toMatch(/qdisc clsact/);
      expect(after).not.toMatch(/pref 73/);
      expect(noted).toEqual([]);
    });

    test('the discipline of others stays', async () => {
      const [, , noted, , after] = await take(
        ['sh', 'tc qdisc add dev eth0 clsact'],
        ['ensure', [filter()]],
        ['noted'],
        ['undo'],
        ['sh', 'tc qdisc show dev eth0'],
      );
      expect(noted.map(({ thing }: Result) => thing.kind)).toEqual(['filter']);
      expect(after).toMatch(/qdisc clsact/);
    });

    test('the discipline of others that stands there by now, of another kind, stays', async () => {
      const [, , , after] = await take(
        ['ensure', [filter()]],
        ['sh', 'tc qdisc delete dev eth0 clsact; tc qdisc add dev eth0 ingress'],
        ['undo'],
        ['sh', 'tc qdisc show dev eth0'],
      );
      expect(after).toMatch(/qdisc ingress/);
    });

    test('our discipline goes at the end, however often the machine was looked at meanwhile', async () => {
      const [, kept, , , undone, after] = await take(
        ['ensure', [filter()]],
        ['keepOnly', [filter()]],
        ['ensure', [filter()]],
        ['restart'],
        ['undo'],
        ['sh', 'tc qdisc show dev eth0'],
      );
      expect(kept).toEqual([]);
      expect(undone).toContain('clsact of eth0');
      expect(after).not.toMatch(/clsact/);
    });

    test('one with another program is replaced; without one it goes', async () => {
      const without = { kind: 'filter', device: 'eth0', place: 'ingress', others: true };
      const [, replaced, again, removed, after, twice] = await take(
        ['ensure', [filter()]],
        ['ensure', [filter({ program: 'program:two' })]],
        ['ensure', [filter({ program: 'program:two' })]],
        ['ensure', [without]],
        ['sh', showFilters],
        ['ensure', [without]],
      );
      expect(replaced.repaired).toEqual(['filter at the ingress of eth0 is of an earlier daemon']);
      expect(again.repaired).toEqual([]);
      expect(removed.repaired).toEqual(['filter at the ingress of eth0 is of an earlier daemon']);
      expect([after, twice.repaired]).toEqual(['', []]);
    });
  });

  const hasFou = readFileSync('/proc/kallsyms', 'utf8').includes(' fou_nl_');
  test.skipIf(skip('a kernel without FOU', hasFou ? 'this kernel has FOU' : undefined))(
    'a kernel without FOU: an error with a hint, nothing noted, and nothing to take back',
    async () => {
      const fou: Thing = { kind: 'fou', port: 6635 };
      const [ensured, noted, , undone] = await take(['ensure', [fou]], ['noted'], ['note', { thing: fou }], ['undo']);
      expect(ensured.troubles).toEqual([
        { what: 'this kernel cannot receive GRE in UDP: it has no FOU', hint: expect.stringContaining('modprobe fou') },
      ]);
      expect([noted, undone]).toEqual([[], []]);
    },
  );

  test('a failure of one does not keep others from being made', async () => {
    const [ensured] = await take(['ensure', [ofEth0('wrong'), catchAll]]);
    expect(ensured.troubles.length).toBe(1);
    expect(ensured.repaired.length).toBe(1);
  });
});

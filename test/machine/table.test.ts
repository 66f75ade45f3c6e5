/** Table main as the machine remembers it: who holds the routes that ours need, and which routes of others hide VMs. In a kernel in memory. */
import { describe, expect, test } from 'vitest';
import { Writer } from '../../src/linux/netlink/codec.ts';
import { addressBytes } from '../../src/linux/netlink/ipv4.ts';
import { IFF_UP, link, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import {
  type Message,
  messagesIn,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  putMessage,
  request,
} from '../../src/linux/netlink/message.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type Route,
  type RouteRequest,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../../src/linux/netlink/route.ts';
import { CATCH_ALL_PROTOCOL, CONTAINER_PROTOCOL, ROUTE_PROTOCOL } from '../../src/machine/state.ts';
import { MainTable } from '../../src/machine/table.ts';
import { type Prefix, parsePrefix } from '../../src/mesh/address.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';

const AF_INET = 2;
const RTN_BLACKHOLE = 6;
const RTPROT_STATIC = 4;
const [OVERLAY, SLICE] = ['10.0.0.0/8', '10.16.32.0/24'];
const prefix = (text: string) => parsePrefix(text) as Prefix;

const kernel = () => {
  const made = new FakeKernel();
  const [eth0, eth1] = [made.addLink({ name: 'eth0' }), made.addLink({ name: 'eth1' })];
  const netlink = new Netlink(made.connect());
  const others = new Netlink(made.connect());
  const table = new MainTable(netlink);
  const load = () => table.load([prefix(OVERLAY)], [prefix(SLICE)]);
  const add = (to: string, body: Partial<RouteRequest> = {}) =>
    others.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, to, route, bodyOf(to, body)));
  const remove = (to: string, body: Partial<RouteRequest> = {}) =>
    others.do(request(RTM_DELROUTE, 0, to, route, bodyOf(to, body)));
  const holderOf = (to: string, priority?: number) => table.holder(bodyOf(to, { priority }) as Route);
  return { made, eth0, eth1, netlink, table, load, add, remove, holderOf };
};

function bodyOf(to: string, body: Partial<RouteRequest> = {}): RouteRequest {
  const { length, ...dst } = prefix(to);
  const all = { family: AF_INET, dst: addressBytes(dst), dstLength: length, table: RT_TABLE_MAIN };
  return { ...all, type: RTN_UNICAST, protocol: RTPROT_STATIC, ...body } as RouteRequest;
}

/** What the kernel tells when others change a route. */
function told(type: number, to: string, body: Partial<RouteRequest> = {}, flags = 0): Message {
  const writer = new Writer();
  putMessage(writer, { type, flags, sequence: 0 }, (w) => route.put(w, bodyOf(to, body)));
  return [...messagesIn(writer.bytes)][0] as Message;
}

describe('holders', () => {
  test('are those of the overlay and of the own slice, and all of ours', () => {
    const { load, add, eth0, holderOf } = kernel();
    const all = [OVERLAY, SLICE, '192.168.0.0/16'];
    for (const to of all) add(to, { oif: eth0 });
    add('10.16.32.5/32', { oif: eth0, protocol: CONTAINER_PROTOCOL });
    add('10.77.0.0/16', { oif: eth0, protocol: ROUTE_PROTOCOL });
    load();
    expect(all.map((to) => holderOf(to)?.protocol)).toEqual([RTPROT_STATIC, RTPROT_STATIC, undefined]);
    expect(holderOf('10.16.32.5/32')?.protocol).toBe(CONTAINER_PROTOCOL);
    expect(holderOf('10.77.0.0/16')?.protocol).toBe(ROUTE_PROTOCOL);
    expect(holderOf(OVERLAY, 1)).toBeUndefined();
  });

  test('of other tables are none', () => {
    const { load, add, eth0, holderOf, table } = kernel();
    add(OVERLAY, { oif: eth0, table: 100 });
    load();
    expect(holderOf(OVERLAY)).toBeUndefined();
    expect(table.find(bodyOf(OVERLAY) as Route)).toBeUndefined();
    expect(table.hear(told(RTM_NEWROUTE, OVERLAY, { table: 100 }))).toBe(false);
  });

  test('are what they were when they were read, though the buffer is used again', () => {
    const { load, add, eth0, holderOf, netlink } = kernel();
    add(OVERLAY, { oif: eth0, gateway: Uint8Array.of(192, 168, 0, 1) });
    load();
    for (let i = 0; i < 20; i++) netlink.tryAll([request(RTM_DELROUTE, 0, 'none', route, bodyOf('172.16.0.0/12'))]);
    expect(holderOf(OVERLAY)?.gateway?.join('.')).toBe('192.168.0.1');
  });

  test('ours, from when we hold it to when we forget it', () => {
    const { load, table, holderOf } = kernel();
    load();
    const mine = bodyOf(OVERLAY, { protocol: ROUTE_PROTOCOL }) as Route;
    table.hold(mine);
    expect(holderOf(OVERLAY)).toEqual(mine);
    expect(holderOf(OVERLAY, 0)).toEqual(mine);
    table.forget(mine);
    expect(holderOf(OVERLAY)).toBeUndefined();
  });

  test('are looked for in the kernel where they are not known', () => {
    const { load, table, add, eth0, holderOf } = kernel();
    load();
    add(OVERLAY, { oif: eth0, priority: 7 });
    expect(holderOf(OVERLAY, 7)).toBeUndefined();
    expect(table.find(bodyOf(OVERLAY, { priority: 7 }) as Route)?.oif).toBe(eth0);
    expect(holderOf(OVERLAY, 7)?.oif).toBe(eth0);
    expect(table.find(bodyOf(OVERLAY) as Route)).toBeUndefined();
  });

  const mine = { protocol: ROUTE_PROTOCOL };
  const cases: { name: string; message: Message; concerns: boolean; isKnown: boolean }[] = [
    {
      name: 'replaced by others',
      message: told(RTM_NEWROUTE, OVERLAY, {}, NLM_F_REPLACE),
      concerns: true,
      isKnown: false,
    },
    {
      name: 'preceded by another',
      message: told(RTM_NEWROUTE, OVERLAY, {}, NLM_F_CREATE),
      concerns: true,
      isKnown: false,
    },
    {
      name: 'followed by another',
      message: told(RTM_NEWROUTE, OVERLAY, {}, NLM_F_APPEND),
      concerns: false,
      isKnown: true,
    },
    { name: 'deleted', message: told(RTM_DELROUTE, OVERLAY, mine), concerns: true, isKnown: false },
    {
      name: 'one with another metric',
      message: told(RTM_NEWROUTE, OVERLAY, { priority: 5 }),
      concerns: false,
      isKnown: true,
    },
    { name: 'one with another length', message: told(RTM_DELROUTE, '10.0.0.0/9', {}), concerns: false, isKnown: true },
  ];
  test.each(cases)('ours, $name', ({ message, concerns, isKnown }) => {
    const { load, table, holderOf } = kernel();
    load();
    table.hold(bodyOf(OVERLAY, mine) as Route);
    expect(table.hear(message)).toBe(concerns);
    expect(holderOf(OVERLAY) !== undefined).toBe(isKnown);
  });

  test('one of ours that was deleted concerns us even where it is not known; one of others does not', () => {
    const { load, table } = kernel();
    load();
    for (const protocol of [ROUTE_PROTOCOL, CATCH_ALL_PROTOCOL])
      expect(table.hear(told(RTM_DELROUTE, OVERLAY, { protocol }))).toBe(true);
    for (const protocol of [RTPROT_STATIC, CONTAINER_PROTOCOL])
      expect(table.hear(told(RTM_DELROUTE, OVERLAY, { protocol }))).toBe(false);
  });
});

describe('routes of others that hide VMs', () => {
  const cases: { name: string; to: string; body?: Partial<RouteRequest>; hides: boolean }[] = [
    { name: 'more exact than the overlay', to: '10.17.0.0/16', hides: true },
    { name: 'another slice', to: '10.16.33.0/24', hides: true },
    { name: 'an address of another slice', to: '10.16.33.91/32', hides: true },
    { name: 'more than the own slice', to: '10.16.32.0/23', hides: true },
    { name: 'without a device', to: '10.17.0.0/16', body: { type: RTN_BLACKHOLE, oif: undefined }, hides: true },
    { name: 'with a metric', to: '10.17.0.0/16', body: { priority: 100 }, hides: true },
    { name: 'the own slice, such as a bridge', to: SLICE, hides: false },
    { name: 'within the own slice', to: '10.16.32.91/32', hides: false },
    { name: 'the overlay itself', to: OVERLAY, body: { priority: 100 }, hides: false },
    { name: 'less exact', to: '8.0.0.0/6', hides: false },
    { name: 'elsewhere', to: '192.168.0.0/16', hides: false },
    { name: 'of another table', to: '10.17.0.0/16', body: { table: 100 }, hides: false },
    { name: 'ours', to: '10.17.0.0/16', body: { protocol: ROUTE_PROTOCOL }, hides: false },
    { name: 'to one of our containers', to: '10.17.0.0/16', body: { protocol: CONTAINER_PROTOCOL }, hides: false },
    { name: 'of the catch-all', to: '10.17.0.0/16', body: { protocol: CATCH_ALL_PROTOCOL }, hides: false },
  ];
  test.each(cases)('$name: $hides', ({ to, body, hides }) => {
    const { load, add, eth0, table } = kernel();
    add(to, { oif: eth0, ...body });
    load();
    expect(table.hiding().length).toBe(hides ? 1 : 0);
    if (hides) expect(table.hiding()[0]).toContain(to);
  });

  test.each(cases)('$name, heard of: $hides', ({ to, body, hides }) => {
    const { load, add, eth0, table } = kernel();
    load();
    add(to, { oif: eth0, ...body });
    expect(table.hear(told(RTM_NEWROUTE, to, { oif: eth0, ...body }, NLM_F_CREATE))).toBe(hides);
    expect(table.hiding().length).toBe(hides ? 1 : 0);
  });

  test('are over when they are deleted', () => {
    const { load, add, remove, eth0, table } = kernel();
    add('10.17.0.0/16', { oif: eth0 });
    load();
    remove('10.17.0.0/16');
    expect(table.hear(told(RTM_DELROUTE, '10.17.0.0/16', { oif: eth0 }))).toBe(true);
    expect(table.hiding()).toEqual([]);
  });

  test('are over when they went with their device, of which the kernel tells nothing', () => {
    const { made, load, add, eth0, table } = kernel();
    add('10.17.0.0/16', { oif: eth0 });
    load();
    const others = new Netlink(made.connect());
    const body = { index: eth0, change: IFF_UP, flags: 0 };
    others.do(request(RTM_NEWLINK, 0, 'eth0 down', link, body));
    expect(table.hiding()).toEqual([]);
  });

  test('one that others replaced is told once, as it is now', () => {
    const { load, add, eth0, eth1, table } = kernel();
    add('10.17.0.0/16', { oif: eth0 });
    load();
    add('10.17.0.0/16', { oif: eth1 });
    table.hear(told(RTM_NEWROUTE, '10.17.0.0/16', { oif: eth1 }, NLM_F_REPLACE));
    expect(table.hiding()).toEqual(['10.17.0.0/16 dev eth1 proto 4']);
  });

  test('are remembered up to a number', () => {
    const { load, add, eth0, table } = kernel();
    const MANY = 300;
    for (let i = 0; i < MANY; i++) add(`10.${17 + (i >> 8)}.${i & 255}.0/24`, { oif: eth0 });
    load();
    expect(table.hiding().length).toBeGreaterThan(10);
    expect(table.hiding().length).toBeLessThanOrEqual(100);
    for (let i = 0; i < MANY; i++) table.hear(told(RTM_NEWROUTE, `10.20.${i & 255}.0/24`, { oif: eth0 }));
    expect(table.hiding().length).toBeLessThanOrEqual(100);
  });

  test('a type that others replaced it by, without a device', () => {
    const { load, add, eth0, table } = kernel();
    add('10.17.0.0/16', { oif: eth0 });
    load();
    add('10.17.0.0/16', { type: RTN_UNREACHABLE });
    table.hear(told(RTM_NEWROUTE, '10.17.0.0/16', { type: RTN_UNREACHABLE }, NLM_F_REPLACE));
    expect(table.hiding()).toEqual(['unreachable 10.17.0.0/16 proto 4']);
  });
});

test('what was known is forgotten when it is loaded again', () => {
  const { load, add, remove, eth0, table, holderOf } = kernel();
  add('10.17.0.0/16', { oif: eth0 });
  add(OVERLAY, { oif: eth0 });
  load();
  remove('10.17.0.0/16');
  remove(OVERLAY);
  load();
  expect([table.hiding(), holderOf(OVERLAY)]).toEqual([[], undefined]);
});

test('messages of other kinds are not looked at', () => {
  const { load, table } = kernel();
  load();
  expect(table.hear({ ...told(RTM_NEWROUTE, OVERLAY), type: RTM_NEWLINK })).toBe(false);
});

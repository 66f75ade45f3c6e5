/** What the underlay's ways to VMs are like, over a kernel in memory. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Ways } from '../../src/dataplane/kernel/ways.ts';
import { addressBytes } from '../../src/linux/netlink/ipv4.ts';
import { IFF_UP, link, RTM_NEWLINK } from '../../src/linux/netlink/link.ts';
import { messagesIn, NLM_F_CREATE, NLM_F_REPLACE, request } from '../../src/linux/netlink/message.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNREACHABLE,
  RTNLGRP_IPV4_ROUTE,
  route,
} from '../../src/linux/netlink/route.ts';
import { type Address, type Prefix, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';

const AF_INET = 2;
const prefix = (text: string) => parsePrefix(text) as Prefix;
const address = (text: string) => parseAddress(text) as Address;
const number = (text: string) => Number(address(text).bits);
const PLAN = {
  ...{ device: 'inlay0', runDir: '/run/inlay', local: address('192.168.16.32'), mtu: 1450 },
  mappings: [new Mapping(prefix('10.0.0.0/8'), prefix('192.168.0.0/16'))],
};
const NEAR = number('192.168.16.33');
const FAR = number('192.168.200.1');

describe('ways', () => {
  let kernel: FakeKernel;
  let others: Netlink;
  let ways: Ways;
  let eth0: number;
  let eth1: number;
  beforeEach(() => {
    kernel = new FakeKernel();
    others = new Netlink(kernel.connect());
    eth0 = kernel.addLink({ name: 'eth0', flags: IFF_UP, mtu: 1500 });
    eth1 = kernel.addLink({ name: 'eth1', flags: IFF_UP, mtu: 9000 });
    put('192.168.16.0/24', { oif: eth0 });
    ways = open();
  });

  const open = (options = {}) =>
    new Ways({
      ...{ netlink: new Netlink(kernel.connect()), openNetlink: () => new Netlink(kernel.connect()) },
      ...{ plan: PLAN, overhead: 50, pathMtuDiscovery: true, ...options },
    });
  const bodyOf = (to: string, body: RouteRequest) => {
    const { length, ...dst } = prefix(to);
    return { family: AF_INET, dst: addressBytes(dst), dstLength: length, ...body };
  };
  function put(to: string, body: RouteRequest): void {
    others.do(request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, to, route, bodyOf(to, body)));
  }
  function take(to: string): void {
    others.do(request(RTM_DELROUTE, 0, to, route, bodyOf(to, {})));
  }
  function set(index: number, body: { mtu?: number; flags?: number }): void {
    others.do(
      request(RTM_NEWLINK, 0, `link ${index}`, link, {
        index,
        ...body,
        ...(body.flags !== undefined && { change: IFF_UP }),
      }),
    );
  }

  test('to one VM: what the kernel has learnt, the route and the device say, where that is less than the plan', () => {
    expect(ways.to(NEAR)).toEqual({});
    kernel.paths.set('c0a81021', 1400);
    expect(ways.to(NEAR)).toEqual({ pathMtu: 1400 });
    expect(ways.to(NEAR + 1)).toEqual({});
    kernel.paths.delete('c0a81021');
    put('192.168.200.0/24', { oif: eth1 });
    expect(ways.to(FAR)).toEqual({});
    put('192.168.200.0/24', { oif: eth1, metrics: { mtu: 1300 } });
    expect(ways.to(FAR)).toEqual({ pathMtu: 1300 });
    put('192.168.200.0/24', { oif: kernel.addLink({ name: 'eth2', flags: IFF_UP, mtu: 1280 }) });
    expect(ways.to(FAR)).toEqual({ pathMtu: 1280 });
    ways.follow({ ...PLAN, mtu: 1230 });
    expect(ways.to(FAR)).toEqual({});
  });

  test('to one VM: there is none', () => {
    expect(ways.to(FAR)).toEqual({ unreachable: 0 });
    for (const [type, unreachable] of [
      [RTN_UNREACHABLE, 1],
      // Prohibit, and blackhole.
      [8, 13],
      [6, 0],
    ] as const) {
      put('192.168.200.0/24', { type });
      expect(ways.to(FAR)).toEqual({ unreachable });
    }
    put('192.168.200.0/24', { type: 1, oif: eth1 });
    expect(ways.to(FAR)).toEqual({});
  });

  test('without path MTU discovery the underlay cuts packets, and only whether there is a way counts', () => {
    const careless = open({ pathMtuDiscovery: false });
    kernel.paths.set('c0a81021', 1400);
    expect(careless.to(NEAR)).toEqual({});
    expect(careless.to(FAR)).toEqual({ unreachable: 0 });
  });

  describe('have changed', () => {
    /** Whether all ways are looked at. Each look takes so many ms. */
    const haveChanged = async (ms = 0) => {
      const looked: (readonly number[] | 'all')[] = [];
      await ways.look(async (vms) => {
        looked.push(vms);
        vi.advanceTimersByTime(ms);
      });
      return looked.includes('all');
    };

    beforeEach(async () => {
      // Time passes only where a test says so.
      vi.useFakeTimers({ toFake: ['performance'] });
      ways.to(NEAR);
      expect(await haveChanged()).toBe(true);
      expect(await haveChanged()).toBe(false);
    });
    afterEach(() => void vi.useRealTimers());

    test('nothing is new where only the path to one VM is', async () => {
      kernel.paths.set('c0a81021', 1400);
      expect(await haveChanged()).toBe(false);
    });
    test.each<[string, () => void]>([
      ['the device has another MTU', () => set(eth0, { mtu: 1400 })],
      ['the device is down', () => set(eth0, { flags: 0 })],
      ['the route has gone', () => take('192.168.16.0/24')],
      ['the route leads elsewhere', () => put('192.168.16.0/24', { oif: eth1 })],
      ['the overlay has another MTU', () => ways.follow({ ...PLAN, mtu: 1400 })],
      ['notifications were lost', () => ways.reload()],
    ])('%s', async (_, change) => {
      change();
      expect(await haveChanged()).toBe(true);
      expect(await haveChanged()).toBe(false);
    });

    test.each<[string, boolean]>([
      ['192.168.0.0/16', true],
      ['192.168.200.1/32', true],
      ['0.0.0.0/0', true],
      ['10.16.32.91/32', false],
      ['172.16.0.0/12', false],
    ])('a route to %s came and went: %s', async (to, isWay) => {
      const listener = kernel.connect([RTNLGRP_IPV4_ROUTE]);
      put(to, { oif: eth1 });
      take(to);
      const heard: boolean[] = [];
      for (let datagram = listener.receive(); datagram; datagram = listener.receive())
        for (const message of messagesIn(datagram.slice())) heard.push(ways.concerns(message));
      expect(heard).toEqual([isWay, isWay]);
      expect(await haveChanged()).toBe(isWay);
    });

    test('a route that comes and goes all the time: a twentieth of the time goes into the ways of all VMs', async () => {
      const start = performance.now();
      let looks = 0;
      for (let i = 0; i < 500; i++) {
        put('192.168.16.0/24', { oif: i & 1 ? eth0 : eth1 });
        if (await haveChanged(100)) looks++;
      }
      expect(looks * 100 * 20).toBeLessThanOrEqual(performance.now() - start);
      expect(looks).toBeGreaterThan(20);
      // What changed in between is not forgotten.
      vi.advanceTimersByTime(60_000);
      expect(await haveChanged()).toBe(true);
      expect(await haveChanged()).toBe(false);
    });

    test('a look that fails is made up for', async () => {
      set(eth0, { mtu: 1400 });
      const failure = new Error('no room');
      await expect(ways.look(() => Promise.reject(failure))).rejects.toBe(failure);
      expect(await haveChanged()).toBe(true);
      expect(await haveChanged()).toBe(false);
    });
  });
});

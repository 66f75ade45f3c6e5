/**
 * Obstacles that come and go under traffic: the fast path stops and says why, packets go on their ordinary way, and past nothing;
 * and it goes on by itself. What is not gone past is none.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FastPathStatus } from '../../src/dataplane/dataplane.ts';
import { ContainerVms } from './container-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE, type Plane } from './vms.ts';

interface Case {
  name: string;
  make: string;
  undo: string;
  what: RegExp;
}

const nft = (text: string) => `nft -f - <<'E'\n${text}\nE`;
const FLUSH = 'nft delete table inet f';
const ALL = "'1,6 0 0 4294967295'";

/** At which nothing is dropped on the ordinary way. */
const HARMLESS: Case[] = [
  {
    name: 'a chain of nftables that may drop',
    make: nft('table inet f { chain c { type filter hook forward priority 0; ip ttl 3 drop; }; }'),
    ...{ undo: FLUSH, what: /^the chain inet f c of nftables/ },
  },
  {
    name: 'a route of the underlay by another device',
    make: 'ip link add other type veth peer name end; ip link set other up; ip route add 192.168.122.0/24 dev other',
    ...{ undo: 'ip link del other', what: /^not all of 192\.168\.0\.0\/16/ },
  },
  {
    name: 'a rule of policy routing',
    make: 'ip link add other type veth peer name end; ip link set other up; ip route add 192.168.122.0/24 dev other table 100; ip rule add pref 100 lookup 100',
    ...{ undo: 'ip rule del pref 100; ip link del other', what: /^the rule of policy routing with priority 100/ },
  },
  {
    name: 'a filter where packets come in',
    make: `tc qdisc add dev eth0 clsact 2>/dev/null || true; tc filter add dev eth0 ingress pref 5 bpf bytecode ${ALL}`,
    ...{ undo: 'tc filter del dev eth0 ingress pref 5', what: /^eth0 has a filter of others/ },
  },
  {
    name: 'merging into lists',
    ...{ make: 'ethtool -K eth0 rx-gro-list on', undo: 'ethtool -K eth0 rx-gro-list off' },
    what: /^rx-gro-list of eth0/,
  },
];

/** What drops packets from A's container to B's, whose address is TO, on their ordinary way. */
const DROPPING: Case[] = [
  {
    name: 'a chain of nftables that drops',
    make: nft('table inet f { chain c { type filter hook forward priority 0; ip daddr TO drop; }; }'),
    ...{ undo: FLUSH, what: /^the chain inet f c of nftables/ },
  },
  {
    name: 'a chain before the uplink',
    make: nft(
      'table netdev f { chain c { type filter hook egress device eth0 priority 0; ip protocol { gre, udp } drop; }; }',
    ),
    ...{ undo: 'nft delete table netdev f', what: /^the chain netdev f c of nftables is at eth0/ },
  },
  {
    name: 'a policy of IPsec',
    make: 'ip xfrm policy add dir out src 10.0.0.0/8 dst 10.0.0.0/8 tmpl src 192.168.16.32 dst 192.168.16.33 proto esp mode tunnel',
    ...{ undo: 'ip xfrm policy flush', what: /^a policy of IPsec/ },
  },
];

const PLANES: readonly Plane[] = ['wasm', 'wasm-udp'];
const reason = await missing('ping', 'tc', 'nft', 'ethtool');

describe.skipIf(skip('obstacles under traffic', reason)).each(PLANES)('obstacles under traffic, %s', (plane) => {
  let vms: ContainerVms;
  /** The address of B's container. */
  let to = '';

  beforeAll(async () => {
    vms = await ContainerVms.of(plane, 'a', 'b');
    await vms.up('a');
    await vms.up('b', '--fast-path', 'on');
    await vms.namespaces('c1', 'c2');
    await vms.inlay('a', 'attach', 'c1');
    to = JSON.parse((await vms.inlay('b', 'attach', 'c2', '--json')).stdout).address;
    await vms.serve('c2');
  });
  afterAll(() => vms?.close());

  const sh = (vm: string, script: string) => vms.lab.must(vm, ['sh', '-ec', script]);
  const fastPath = async (vm: string) => (await vms.status(vm)).fastPath as FastPathStatus;
  const sent = async (vm: string) => (await fastPath(vm)).outbound.packets;
  const isOff = (vm: string, what: RegExp) =>
    expect.poll(() => fastPath(vm), PATIENCE).toMatchObject({ state: 'off', obstacle: expect.stringMatching(what) });
  /** Whether what c1 and c2 send to each other is taken, and all answered. */
  const isTaken = async (vm: string) => {
    await expect
      .poll(async () => {
        const before = await sent(vm);
        await vms.pings('c1', to, 4, '-i', '0.01');
        return (await sent(vm)) - before;
      }, PATIENCE)
      .toBeGreaterThanOrEqual(4);
  };

  test('nothing is in the way', async () => {
    for (const vm of ['a', 'b'])
      await expect.poll(() => fastPath(vm), PATIENCE).toMatchObject({ state: 'on', containers: 1 });
    await isTaken('a');
  });

  test.each(HARMLESS)('$name', async ({ make, undo, what }) => {
    const { lost, sent: all } = await vms.during('c1', to, async () => {
      await sh('a', make);
      try {
        await isOff('a', what);
        const before = await sent('a');
        expect(await vms.pings('c1', to, 20)).toBe('20');
        expect(await sent('a')).toBe(before);
      } finally {
        await sh('a', undo);
      }
      await isTaken('a').catch(async (error) => {
        throw new Error(`${error}: ${JSON.stringify(await fastPath('a'))}`);
      });
    });
    expect([lost, all > 5]).toEqual([[], true]);
  });

  test.each(DROPPING)('$name stops packets on A', async ({ make, undo, what }) => {
    await isTaken('a');
    await sh('a', make.replace('TO', to));
    try {
      await isOff('a', what);
      const before = await sent('a');
      expect(await vms.pings('c1', to, 4)).toBe('0');
      expect(await sent('a')).toBe(before);
    } finally {
      await sh('a', undo);
    }
    await isTaken('a');
    expect(await vms.pings('c1', to, 20)).toBe('20');
  });

  test('with fast-path on, packets go past what may be gone past', async () => {
    const before = await sent('b');
    for (const { make, undo } of [
      {
        make: nft('table inet f { chain c { type filter hook forward priority 0; ip protocol icmp drop; }; }'),
        undo: FLUSH,
      },
      DROPPING[1] as Case,
    ]) {
      await sh('b', make);
      // One of each tunnel goes its ordinary way now and then.
      expect(Number(await vms.pings('c1', to, 20))).toBeGreaterThanOrEqual(18);
      expect(await fastPath('b')).toMatchObject({ state: 'on' });
      await sh('b', undo);
    }
    expect(await sent('b')).toBeGreaterThan(before + 30);
  });

  test('filters and disciplines where packets leave the uplink are not gone past', async () => {
    const counted = async () =>
      Number(/Sent \d+ bytes (\d+) pkt/.exec(await sh('a', 'tc -s qdisc show dev eth0 root'))?.[1]);
    await sh('a', 'tc qdisc add dev eth0 root tbf rate 1gbit burst 1m latency 50ms');
    const [before, packets] = [await sent('a'), await counted()];
    expect(await vms.pings('c1', to, 20)).toBe('20');
    expect(await sent('a')).toBeGreaterThan(before + 15);
    expect(await counted()).toBeGreaterThanOrEqual(packets + 20);
    await sh(
      'a',
      `tc qdisc del dev eth0 root; tc filter add dev eth0 egress pref 5 protocol ip bpf da bytecode '1,6 0 0 2'`,
    );
    expect(await vms.pings('c1', to, 4)).toBe('0');
    expect(await fastPath('a')).toMatchObject({ state: 'on' });
    await sh('a', 'tc filter del dev eth0 egress pref 5');
    expect(await vms.pings('c1', to, 20)).toBe('20');
  });
});

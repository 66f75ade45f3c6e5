/** src/netlink and this machine's kernel: what we make, `ip` and its like see; what they make, we see; and the kernel in memory is like it. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { type Address, address, RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import {
  IFF_UP,
  IN6_ADDR_GEN_MODE_NONE,
  type Link,
  link,
  type ReceivedLink,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTNLGRP_LINK,
  VXLAN_DF_SET,
} from '../../src/linux/netlink/link.ts';
import { messagesIn, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, request } from '../../src/linux/netlink/message.ts';
import {
  type Neighbour,
  type NeighbourTable,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_REACHABLE,
  neighbour,
  neighbourTable,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_GETNEIGHTBL,
  RTM_NEWNEIGH,
  RTM_SETNEIGHTBL,
  RTNLGRP_NEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import { NF_ACCEPT, NF_INET_FORWARD, NFPROTO_INET, NFT_MSG_GETCHAIN } from '../../src/linux/netlink/nf-tables.ts';
import {
  LWTUNNEL_ENCAP_IP,
  type Route,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTNH_F_ONLINK,
  route,
} from '../../src/linux/netlink/route.ts';
import { CLSACT_HANDLE, RTM_DELQDISC, RTM_NEWQDISC, TC_H_CLSACT } from '../../src/linux/netlink/traffic-control.ts';
import { NETLINK_NETFILTER } from '../../src/linux/netlink/transport.ts';
import { missing, skip } from '../net/require.ts';
import { FakeKernel } from './fake-kernel.ts';
import { fromJson, toJson } from './json.ts';

const ASK = fileURLToPath(new URL('./ask.mjs', import.meta.url));
const CREATE = NLM_F_CREATE | NLM_F_EXCL;
const AF_INET = 2;
const AF_BRIDGE = 7;
const NUD_NOARP = 0x40;

interface Question {
  verb: 'do' | 'get' | 'dump' | 'listen';
  [name: string]: unknown;
}

const bytes = (...all: number[]) => Uint8Array.from(all);
const mac = (n: number) => bytes(2, 0, 0, 0, 0, n);
const newLink = (body: Link): Question => ({ verb: 'do', codec: 'link', type: RTM_NEWLINK, flags: CREATE, body });
const setLink = (body: Link): Question => ({ ...newLink(body), flags: 0 });
const deleteLink = (name: string): Question => ({ verb: 'do', codec: 'link', type: RTM_DELLINK, body: { name } });
const getLink = (name: string): Question => ({ verb: 'get', codec: 'link', type: RTM_GETLINK, body: { name } });

describe.skipIf(skip('netlink', await missing('bridge', 'nft', 'ping', 'sysctl', 'tc')))('netlink', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.open();
    await lab.ip(undefined, ['netns add b', 'netns add c']);
  });
  afterAll(() => lab?.close());

  async function ask(where: string | undefined, ...questions: Question[]): Promise<unknown[]> {
    return fromJson(await lab.must(where, [process.execPath, ASK], toJson(questions))) as unknown[];
  }
  /** Questions that are all to be done. */
  async function done(where: string | undefined, ...questions: Question[]): Promise<void> {
    expect(await ask(where, ...questions)).toEqual(questions.map(() => null));
  }
  async function one<T>(where: string | undefined, question: Question): Promise<T> {
    const [answer] = await ask(where, question);
    expect(answer).not.toHaveProperty('message');
    return answer as T;
  }
  /** What a command says as JSON. */
  const json = async (where: string | undefined, ...command: string[]): Promise<unknown[]> =>
    JSON.parse((await lab.must(where, command)) || '[]');
  const show = async (where: string | undefined, name: string) =>
    (await json(where, 'ip', '-d', '-j', 'link', 'show', name))[0] as { ifindex: number };
  const indexOf = async (name: string) => (await show(undefined, name)).ifindex;

  describe('links', () => {
    test('we make a vxlan device, change it and delete it', async () => {
      const data = {
        ...{ id: 42, local: bytes(10, 0, 0, 1), port: 4790, ttl: 64, tos: 8 },
        ...{ learning: 0, udpCsum: 0, df: VXLAN_DF_SET },
      };
      await done(
        undefined,
        newLink({
          ...{ name: 'vx0', address: mac(1), mtu: 1400, txQueueLength: 123, flags: IFF_UP, change: IFF_UP },
          ...{ info: { kind: 'vxlan', data }, gsoMaxSize: 5000, gsoMaxSegs: 9 },
        }),
        setLink({
          ...{ name: 'vx0', alias: 'one two', mtu: 1399 },
          afSpec: { inet6: { addrGenMode: IN6_ADDR_GEN_MODE_NONE } },
        }),
      );
      expect(await show(undefined, 'vx0')).toMatchObject({
        ...{ ifname: 'vx0', address: '02:00:00:00:00:01', mtu: 1399, txqlen: 123, ifalias: 'one two' },
        ...{ gso_max_size: 5000, gso_max_segs: 9, inet6_addr_gen_mode: 'none' },
        flags: expect.arrayContaining(['UP']),
        linkinfo: {
          info_kind: 'vxlan',
          info_data: {
            ...{ id: 42, local: '10.0.0.1', port: 4790, ttl: 64, tos: '0x8' },
            ...{ learning: false, udp_csum: false, df: 'set' },
          },
        },
      });
      expect(await one(undefined, getLink('vx0'))).toMatchObject({
        ...{ name: 'vx0', address: mac(1), mtu: 1399, txQueueLength: 123, alias: 'one two' },
        ...{ gsoMaxSize: 5000, gsoMaxSegs: 9, info: { kind: 'vxlan', data } },
      });
      await done(undefined, deleteLink('vx0'));
      expect((await lab.run(undefined, ['ip', 'link', 'show', 'vx0'])).code).toBe(1);
    });

    test('we read a vxlan device, its bridge and its counters', async () => {
      await lab.ip(undefined, [
        ...['link add br0 type bridge', 'address add 10.9.0.1/24 dev br0'],
        'link add vx1 address 02:00:00:00:00:01 mtu 1300 txqueuelen 77 type vxlan id 7 dstport 4791 local 10.1.0.1 ttl 9 df set',
        ...['link set vx1 alias three master br0 addrgenmode none', 'link set br0 up', 'link set vx1 up'],
        ...['link add vx2 type vxlan external dstport 4792 ttl inherit'],
      ]);
      const vx1 = await one<ReceivedLink>(undefined, getLink('vx1'));
      expect(vx1).toMatchObject({
        ...{ name: 'vx1', address: mac(1), mtu: 1300, txQueueLength: 77, alias: 'three', type: 1 },
        ...{ index: await indexOf('vx1'), master: await indexOf('br0') },
        info: {
          kind: 'vxlan',
          data: { id: 7, port: 4791, local: bytes(10, 1, 0, 1), ttl: 9, df: VXLAN_DF_SET, learning: 1, udpCsum: 1 },
        },
        ...{ afSpec: { inet6: { addrGenMode: IN6_ADDR_GEN_MODE_NONE } }, gsoMaxSegs: 65535, gsoMaxSize: 65536 },
      });
      expect(vx1.info?.data).not.toHaveProperty('ttlInherit'); // The kernel says 0.
      expect(vx1.flags & IFF_UP).toBe(IFF_UP);
      expect(await one(undefined, getLink('vx2'))).toMatchObject({
        info: { kind: 'vxlan', data: { collectMetadata: 1, port: 4792, ttlInherit: true } },
      });
      expect(await one(undefined, getLink('br0'))).toMatchObject({ info: { kind: 'bridge' } });
      await lab.must(undefined, ['ping', '-n', '-q', '-c', '1', '10.9.0.1']);
      const { stats } = await one<ReceivedLink>(undefined, getLink('lo'));
      const [{ stats64 }] = (await json(undefined, 'ip', '-j', '-s', 'link', 'show', 'lo')) as [
        { stats64: Record<'rx' | 'tx', { packets: number; bytes: number; errors: number; dropped: number }> },
      ];
      const { rx, tx } = stats64;
      expect(stats).toEqual({
        ...{ rxPackets: rx.packets, rxBytes: rx.bytes, rxErrors: rx.errors, rxDropped: rx.dropped },
        ...{ txPackets: tx.packets, txBytes: tx.bytes, txErrors: tx.errors, txDropped: tx.dropped },
      });
      expect(rx.packets).toBeGreaterThan(0);
    });

    test('we read a TUN device', async () => {
      await lab.ip(undefined, ['tuntap add dev tun0 mode tun multi_queue vnet_hdr', 'link set tun0 mtu 1476']);
      expect(await one(undefined, getLink('tun0'))).toMatchObject({
        ...{ name: 'tun0', mtu: 1476, type: 0xfffe, index: await indexOf('tun0') },
        info: { kind: 'tun', data: { type: 1, pi: 0, vnetHdr: 1, persist: 1, multiQueue: 1, numQueues: 0 } },
      });
    });

    test('we make a veth pair with its other end elsewhere: in the namespace of a descriptor, or of a process', async () => {
      const pair = (peer: object): Question =>
        newLink({
          ...{ name: 'v0', address: mac(3), flags: IFF_UP, change: IFF_UP },
          info: { kind: 'veth', data: { peer: { name: 'v1', mtu: 1333, address: mac(4), ...peer } } },
        });
      for (const [where, peer, elsewhere] of [
        [undefined, { netNsFd: 'fd:/run/netns/b' }, 'b'],
        ['c', { netNsPid: 1 }, undefined],
      ] as const) {
        await done(where, pair(peer));
        expect(await show(where, 'v0')).toMatchObject({
          ...{ address: '02:00:00:00:00:03', mtu: 1500, linkinfo: { info_kind: 'veth' } },
        });
        const other = await show(elsewhere, 'v1');
        expect(other).toMatchObject({ address: '02:00:00:00:00:04', mtu: 1333, linkinfo: { info_kind: 'veth' } });
        expect(await one(where, getLink('v0'))).toMatchObject({ info: { kind: 'veth' }, link: other.ifindex });
        await done(where, deleteLink('v0'));
      }
      await done(
        'c',
        newLink({ name: 'vx9', info: { kind: 'vxlan', data: { id: 9 } } }),
        setLink({ name: 'vx9', netNsPid: 1 }),
      );
      await show(undefined, 'vx9');
    });

    test('a dump has the same links as ip', async () => {
      const all = await one<ReceivedLink[]>(undefined, { verb: 'dump', codec: 'link', type: RTM_GETLINK, body: {} });
      const shown = (await json(undefined, 'ip', '-j', 'link')) as { ifindex: number; ifname: string; mtu: number }[];
      expect(all.map(({ index, name, mtu }) => [index, name, mtu])).toEqual(
        shown.map(({ ifindex, ifname, mtu }) => [ifindex, ifname, mtu]),
      );
      expect(all.length).toBeGreaterThan(3);
    });
  });

  describe('on a vxlan device', () => {
    let index: number;
    beforeAll(async () => {
      await lab.ip(undefined, [
        'link add vx5 address 02:00:00:00:00:05 type vxlan id 5 dstport 4795 local 127.0.0.1',
        'link set vx5 addrgenmode none',
        'link set vx5 up',
      ]);
      index = await indexOf('vx5');
    });

    test('addresses', async () => {
      const body = { family: AF_INET, prefixLength: 24, scope: 0, index };
      const ours = { ...body, local: bytes(10, 20, 0, 1), label: 'vx5:x' };
      await done(undefined, { verb: 'do', codec: 'address', type: RTM_NEWADDR, flags: CREATE, body: ours });
      const [shown] = await json(undefined, 'ip', '-j', 'address', 'show', 'dev', 'vx5');
      expect(shown).toMatchObject({
        addr_info: [{ local: '10.20.0.1', prefixlen: 24, label: 'vx5:x', scope: 'global' }],
      });
      await lab.ip(undefined, ['address add 10.21.0.1 peer 10.21.0.2/32 scope link dev vx5']);
      const dump: Question = { verb: 'dump', codec: 'address', type: RTM_GETADDR, body: { family: AF_INET, index } };
      const all = (await one<Address[]>(undefined, dump)).sort((a, b) => a.scope - b.scope);
      expect(all).toEqual([
        { ...ours, flags: 0x80, address: ours.local },
        {
          ...{ ...body, prefixLength: 32, scope: RT_SCOPE_LINK, flags: 0x80, label: 'vx5' },
          ...{ local: bytes(10, 21, 0, 1), address: bytes(10, 21, 0, 2) },
        },
      ]);
      await done(undefined, { verb: 'do', codec: 'address', type: RTM_DELADDR, body: ours });
      expect(await one(undefined, dump)).toHaveLength(1);
    });

    test('routes: unreachable, onlink, with an MTU, into a tunnel', async () => {
      const like = { family: AF_INET, table: RT_TABLE_MAIN, protocol: 4, dstLength: 24, type: RTN_UNICAST };
      const far = bytes(192, 168, 1, 1);
      const routes = [
        { ...like, dst: bytes(10, 30, 0, 0), type: RTN_UNREACHABLE, priority: 5 },
        {
          ...{ ...like, dst: bytes(10, 31, 0, 0), oif: index, gateway: bytes(10, 99, 0, 1), flags: RTNH_F_ONLINK },
          metrics: { mtu: 1300, lock: 1 << 2 },
        },
        { ...like, dst: bytes(10, 32, 0, 0), oif: index, scope: RT_SCOPE_LINK, tos: 8 },
        {
          ...{ ...like, dst: bytes(10, 33, 0, 0), oif: index, scope: RT_SCOPE_LINK, encapType: LWTUNNEL_ENCAP_IP },
          encap: { id: bytes(0, 0, 0, 0, 0, 0, 0, 77), dst: far, src: bytes(10, 0, 0, 1), ttl: 64, tos: 4 },
        },
      ];
      const lines = [
        'unreachable 10.30.0.0/24 metric 5',
        '10.31.0.0/24 via 10.99.0.1 dev vx5 onlink mtu lock 1300',
        'tos 8 10.32.0.0/24 dev vx5 scope link',
        '10.33.0.0/24 encap ip id 77 src 10.0.0.1 dst 192.168.1.1 ttl 64 tos 4 dev vx5 scope link',
      ].map((line) => `${line} protocol static`);
      const shown = () => json(undefined, 'ip', '-d', '-j', 'route', 'show', 'protocol', 'static');
      const dump: Question = {
        ...{ verb: 'dump', codec: 'route', type: RTM_GETROUTE },
        body: { family: AF_INET, table: RT_TABLE_MAIN, protocol: 4 },
      };
      const questions = (type: number, flags: number) =>
        routes.map((body): Question => ({ verb: 'do', codec: 'route', type, flags, body }));

      await done(undefined, ...questions(RTM_NEWROUTE, CREATE));
      const [ours, oursDumped] = [await shown(), await one<Route[]>(undefined, dump)];
      expect(ours).toHaveLength(routes.length);
      await done(undefined, ...questions(RTM_DELROUTE, 0));
      expect(await shown()).toEqual([]);

      await lab.ip(
        undefined,
        lines.map((line) => `route add ${line}`),
      );
      expect(await shown()).toEqual(ours);
      expect(await one(undefined, dump)).toEqual(oursDumped);
      expect(oursDumped).toMatchObject(routes);
    });

    test('the route that a packet takes', async () => {
      const look: Question = {
        ...{ verb: 'get', codec: 'route', type: RTM_GETROUTE },
        body: { family: AF_INET, dst: bytes(10, 34, 0, 7), dstLength: 32 },
      };
      await lab.ip(undefined, [
        'address add 10.34.1.1/32 dev vx5',
        'route add 10.34.0.0/24 via 10.99.0.1 dev vx5 onlink src 10.34.1.1',
      ]);
      expect(await one(undefined, look)).toMatchObject({
        ...{ oif: index, gateway: bytes(10, 99, 0, 1), prefsrc: bytes(10, 34, 1, 1), dst: bytes(10, 34, 0, 7) },
      });
      await lab.ip(undefined, ['route replace unreachable 10.34.0.0/24']);
      expect(await ask(undefined, look)).toMatchObject([{ code: 'EHOSTUNREACH' }]);
    });

    test('neighbours, and entries of the forwarding database', async () => {
      const like = { family: AF_INET, ifindex: index };
      const neighbours = [
        { ...like, dst: bytes(10, 40, 0, 1), lladdr: mac(0x41), state: NUD_PERMANENT, flags: NTF_EXT_LEARNED },
        { ...like, dst: bytes(10, 40, 0, 2), lladdr: mac(0x42), state: NUD_PERMANENT, protocol: 4 },
        { ...like, dst: bytes(10, 40, 0, 3), lladdr: mac(0x43), state: NUD_REACHABLE, flags: NTF_EXT_LEARNED },
      ];
      const entries = [
        {
          ...{ ...like, family: AF_BRIDGE, state: NUD_PERMANENT | NUD_NOARP, flags: NTF_SELF, lladdr: mac(0x44) },
          ...{ dst: bytes(192, 168, 7, 7), port: 999, vni: 12 },
        },
      ];
      const questions = (type: number) =>
        [...neighbours, ...entries].map(
          (body): Question => ({ verb: 'do', codec: 'neighbour', type, flags: NLM_F_CREATE | NLM_F_REPLACE, body }),
        );
      const dump = (family: number): Question => ({
        ...{ verb: 'dump', codec: 'neighbour', type: RTM_GETNEIGH, body: { family, filterIfindex: index } },
      });
      // In whatever order they lie in the kernel's hash table.
      const ordered = <T>(all: T[]): T[] =>
        all.sort((a, b) => String((a as Neighbour).dst).localeCompare(String((b as Neighbour).dst)));
      const dumped = async (family: number) =>
        ordered((await one<Neighbour[]>(undefined, dump(family))).map(({ cacheInfo: _, probes: __, ...rest }) => rest));
      const neighboursShown = async () =>
        ordered(await json(undefined, 'ip', '-d', '-j', 'neigh', 'show', 'dev', 'vx5'));
      const entriesShown = () => json(undefined, 'bridge', '-j', 'fdb', 'show', 'dev', 'vx5');

      await done(undefined, ...questions(RTM_NEWNEIGH));
      const ours = [await neighboursShown(), await entriesShown(), await dumped(AF_INET), await dumped(AF_BRIDGE)];
      expect(ours).toMatchObject([
        [
          { dst: '10.40.0.1', lladdr: '02:00:00:00:00:41', extern_learn: null, state: ['PERMANENT'] },
          { dst: '10.40.0.2', lladdr: '02:00:00:00:00:42', protocol: 'static', state: ['PERMANENT'] },
          { dst: '10.40.0.3', lladdr: '02:00:00:00:00:43', extern_learn: null, state: ['REACHABLE'] },
        ],
        [{ mac: '02:00:00:00:00:44', dst: '192.168.7.7', port: 999, vni: 12, flags: ['self'], state: 'permanent' }],
        neighbours,
        entries,
      ]);
      await done(undefined, ...questions(RTM_DELNEIGH));
      expect([await neighboursShown(), await entriesShown()]).toEqual([[], []]);

      await lab.ip(undefined, [
        'neigh add 10.40.0.1 lladdr 02:00:00:00:00:41 dev vx5 nud permanent extern_learn',
        'neigh add 10.40.0.2 lladdr 02:00:00:00:00:42 dev vx5 nud permanent protocol static',
        'neigh add 10.40.0.3 lladdr 02:00:00:00:00:43 dev vx5 nud reachable extern_learn',
      ]);
      const entry = 'bridge fdb add 02:00:00:00:00:44 dev vx5 dst 192.168.7.7 port 999 vni 12 self permanent';
      await lab.must(undefined, entry.split(' '));
      expect([await neighboursShown(), await entriesShown(), await dumped(AF_INET), await dumped(AF_BRIDGE)]).toEqual(
        ours,
      );
    });

    test('the parameters of the neighbour table, for this device alone', async () => {
      const sysctl = async (name: string, device = 'vx5') =>
        Number(await lab.must(undefined, ['sysctl', '-n', `net.ipv4.neigh.${device}.${name}`]));
      const names = {
        ...{ baseReachableTime: 'base_reachable_time_ms', retransTime: 'retrans_time_ms' },
        ...{ appProbes: 'app_solicit', ucastProbes: 'ucast_solicit', mcastProbes: 'mcast_solicit' },
        queueLenbytes: 'unres_qlen_bytes',
      } as const;
      const table = { family: AF_INET, name: 'arp_cache' };
      const read = async () => {
        const dump: Question = {
          verb: 'dump',
          codec: 'neighbourTable',
          type: RTM_GETNEIGHTBL,
          body: { family: AF_INET },
        };
        const all = await one<NeighbourTable[]>(undefined, dump);
        expect(all[0]).toMatchObject({ ...table, thresh1: expect.any(Number), thresh3: expect.any(Number) });
        return all.find(({ name, parms }) => name === table.name && parms?.ifindex === index)?.parms;
      };
      const agree = async () => {
        const parms = await read();
        for (const [name, word] of Object.entries(names))
          expect([name, await sysctl(word)]).toEqual([name, parms?.[name as keyof typeof names]]);
        expect(parms).toMatchObject({
          gcStaletime: 1000 * (await sysctl('gc_stale_time')),
          delayProbeTime: 1000 * (await sysctl('delay_first_probe_time')),
        });
        return parms;
      };
      await agree();
      const other = await sysctl('app_solicit', 'lo');
      const ours = {
        ...{ ifindex: index, appProbes: other + 2, ucastProbes: 5, mcastProbes: 0 },
        ...{
          baseReachableTime: 54_000,
          retransTime: 1500,
          gcStaletime: 90_000,
          delayProbeTime: 7000,
          queueLenbytes: 99_999,
        },
      };
      const change = { verb: 'do', codec: 'neighbourTable', type: RTM_SETNEIGHTBL, flags: NLM_F_REPLACE } as const;
      await done(undefined, { ...change, body: { ...table, parms: ours } });
      expect(await agree()).toMatchObject({ ...ours, queueLenbytes: expect.any(Number) });
      expect(await sysctl('app_solicit', 'lo')).toBe(other);
      await lab.must(undefined, [
        ...['sysctl', '-q', 'net.ipv4.neigh.vx5.app_solicit=0', 'net.ipv4.neigh.vx5.mcast_solicit=1'],
        ...['net.ipv4.neigh.vx5.base_reachable_time_ms=61000'],
      ]);
      expect(await agree()).toMatchObject({ appProbes: 0, mcastProbes: 1, baseReachableTime: 61_000 });
    });

    test('the queueing discipline clsact', async () => {
      const body = { ifindex: index, handle: CLSACT_HANDLE, parent: TC_H_CLSACT, kind: 'clsact' };
      const shown = async () =>
        ((await json(undefined, 'tc', '-j', 'qdisc', 'show', 'dev', 'vx5')) as { kind: string }[]).map(
          ({ kind }) => kind,
        );
      const like = { verb: 'do', codec: 'trafficControl', body } as const;
      await done(undefined, { ...like, type: RTM_NEWQDISC, flags: CREATE });
      expect(await shown()).toContain('clsact');
      expect(await ask(undefined, { ...like, type: RTM_NEWQDISC, flags: CREATE })).toMatchObject([
        { message: 'EEXIST: netlink x: Exclusivity flag on, cannot modify' },
      ]);
      await done(undefined, { ...like, type: RTM_DELQDISC });
      expect(await shown()).not.toContain('clsact');
    });

    test('the kernel asks those who listen for a neighbour', async () => {
      const [own, other] = ['10.50.0.1', bytes(10, 50, 0, 9)];
      await lab.ip(undefined, [`address add ${own}/24 dev vx5`]);
      await lab.must(undefined, [
        ...['sysctl', '-q', 'net.ipv4.neigh.vx5.app_solicit=1', 'net.ipv4.neigh.vx5.mcast_solicit=0'],
      ]);
      const listening: Question = {
        ...{ verb: 'listen', groups: [RTNLGRP_NEIGH], type: RTM_GETNEIGH, count: 1 },
        command: ['ping', '-n', '-c', '1', '-W', '1', '10.50.0.9'],
      };
      const { heard } = await one<{ heard: object[] }>(undefined, listening);
      expect(heard.at(-1)).toMatchObject({
        ...{ type: RTM_GETNEIGH, flags: 1, sequence: 0, port: 0, size: 64 - 16 },
        body: { family: AF_INET, ifindex: index, state: NUD_INCOMPLETE, flags: 0, type: RTN_UNICAST, dst: other },
      });
      expect((heard.at(-1) as { body: object }).body).not.toHaveProperty('lladdr');
    });
  });

  test('chains of nftables', async () => {
    const rules = [
      'table inet one { chain forward { type filter hook forward priority 0; policy drop; }; chain plain { }; }',
      'table ip two { chain pre { type filter hook prerouting priority -5; }; }',
    ];
    await lab.must(undefined, ['nft', '-f', '-'], rules.join('\n'));
    const chains = (family: number): Question => ({
      ...{ verb: 'dump', protocol: NETLINK_NETFILTER, codec: 'chain', type: NFT_MSG_GETCHAIN, body: { family } },
    });
    const forward = {
      ...{ family: NFPROTO_INET, table: 'one', name: 'forward', type: 'filter', policy: 0 },
      hook: { hooknum: NF_INET_FORWARD },
    };
    const plain = { family: NFPROTO_INET, table: 'one', name: 'plain' };
    const pre = { family: 2, table: 'two', name: 'pre', policy: NF_ACCEPT, hook: { hooknum: 0 }, type: 'filter' };
    expect(await one(undefined, chains(0))).toMatchObject([forward, plain, pre]);
    const inet = await one<object[]>(undefined, chains(NFPROTO_INET));
    expect(inet).toMatchObject([forward, plain]);
    expect(inet[1]).not.toHaveProperty('hook');
  });

  describe('the kernel in memory', () => {
    const index = 50;
    const at = { family: AF_INET, ifindex: index };
    const neighbourQuestion = (type: number, flags: number, body: object): Question => ({
      ...{ verb: 'do', codec: 'neighbour', type, flags, body: { ...at, ...body } },
    });
    const put = (flags: number, body: object) => neighbourQuestion(RTM_NEWNEIGH, flags, body);
    const dst = (n: number) => bytes(10, 60, 0, n);
    const known = { dst: dst(1), lladdr: mac(1), state: NUD_REACHABLE };
    const permanent = { dst: dst(2), lladdr: mac(2), state: NUD_PERMANENT, flags: NTF_EXT_LEARNED };
    const fdb = {
      family: AF_BRIDGE,
      lladdr: mac(7),
      dst: bytes(192, 168, 7, 7),
      flags: NTF_SELF,
      state: NUD_PERMANENT,
    };
    const routed = { family: AF_INET, dst: bytes(10, 61, 0, 0), dstLength: 24, scope: RT_SCOPE_LINK, oif: index };
    const routeQuestion = (type: number, flags: number, body: object = {}): Question => ({
      ...{
        verb: 'do',
        codec: 'route',
        type,
        flags,
        body: { protocol: 4, table: RT_TABLE_MAIN, type: 1, ...routed, ...body },
      },
    });
    const addressed = { family: AF_INET, index, prefixLength: 24, local: bytes(10, 62, 0, 1) };
    const addressQuestion = (type: number, flags: number, body: object = {}): Question => ({
      ...{ verb: 'do', codec: 'address', type, flags, body: { ...addressed, ...body } },
    });
    const questions: Question[] = [
      put(0, known),
      put(NLM_F_REPLACE, known),
      put(CREATE, known),
      put(CREATE, known),
      put(NLM_F_CREATE, { ...known, lladdr: mac(9) }),
      put(NLM_F_CREATE | NLM_F_REPLACE, { ...known, lladdr: mac(8) }),
      put(NLM_F_REPLACE, { ...known, lladdr: undefined, state: NUD_FAILED }),
      put(CREATE, { dst: dst(5), state: NUD_REACHABLE }),
      put(CREATE, { ...known, dst: undefined }),
      put(CREATE, { ...known, dst: bytes(1, 2) }),
      put(CREATE, { ...known, dst: dst(6), lladdr: bytes(1, 2, 3, 4) }),
      put(CREATE, { ...known, ifindex: 99 }),
      put(CREATE, permanent),
      put(CREATE, fdb),
      put(CREATE, fdb),
      put(0, { ...fdb, lladdr: mac(6) }),
      put(CREATE, { ...fdb, ifindex: 0 }),
      put(CREATE, { ...fdb, ifindex: 99 }),
      put(CREATE, { ...fdb, lladdr: bytes(1) }),
      { ...neighbourQuestion(RTM_GETNEIGH, 0, { dst: dst(2) }), verb: 'get' },
      { ...neighbourQuestion(RTM_GETNEIGH, 0, { dst: dst(77) }), verb: 'get' },
      { ...neighbourQuestion(RTM_GETNEIGH, 0, { dst: dst(77), ifindex: 99 }), verb: 'get' },
      neighbourQuestion(RTM_DELNEIGH, 0, { dst: dst(2) }),
      neighbourQuestion(RTM_DELNEIGH, 0, { dst: dst(77) }),
      neighbourQuestion(RTM_DELNEIGH, 0, { dst: dst(2), ifindex: 99 }),
      neighbourQuestion(RTM_DELNEIGH, 0, fdb),
      neighbourQuestion(RTM_DELNEIGH, 0, fdb),
      { ...neighbourQuestion(RTM_GETNEIGH, 0, { ifindex: index }), verb: 'dump' },
      routeQuestion(RTM_NEWROUTE, 0),
      routeQuestion(RTM_NEWROUTE, NLM_F_REPLACE),
      routeQuestion(RTM_NEWROUTE, CREATE),
      routeQuestion(RTM_NEWROUTE, CREATE),
      routeQuestion(RTM_NEWROUTE, NLM_F_REPLACE),
      routeQuestion(RTM_NEWROUTE, CREATE, { dst: bytes(10, 61, 0, 1) }),
      routeQuestion(RTM_NEWROUTE, CREATE, { dst: bytes(10, 64, 0, 0), oif: 99 }),
      routeQuestion(RTM_NEWROUTE, CREATE, { dst: bytes(10, 64, 0, 0), oif: 51 }),
      routeQuestion(RTM_NEWROUTE, CREATE, {
        ...{
          dst: bytes(10, 64, 0, 0),
          oif: 51,
          gateway: bytes(10, 65, 0, 1),
          flags: RTNH_F_ONLINK,
          scope: RT_SCOPE_UNIVERSE,
        },
      }),
      routeQuestion(RTM_NEWROUTE, CREATE, { dst: bytes(10, 66, 0, 0), oif: undefined, type: RTN_UNREACHABLE }),
      {
        ...routeQuestion(RTM_GETROUTE, 0, { dst: bytes(10, 66, 0, 1), dstLength: 32 }),
        verb: 'get',
        body: { ...routed, oif: undefined, scope: 0, dst: bytes(10, 66, 0, 1), dstLength: 32 },
      },
      {
        ...routeQuestion(RTM_GETROUTE, 0),
        verb: 'get',
        body: { family: AF_INET, dst: bytes(11, 1, 1, 1), dstLength: 32 },
      },
      routeQuestion(RTM_DELROUTE, 0, { dst: bytes(10, 99, 0, 0) }),
      routeQuestion(RTM_DELROUTE, 0, { protocol: 3 }),
      routeQuestion(RTM_DELROUTE, 0, { type: 0, protocol: 0, scope: 255 }),
      addressQuestion(RTM_NEWADDR, CREATE),
      addressQuestion(RTM_NEWADDR, CREATE),
      addressQuestion(RTM_NEWADDR, NLM_F_CREATE),
      addressQuestion(RTM_NEWADDR, NLM_F_REPLACE),
      addressQuestion(RTM_NEWADDR, CREATE, { index: 99 }),
      addressQuestion(RTM_NEWADDR, CREATE, { local: undefined }),
      addressQuestion(RTM_DELADDR, 0),
      addressQuestion(RTM_DELADDR, 0),
      newLink({ name: 'vx50', info: { kind: 'vxlan', data: { id: 3 } } }),
      newLink({ name: 'x', info: { kind: 'nonsense' } }),
      setLink({ name: 'nobody', mtu: 1400 }),
      { ...setLink({ name: 'vx50', mtu: 1400 }), flags: NLM_F_REPLACE },
      setLink({ name: 'vx50', info: { kind: 'veth' } }),
      getLink('nobody'),
      deleteLink('nobody'),
      deleteLink('lo'),
      {
        ...{ verb: 'do', codec: 'neighbourTable', type: RTM_SETNEIGHTBL, flags: NLM_F_REPLACE },
        body: { family: AF_INET, name: 'nonsense', parms: { ifindex: index, appProbes: 1 } },
      },
      {
        ...{ verb: 'do', codec: 'neighbourTable', type: RTM_SETNEIGHTBL, flags: NLM_F_REPLACE },
        body: { family: AF_INET, name: 'arp_cache', parms: { ifindex: 99, appProbes: 1 } },
      },
      { verb: 'dump', codec: 'neighbourTable', type: RTM_GETNEIGHTBL, body: { family: AF_INET, name: 'arp_cache' } },
      setLink({ name: 'vx50', info: { kind: 'gre', data: { ttl: 3 } } }),
      put(CREATE, { ...permanent, dst: dst(3) }),
      deleteLink('vx50'),
    ];

    test('refuses the same with the same words, and tells the same of neighbours', async () => {
      const codecs = { link, address, neighbour, neighbourTable, route } as const;
      const real = await (async () => {
        await lab
          .ip(undefined, [
            'netns add like',
            'netns exec like ip link add vx50 index 50 address 02:00:00:00:00:50 type vxlan id 3 dstport 4800',
            'netns exec like ip link set vx50 addrgenmode none',
            'netns exec like ip link set vx50 up',
            'netns exec like ip link add vx51 index 51 type vxlan id 4 dstport 4801',
            'netns exec like ip link set lo up',
          ])
          .catch(() => {});
        // The link's end is the last thing that is told.
        const tail = { verb: 'listen', groups: [RTNLGRP_NEIGH, RTNLGRP_LINK], type: RTM_DELLINK, count: 1 } as const;
        const [answer] = await ask('like', { ...tail, questions });
        return answer as {
          answers: unknown[];
          heard: { type: number; port: number; body: Neighbour }[];
          ports: { own: number };
        };
      })();

      const kernel = new FakeKernel();
      kernel.addLink({ index, name: 'vx50', address: mac(0x50), info: { kind: 'vxlan', data: { id: 3 } } });
      kernel.addLink({ index: 51, name: 'vx51', flags: 0, info: { kind: 'vxlan', data: { id: 4 } } });
      const monitor = kernel.connect([RTNLGRP_NEIGH]);
      const netlink = new Netlink(kernel.connect());
      const answers = questions.map(({ verb, codec, type, flags = 0, body }) => {
        const of = codecs[codec as 'link'];
        const asked = request(type as number, flags as number, 'x', of, body as Link);
        try {
          return verb === 'do' ? netlink.do(asked) : netlink[verb as 'get'](asked, of);
        } catch (error) {
          const { code, message } = error as { code: string; message: string };
          return { code, message };
        }
      });
      const brief = (all: unknown[]) =>
        all.map((answer, i) => [i, toJson(questions[i]), (answer as { message?: string } | undefined)?.message]);
      expect(brief(answers)).toEqual(brief(real.answers));

      const heard = [];
      for (let datagram = monitor.receive(); datagram; datagram = monitor.receive()) {
        for (const { type, port, view, start, end } of messagesIn(datagram.slice()))
          heard.push({ type, port, body: neighbour.get(view, start, end) });
      }
      expect(stories(heard, netlink.port)).toEqual(stories(real.heard, real.ports.own));
    });

    /** What was told of each neighbour. In whatever order Linux removes them. */
    function stories(heard: readonly { type: number; port: number; body: Neighbour }[], own: number): unknown {
      const byNeighbour: Record<string, unknown[]> = {};
      for (const { type, port, body } of heard) {
        // Linux keeps a nameless entry of a neighbour that it refused to make.
        if (body.ifindex !== index || !isNeighbour(type) || body.dst?.[3] === 5) continue;
        const { family, state, dst: to, lladdr, flags } = body;
        byNeighbour[`${family} ${to}`] ??= [];
        byNeighbour[`${family} ${to}`]?.push({ type, isOwn: port === own, state, flags, lladdr });
      }
      return byNeighbour;
    }
    const isNeighbour = (type: number) => type === RTM_NEWNEIGH || type === RTM_DELNEIGH;
  });
});

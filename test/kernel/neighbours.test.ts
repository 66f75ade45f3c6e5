/** The neighbour daemon over a kernel in memory: what is asked is answered, what is missing or wrong is put right, and what is others' stays. */
import os from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { macOf } from '../../src/dataplane/kernel/device.ts';
import { Neighbours } from '../../src/dataplane/kernel/neighbours.ts';
import type { Way } from '../../src/dataplane/kernel/ways.ts';
import { ipv4Bytes } from '../../src/linux/netlink/ipv4.ts';
import { IFF_UP } from '../../src/linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, request } from '../../src/linux/netlink/message.ts';
import {
  AF_BRIDGE,
  type NeighbourRequest,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  route,
} from '../../src/linux/netlink/route.ts';
import { formatAddress, ipv4, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';

const { EACCES, ENOBUFS, ENOENT, ESRCH } = os.constants.errno;
const AF_INET = 2;
const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>;
const number = (text: string) => Number(parseAddress(text)?.bits);
const bytes = (text: string) => ipv4Bytes(number(text));
const text = (all: Uint8Array | undefined) => (all ? [...all].join('.') : '');
const mapping = (overlay: string, underlay: string) => new Mapping(prefix(overlay), prefix(underlay));

const SIMPLE = [mapping('10.0.0.0/8', '192.168.0.0/16')];
const DENSE = [mapping('240.0.0.0/4', '192.168.0.0/17')];
const TWO = [mapping('10.0.0.0/8', '192.168.0.0/16'), mapping('240.0.0.0/4', '192.168.0.0/16')];

class Machine {
  readonly kernel = new FakeKernel();
  readonly others = new Netlink(this.kernel.connect());
  readonly ifindex: number;
  readonly elsewhere: number;
  readonly neighbours: Neighbours;
  readonly changes: string[] = [];
  readonly errors: string[] = [];
  readonly resyncs: object[] = [];
  readonly learnt: string[] = [];
  /** What the underlay's ways are like, where there is something to say. */
  readonly ways = new Map<string, Way>();
  /** VMs that packets have come from. */
  readonly heard = new Set<string>();
  asked = 0;

  constructor(mappings: Mapping[] = SIMPLE, isVxlan = true, local = '192.168.16.32') {
    const info = isVxlan ? ({ kind: 'vxlan' } as const) : ({ kind: 'gre' } as const);
    this.ifindex = this.kernel.addLink({ name: 'inlay0', info, flags: IFF_UP });
    this.elsewhere = this.kernel.addLink({ name: 'other0', info: { kind: 'vxlan' }, flags: IFF_UP });
    this.neighbours = new Neighbours({
      ...{ mappings, local: ipv4(number(local)), device: 'inlay0', ifindex: this.ifindex, isVxlan, overhead: 50 },
      wayTo: (vm) => {
        this.asked++;
        return this.ways.get(formatAddress(ipv4(vm))) ?? {};
      },
      isHeard: (vm) => this.heard.has(formatAddress(ipv4(vm))),
      onLearnt: (tunnels) => {
        this.learnt.push(
          ...tunnels.map(({ vm, before, ...way }) =>
            [formatAddress(ipv4(vm)), ...[before, way].map((each) => JSON.stringify(each))].join(' '),
          ),
        );
      },
      netlink: new Netlink(this.kernel.connect()),
      openNetlink: () => new Netlink(this.kernel.connect()),
      onTunnels: (change, vms) => this.changes.push(`${change} ${vms.map((vm) => formatAddress(ipv4(vm))).join()}`),
      onResync: (facts) => this.resyncs.push(facts),
      onError: (error) => this.errors.push(error.message),
    });
  }

  /** Packets wait for these addresses, and the daemon is asked for them. */
  ask(...dsts: string[]): void {
    for (const dst of dsts) this.kernel.ask(this.ifindex, bytes(dst));
    this.neighbours.answer(
      dsts.map((dst) => ({
        family: AF_INET,
        ifindex: this.ifindex,
        state: NUD_INCOMPLETE,
        flags: 0,
        type: 0,
        dst: bytes(dst),
      })),
    );
  }

  /** All entries of the device, as text. */
  get entries(): string[] {
    const neighbours = this.kernel.neighbours
      .filter(({ ifindex }) => ifindex === this.ifindex)
      .map(({ family, dst, lladdr, state, flags }) =>
        family === AF_BRIDGE
          ? `${text(lladdr)} at ${text(dst)}`
          : `${text(dst)} is ${text(lladdr)} state ${state} flags ${flags}`,
      );
    const routes = this.kernel.routes
      .filter(({ oif, protocol }) => oif === this.ifindex && protocol === 73)
      .map(
        ({ dst, dstLength, gateway, prefsrc, metrics }) =>
          `${text(dst)}/${dstLength} via ${text(gateway)} from ${text(prefsrc)}${metrics?.mtu ? ` mtu ${metrics.mtu}` : ''}`,
      );
    return [...neighbours, ...routes].sort();
  }

  /** Somebody else changes a neighbour, a forwarding entry or a route. */
  putNeighbour(body: NeighbourRequest): void {
    this.others.do(
      request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, 'n', neighbour, {
        family: AF_INET,
        ifindex: this.ifindex,
        ...body,
      }),
    );
  }
  deleteNeighbour(body: NeighbourRequest): void {
    this.others.do(request(RTM_DELNEIGH, 0, 'n', neighbour, { family: AF_INET, ifindex: this.ifindex, ...body }));
  }
  putRoute(body: RouteRequest): void {
    this.others.do(
      request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, 'r', route, { ...ROUTE, oif: this.ifindex, ...body }),
    );
  }
  deleteRoute(body: RouteRequest): void {
    this.others.do(request(RTM_DELROUTE, 0, 'r', route, { ...ROUTE, oif: this.ifindex, ...body }));
  }
}
const ROUTE = { family: AF_INET, table: RT_TABLE_MAIN, protocol: 73, type: RTN_UNICAST };

const mac = (vm: string) => text(macOf(number(vm)));
const SELF = { family: AF_BRIDGE, flags: NTF_SELF, state: NUD_PERMANENT };
const B = [
  `${mac('192.168.16.33')} at 192.168.16.33`,
  '10.16.33.0/24 via 10.16.33.1 from 10.16.32.1',
  `10.16.33.1 is ${mac('192.168.16.33')} state ${NUD_STALE} flags ${NTF_EXT_LEARNED}`,
].sort();
const C = [
  `${mac('192.168.16.34')} at 192.168.16.34`,
  '10.16.34.0/24 via 10.16.34.1 from 10.16.32.1',
  `10.16.34.1 is ${mac('192.168.16.34')} state ${NUD_STALE} flags ${NTF_EXT_LEARNED}`,
].sort();
const sorted = (...lists: string[][]) => lists.flat().sort();

describe('neighbours', () => {
  let machine: Machine;
  beforeEach(() => {
    machine = new Machine();
  });

  describe('answers', () => {
    test('a container: the entries of its VM; what waited is answered, and forgotten', () => {
      const heard: string[] = [];
      const listener = machine.kernel.connect([3]);
      machine.ask('10.16.33.7');
      for (let datagram = listener.receive(); datagram; datagram = listener.receive()) {
        const view = new DataView(datagram.buffer, datagram.byteOffset);
        const { dst, state } = neighbour.get(view, 16, view.getUint32(0, true));
        heard.push(`${text(dst)} ${state}`);
      }
      // Its state was known for a moment: the packets left then.
      expect(heard).toContain(`10.16.33.7 ${NUD_REACHABLE}`);
      expect(machine.entries).toEqual(B);
      expect(machine.neighbours.counters).toEqual({ answered: 1, refused: 0, failed: 0, resyncs: 0, repaired: 0 });
      expect([machine.changes, machine.errors, machine.neighbours.count]).toEqual([['opened 192.168.16.33'], [], 1]);
    });

    test('the VM itself, by its overlay address', () => {
      machine.ask('10.16.33.1');
      expect(machine.entries).toEqual(B);
    });

    test('one that is doubted', () => {
      machine.ask('10.16.33.1');
      machine.kernel.ask(machine.ifindex, bytes('10.16.33.1'), NUD_PROBE);
      machine.neighbours.answer(machine.kernel.neighbours.filter(({ state }) => state === NUD_PROBE));
      expect(machine.entries).toEqual(B);
      expect(machine.neighbours.counters.answered).toBe(2);
    });

    test('many at once, of several VMs', () => {
      machine.ask('10.16.33.7', '10.16.34.9', '10.16.33.8', '10.16.33.7', '10.16.34.1');
      expect(machine.entries).toEqual(sorted(B, C));
      expect(machine.changes).toEqual(['opened 192.168.16.33,192.168.16.34']);
      expect(machine.neighbours.counters.answered).toBe(5);
    });

    test.each([
      ['the slice itself', '10.16.33.0'],
      ['the address kept free', '10.16.33.255'],
      ['our own slice', '10.16.32.7'],
      ['our own address', '10.16.32.1'],
      ['outside the overlay', '11.16.33.7'],
      ['of the underlay', '192.168.16.33'],
    ])('%s: refused, forgotten and counted', (_, dst) => {
      machine.ask(dst);
      expect(machine.entries).toEqual([]);
      expect(machine.neighbours.counters).toMatchObject({ answered: 0, refused: 1, failed: 0 });
      expect([machine.changes, machine.errors]).toEqual([[], []]);
    });

    test('too many requests for nobody: all are refused, but their VMs are known from then on, so that the kernel does not ask again', () => {
      machine.ask(...Array.from({ length: 1000 }, (_, i) => `10.20.${i >> 2}.${i & 1 ? 255 : 0}`));
      expect(machine.neighbours.counters).toMatchObject({ answered: 0, refused: 1000, failed: 0 });
      expect(machine.neighbours.count).toBeGreaterThan(200);
      expect(machine.neighbours.count).toBeLessThan(250);
      expect(machine.errors).toEqual([]);
    });

    test('the last slice of 240.0.0.0/4 is refused', () => {
      const dense = new Machine(DENSE);
      dense.ask('255.255.255.254', '255.255.224.1');
      expect(dense.entries).toEqual([]);
      expect(dense.neighbours.counters.refused).toBe(2);
      dense.ask('255.255.223.7');
      expect(dense.entries).toContain('255.255.192.0/19 via 255.255.192.1 from 242.4.0.1');
    });

    test('8,192 addresses behind a VM cost one route, one neighbour and one MAC address', () => {
      const dense = new Machine(DENSE);
      const first = number('242.4.32.0');
      const before = dense.kernel.neighbours.length;
      dense.ask(...Array.from({ length: 8192 }, (_, i) => formatAddress(ipv4(first + i))));
      expect(dense.entries).toEqual(
        [
          `${mac('192.168.16.33')} at 192.168.16.33`,
          '242.4.32.0/19 via 242.4.32.1 from 242.4.0.1',
          `242.4.32.1 is ${mac('192.168.16.33')} state ${NUD_STALE} flags ${NTF_EXT_LEARNED}`,
        ].sort(),
      );
      expect(dense.kernel.neighbours.length).toBe(before + 2);
      expect(dense.neighbours.counters).toMatchObject({ answered: 8190, refused: 2, failed: 0 });
    });

    test('GRE: the neighbour is the underlay address, and there is no MAC address', () => {
      const gre = new Machine(SIMPLE, false);
      gre.ask('10.16.33.7');
      expect(gre.entries).toEqual(
        [
          '10.16.33.0/24 via 10.16.33.1 from 10.16.32.1',
          `10.16.33.1 is 192.168.16.33 state ${NUD_STALE} flags ${NTF_EXT_LEARNED}`,
        ].sort(),
      );
    });

    test('several mappings of the same VMs: all of its slices at once, and one MAC address', () => {
      const two = new Machine(TWO);
      two.ask('10.16.33.7');
      expect(two.entries).toEqual(
        [
          ...B,
          '241.2.16.0/20 via 241.2.16.1 from 241.2.0.1',
          `241.2.16.1 is ${mac('192.168.16.33')} state ${NUD_STALE} flags ${NTF_EXT_LEARNED}`,
        ].sort(),
      );
      two.ask('241.2.16.1');
      expect(two.changes).toEqual(['opened 192.168.16.33']);
    });
  });

  describe('errors of the kernel', () => {
    test('are counted and told', () => {
      machine.kernel.failNext(RTM_NEWROUTE, ENOBUFS, 'no room');
      machine.ask('10.16.33.7');
      expect(machine.neighbours.counters).toMatchObject({ answered: 1, failed: 1 });
      expect(machine.errors).toEqual(['ENOBUFS: netlink VM 192.168.16.33: no room']);
      machine.kernel.failNext(RTM_NEWNEIGH, EACCES);
      machine.ask('10.16.34.7');
      expect(machine.neighbours.counters.failed).toBe(2);
    });

    test.each([ENOENT, ESRCH])('what has gone meanwhile is none (%i)', (errno) => {
      machine.kernel.failNext(RTM_DELNEIGH, errno);
      machine.ask('10.16.33.7');
      machine.kernel.failNext(RTM_DELROUTE, errno);
      return machine.neighbours.removeIdle(0).then(() => {
        expect([machine.neighbours.counters.failed, machine.errors]).toEqual([0, []]);
      });
    });
  });

  describe('the ways', () => {
    const VM = '192.168.16.33';
    const LOST = { unreachable: 0 };
    /** B, but for its route. */
    const to = (via: string, mtu = '') =>
      B.map((line) => line.replace('via 10.16.33.1', `via ${via}`))
        .map((line) => (line.includes(' via ') ? line + mtu : line))
        .sort();
    const vm = number(VM);

    test('a path that takes less than the device: the route says what goes through, from the first packet on', () => {
      machine.ways.set(VM, { pathMtu: 1400 });
      machine.ask('10.16.33.7');
      expect(machine.entries).toEqual(to('10.16.33.1', ' mtu 1350'));
    });

    test('no way: who waits is told, and so is who comes later, by a neighbour that nobody can be', () => {
      machine.ways.set(VM, LOST);
      machine.ask('10.16.33.7', '10.16.33.1');
      expect(machine.entries).toEqual(to('10.16.33.0'));
      expect(machine.neighbours.counters).toMatchObject({ answered: 0, refused: 2, failed: 0 });
      machine.ask('10.16.33.0');
      expect(machine.entries).toEqual(to('10.16.33.0'));
      expect(machine.neighbours.counters).toMatchObject({ answered: 0, refused: 3, failed: 0 });
      expect([machine.changes, machine.neighbours.count]).toEqual([[`opened ${VM}`], 1]);
    });

    test('no way, and many packets: the kernel is answered 100 times a second, and then ten times', async () => {
      machine.ways.set(VM, LOST);
      machine.ask('10.16.33.7');
      const before = machine.neighbours.counters.refused;
      for (let i = 0; i < 1000; i++) machine.ask('10.16.33.0');
      const refused = machine.neighbours.counters.refused - before;
      expect(refused).toBeGreaterThanOrEqual(99);
      expect(refused).toBeLessThan(200);
      const waits = () => machine.entries.some((line) => line.startsWith('10.16.33.0 is'));
      expect(waits()).toBe(true);
      await expect.poll(waits, { timeout: 5000, interval: 10 }).toBe(false);
      expect(machine.entries).toEqual(to('10.16.33.0'));
      expect(machine.neighbours.counters.refused - before).toBe(refused + 1);
    });

    test('they change, and the route with them; each change is told', async () => {
      machine.ask('10.16.33.7', '10.16.34.7');
      let before: Way = {};
      for (const [way, via, mtu] of [
        [{ pathMtu: 1400 }, '10.16.33.1', ' mtu 1350'],
        [{ pathMtu: 1300 }, '10.16.33.1', ' mtu 1250'],
        [LOST, '10.16.33.0', ''],
        [{}, '10.16.33.1', ''],
      ] as const) {
        machine.ways.set(VM, way);
        await machine.neighbours.follow([vm]);
        expect(machine.entries).toEqual(sorted(C, to(via, mtu)));
        expect(machine.neighbours.wayOf(vm)).toEqual(way);
        expect(machine.learnt.splice(0)).toEqual([`${VM} ${JSON.stringify(before)} ${JSON.stringify(way)}`]);
        before = way;
        await machine.neighbours.follow([vm]);
        expect(machine.learnt).toEqual([]);
      }
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 0 });
    });

    test('of all VMs, of those that are named, and of a few others in turn', async () => {
      const vms = Array.from({ length: 100 }, (_, i) => `10.17.${i}.1`);
      machine.ask(...vms);
      machine.asked = 0;
      await machine.neighbours.follow('all');
      expect(machine.asked).toBe(100);
      machine.asked = 0;
      // One that is not known costs nothing.
      await machine.neighbours.follow([vm]);
      expect(machine.asked).toBeLessThan(20);
      machine.ways.set('192.168.17.77', LOST);
      for (let i = 0; i < 8; i++) await machine.neighbours.follow([]);
      expect(machine.learnt).toEqual([`192.168.17.77 {} ${JSON.stringify(LOST)}`]);
    });

    test.each<[string, Way, string[]]>([
      ['a narrow one', { pathMtu: 1400 }, to('10.16.33.1', ' mtu 1350')],
      ['none', LOST, to('10.16.33.0')],
    ])('what is right with %s is no repair, and what others change is', async (_, way, right) => {
      machine.ways.set(VM, way);
      machine.ask('10.16.33.7');
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(right);
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 0 });
      machine.asked = 0;
      expect([machine.neighbours.wayOf(vm), machine.neighbours.wayOf(vm + 1), machine.asked]).toEqual([way, {}, 0]);
      const priority = machine.kernel.routes.find(({ gateway }) => gateway)?.priority;
      machine.putRoute({ dst: bytes('10.16.33.0'), dstLength: 24, gateway: bytes('10.16.33.1'), priority });
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(right);
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 1 });
    });

    test.each<Way>([{ pathMtu: 1400 }, LOST])('one that is idle goes, with %j', async (way) => {
      machine.ways.set(VM, way);
      machine.ask('10.16.33.7');
      await machine.neighbours.removeIdle(0);
      expect(machine.entries).toEqual([]);
      expect(machine.neighbours.counters.failed).toBe(0);
    });

    test('without a daemon the kernel forwards as soon as there is a way', async () => {
      machine.ways.set(VM, LOST);
      machine.ask('10.16.33.7', '10.16.34.7');
      await machine.neighbours.close();
      expect(machine.entries).toEqual(sorted(B, C));
    });

    describe('of many VMs', () => {
      const many = Array.from({ length: 500 }, (_, i) => `192.168.${20 + (i >> 8)}.${i & 255}`);
      const lost = () => machine.entries.filter((line) => line.includes('.0 from 10.16.32.1')).length;
      beforeEach(() => machine.ask(...many.map((vm) => `${vm.replace('192.168', '10')}.1`)));
      const lose = () => {
        for (const vm of many) machine.ways.set(vm, LOST);
      };

      test.each<[string, (all: Neighbours) => Promise<void>]>([
        ['a look at their ways', (all) => all.follow('all')],
        ['a comparison', (all) => all.resync()],
      ])('who closes does not wait for %s, which changes nothing any more', async (_, begin) => {
        lose();
        const before = machine.entries;
        machine.asked = 0;
        const work = begin(machine.neighbours).then(
          () => 'done',
          () => 'ended',
        );
        await machine.neighbours.close();
        expect(await work).toBe('ended');
        expect(machine.asked).toBeLessThan(many.length / 2);
        expect(machine.entries).toEqual(before);
      });

      test('others have their turn while they get their neighbours back', async () => {
        lose();
        await machine.neighbours.follow('all');
        expect(lost()).toBe(many.length);
        const seen: number[] = [];
        const isClosed = machine.neighbours.close().then(() => true);
        while (seen.at(-1) !== 0) {
          seen.push(lost());
          await Promise.race([isClosed, turn()]);
        }
        expect(seen.length).toBeGreaterThan(many.length / 100);
        await isClosed;
      });
    });
  });

  describe('compares with the kernel', () => {
    test('what waits is answered', async () => {
      machine.kernel.ask(machine.ifindex, bytes('10.16.33.7'));
      machine.kernel.ask(machine.ifindex, bytes('10.16.34.1'), NUD_PROBE);
      machine.kernel.ask(machine.ifindex, bytes('10.16.33.255'));
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(sorted(B, C));
      expect(machine.neighbours.counters).toEqual({ answered: 2, refused: 1, failed: 0, resyncs: 1, repaired: 0 });
    });

    test('what waits for a VM whose entries are wrong is answered, and they are put right', async () => {
      machine.ask('10.16.33.7');
      const wrong = { lladdr: macOf(1), state: NUD_STALE, flags: NTF_EXT_LEARNED, protocol: 73 };
      machine.putNeighbour({ dst: bytes('10.16.33.1'), ...wrong });
      machine.kernel.ask(machine.ifindex, bytes('10.16.33.9'));
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(B);
    });

    test('what an earlier daemon left is known then', async () => {
      machine.ask('10.16.33.7', '10.16.34.7');
      const kernel = machine.kernel;
      const vms: string[] = [];
      const next = new Neighbours({
        ...{
          mappings: SIMPLE,
          local: ipv4(number('192.168.16.32')),
          device: 'inlay0',
          ifindex: machine.ifindex,
          isVxlan: true,
          overhead: 50,
        },
        wayTo: () => ({}),
        isHeard: () => true,
        onLearnt: () => {},
        netlink: new Netlink(kernel.connect()),
        openNetlink: () => new Netlink(kernel.connect()),
        onTunnels: (change, found) => vms.push(`${change} ${found.length}`),
        onResync: () => {},
        onError: () => {},
      });
      const before = machine.entries;
      await next.resync();
      expect([next.count, vms, next.counters.repaired, machine.entries]).toEqual([2, ['opened 2'], 0, before]);
    });

    test.each<[string, (m: Machine) => void]>([
      ['its route', (m) => m.deleteRoute({ dst: bytes('10.16.33.0'), dstLength: 24 })],
      ['its neighbour', (m) => m.deleteNeighbour({ dst: bytes('10.16.33.1') })],
      ['its MAC address', (m) => m.deleteNeighbour({ ...SELF, lladdr: macOf(number('192.168.16.33')) })],
    ])('a VM without %s gets it again', async (_, take) => {
      machine.ask('10.16.33.7', '10.16.34.7');
      take(machine);
      expect(machine.entries).not.toEqual(sorted(B, C));
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(sorted(B, C));
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 1 });
      await machine.neighbours.resync();
      expect(machine.neighbours.counters).toMatchObject({ resyncs: 2, repaired: 1 });
    });

    test.each<[string, (m: Machine) => void]>([
      [
        'MAC address',
        (m) =>
          m.putNeighbour({
            dst: bytes('10.16.33.1'),
            lladdr: macOf(1),
            state: NUD_STALE,
            flags: NTF_EXT_LEARNED,
            protocol: 73,
          }),
      ],
      [
        'MAC address, not as one of ours',
        (m) => m.putNeighbour({ dst: bytes('10.16.33.1'), lladdr: macOf(1), state: NUD_REACHABLE }),
      ],
      [
        'state',
        (m) => m.putNeighbour({ dst: bytes('10.16.33.1'), state: NUD_FAILED, flags: NTF_EXT_LEARNED, protocol: 73 }),
      ],
      [
        'place',
        (m) => m.putNeighbour({ ...SELF, lladdr: macOf(number('192.168.16.33')), dst: bytes('192.168.16.77') }),
      ],
    ])('a wrong %s is put right', async (_, spoil) => {
      machine.ask('10.16.33.7');
      spoil(machine);
      expect(machine.entries).not.toEqual(B);
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(B);
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 1 });
    });

    test('entries of ours that fit no mapping go', async () => {
      machine.ask('10.16.33.7');
      machine.putNeighbour({
        dst: bytes('11.0.0.1'),
        lladdr: macOf(5),
        state: NUD_STALE,
        flags: NTF_EXT_LEARNED,
        protocol: 73,
      });
      machine.putNeighbour({
        dst: bytes('10.16.32.9'),
        lladdr: macOf(5),
        state: NUD_STALE,
        flags: NTF_EXT_LEARNED,
        protocol: 73,
      });
      machine.putNeighbour({
        dst: bytes('10.16.40.9'),
        lladdr: macOf(number('192.168.16.40')),
        state: NUD_STALE,
        flags: NTF_EXT_LEARNED,
        protocol: 73,
      });
      machine.putRoute({ dst: bytes('11.0.0.0'), dstLength: 24, gateway: bytes('11.0.0.1') });
      machine.putRoute({ dst: bytes('10.16.40.0'), dstLength: 25, gateway: bytes('10.16.40.1') });
      machine.putRoute({ dst: bytes('10.16.41.0'), dstLength: 24, gateway: bytes('10.16.42.1') });
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(B);
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 0 });
    });

    test("others' entries stay", async () => {
      machine.putNeighbour({ dst: bytes('10.16.50.9'), lladdr: macOf(5), state: NUD_PERMANENT });
      machine.putNeighbour({
        dst: bytes('11.0.0.9'),
        lladdr: macOf(5),
        state: NUD_STALE,
        flags: NTF_EXT_LEARNED,
        protocol: 186,
      });
      machine.putNeighbour({
        dst: bytes('10.16.33.1'),
        lladdr: macOf(9),
        state: NUD_INCOMPLETE,
        ifindex: machine.elsewhere,
      });
      machine.putNeighbour({ ...SELF, lladdr: Uint8Array.of(6, 1, 2, 3, 4, 5), dst: bytes('192.168.16.77') });
      machine.putRoute({ dst: bytes('10.16.41.0'), dstLength: 24, gateway: bytes('10.16.42.1'), protocol: 4 });
      machine.putRoute({ dst: bytes('10.16.33.0'), dstLength: 24, gateway: bytes('9.9.9.9'), oif: machine.elsewhere });
      machine.putRoute({ dst: bytes('10.0.0.0'), dstLength: 8 });
      const before = [machine.kernel.neighbours, machine.kernel.routes];
      await machine.neighbours.resync();
      expect([machine.kernel.neighbours, machine.kernel.routes]).toEqual(before);
      expect(machine.neighbours.count).toBe(0);
    });

    test('VMs whose entries are all gone are closed', async () => {
      machine.ask('10.16.33.7', '10.16.34.7');
      machine.deleteRoute({ dst: bytes('10.16.33.0'), dstLength: 24 });
      machine.deleteNeighbour({ dst: bytes('10.16.33.1') });
      machine.deleteNeighbour({ ...SELF, lladdr: macOf(number('192.168.16.33')) });
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(C);
      expect(machine.changes.at(-1)).toBe('closed 192.168.16.33');
      expect(machine.neighbours.count).toBe(1);
    });

    test('200 VMs, each with something missing', async () => {
      const vms = Array.from({ length: 200 }, (_, i) => `10.17.${i}.7`);
      machine.ask(...vms);
      const before = machine.entries;
      for (let i = 0; i < 200; i++) {
        if (i % 2) machine.deleteRoute({ dst: bytes(`10.17.${i}.0`), dstLength: 24 });
        else machine.deleteNeighbour({ dst: bytes(`10.17.${i}.1`) });
      }
      await machine.neighbours.resync();
      expect(machine.entries).toEqual(before);
      expect(machine.neighbours.counters).toMatchObject({ failed: 0, repaired: 200 });
    });
  });

  describe('idle VMs', () => {
    const used = (m: Machine, dst: string, ticks: number) => {
      const entry = m.kernel.neighbours.find((each) => each.family === AF_INET && text(each.dst) === dst);
      if (entry?.cacheInfo) entry.cacheInfo.used = ticks;
    };

    test('ages come from the neighbours, in ms', async () => {
      machine.ask('10.16.33.7', '10.16.34.7');
      used(machine, '10.16.33.1', 5);
      used(machine, '10.16.34.1', 6000);
      expect(await machine.neighbours.ages()).toEqual(
        new Map([
          [number('192.168.16.33'), 50],
          [number('192.168.16.34'), 60_000],
        ]),
      );
    });

    test('those that are as old as the timeout go, with all their entries', async () => {
      machine.ask('10.16.33.7', '10.16.34.7');
      used(machine, '10.16.33.1', 99);
      used(machine, '10.16.34.1', 100);
      await machine.neighbours.removeIdle(1000);
      expect(machine.entries).toEqual(B);
      expect([machine.changes.at(-1), machine.neighbours.count]).toEqual(['closed 192.168.16.34', 1]);
      await machine.neighbours.removeIdle(990);
      expect(machine.entries).toEqual([]);
      expect(machine.neighbours.counters.failed).toBe(0);
    });

    test('of several mappings the last use counts', async () => {
      const two = new Machine(TWO);
      two.ask('10.16.33.7');
      used(two, '10.16.33.1', 1000);
      used(two, '241.2.16.1', 3);
      expect(await two.neighbours.ages()).toEqual(new Map([[number('192.168.16.33'), 30]]));
      await two.neighbours.removeIdle(31);
      expect(two.neighbours.count).toBe(1);
      await two.neighbours.removeIdle(30);
      expect([two.neighbours.count, two.entries]).toEqual([0, []]);
    });

    describe('that were never heard from', () => {
      beforeEach(() => {
        vi.useFakeTimers({ toFake: ['performance'] });
      });
      afterEach(() => {
        vi.useRealTimers();
      });
      /** The VMs 192.168.64.1 and on. */
      const many = (count: number) => Array.from({ length: count }, (_, i) => `10.64.${i + 1}.7`);

      test('few stay until they are idle', async () => {
        machine.ask(...many(200));
        vi.advanceTimersByTime(60_000);
        await machine.neighbours.removeUnheard();
        expect(machine.neighbours.count).toBe(200);
      });

      test('of many the oldest go after a few seconds, but those that were heard; a packet brings them back', async () => {
        machine.ask('10.16.33.7', '10.16.34.7');
        machine.heard.add('192.168.16.33');
        machine.ask(...many(255));
        await machine.neighbours.removeUnheard();
        expect(machine.neighbours.count).toBe(257);
        vi.advanceTimersByTime(4000);
        await machine.neighbours.removeUnheard();
        expect(machine.neighbours.count).toBe(257);
        machine.ask('10.65.1.7');
        await machine.neighbours.removeUnheard();
        expect([machine.neighbours.count, machine.changes.at(-1)]).toEqual([257, 'closed 192.168.16.34']);
        expect(machine.entries).toEqual(expect.arrayContaining(B));
        expect(machine.entries).not.toContain(C[0]);
        machine.ask('10.16.34.7');
        expect(machine.entries).toEqual(expect.arrayContaining(C));
        expect(machine.neighbours.counters).toMatchObject({ failed: 0, refused: 0 });
      });
    });

    test("others' neighbours have no age", async () => {
      machine.putNeighbour({ dst: bytes('10.16.33.1'), lladdr: macOf(number('192.168.16.33')), state: NUD_PERMANENT });
      expect(await machine.neighbours.ages()).toEqual(new Map());
    });
  });
});

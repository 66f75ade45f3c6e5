/** `inlay up --dataplane kernel` over the kernel's GRE, in User-mode Linux. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/demo.ts';
import { plainErrors } from '../../src/log.ts';
import type { Status, TunnelStatus } from '../../src/observe/status.ts';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from '../uml/machine.ts';

interface Ping {
  from: string;
  to: string;
  sent: number;
  received: number;
  duplicates: number;
  errors: number;
}

/** Of pings that went on while something happened. */
interface LongPing {
  received: number;
  duplicates: number;
  missing: number[];
  errors: string[];
}

interface TransferEnd {
  sent: { bytes: number; sha256: string };
  received: { bytes: number; sha256: string };
}

interface Transfer {
  from: string;
  to: string;
  client: TransferEnd | null;
  server: TransferEnd | null;
}

interface LogLine {
  level: string;
  msg: string;
  vm?: string;
}

/** Lines of `ip route` and `ip neighbour`. */
interface Entries {
  routes: string[];
  neighbours: string[];
}

interface Device {
  link: object;
  addresses: object[];
  sysctls: string[];
}

type Counts = Record<'kernel' | 'inlay', { status: Status; tunnels: TunnelStatus[] }>;

/** What dataplane.mjs prints. */
interface Facts {
  kernel: string;
  interoperate: {
    key: number | null;
    pings: Ping[];
    counts: Counts;
    transfers: Transfer[];
    drops: Record<string, number>;
    ifindex: number;
  }[];
  nobody: { pings: { from: string; to: string; said: string }[]; refused: number; entries: Entries };
  spoofed: Record<string, { delivered: number; drops: Record<string, number> }>;
  wrongKey: { pings: Ping[]; drops: Record<string, number>; packets: number[]; packetsBefore: number[] };
  removed: string[];
  left: string[][];
  burst: { containers: number; answered: number; answers: number; entries: Entries };
  flooded: number;
  survive: {
    ifindexes: number[];
    whileAlive: number[];
    whileDead: number[];
    ends: { exitStatus: number | null; log: LogLine[] }[];
    ping: LongPing;
    tunnels: number;
  };
  static: { one: Ping; asked: number; pings: Ping[]; neighbours: string[]; tunnels: TunnelStatus[] };
  repair: {
    whole: Entries;
    damages: { damage: string; entries: Entries; mtu: number; flags: string[]; isSame: boolean }[];
    /** At how many places of the device there is a program again. */
    filters: number;
    pings: Ping[];
  };
  lost: { damage: string; isSame: boolean; pings: Ping[]; entries: Entries }[];
  byHand: {
    idle: { opened: string[]; left: string[]; ping: LongPing; entries: Entries };
    pings: Ping[];
    daemon: { device: Device; entries: Entries };
    exitStatus: number | null;
    stayed: Entries;
    left: string[];
    commands: { device: Device; entries: Entries };
    staticPings: Ping[];
  };
  bothKernels: { options: string[]; pings: Ping[]; counts: Counts; links: LinkInfo[]; mtu: number }[];
  greUdp: { status: number; stderr: string; left: string[]; fou: string; hasRunDir: boolean };
  demo: { status: number; stderr: string; result: DemoResult | null };
}

/** Of the devices of `kernel`, of `inlay`, and of one that was made by the commands of --dry-run. */
interface LinkInfo {
  info_kind: string;
  info_data: Record<string, unknown>;
}

const TRANSFER = 1 << 20;
const PINGS = 20;
const ALL_WAYS = 8;
const OPTIONS = [
  {
    flags: ['--ttl', 'inherit', '--dscp', '46'],
    // To iproute2, 0 is the TTL of the inner packet. A DSCP is the upper six bits of the type of service.
    data: { remote: 'any', ttl: 0, tos: '0xb8', pmtudisc: true },
    mtu: 1476,
  },
  {
    flags: ['--path-mtu-discovery', 'off', '--gre-checksum', 'on'],
    data: {
      ...{ remote: 'any', ttl: 64, pmtudisc: false, ignore_df: true },
      ...{ icsum: true, ocsum: true },
    },
    mtu: 1472,
  },
];

/** Of the route to the VM `inlay`. */
const ROUTE_TO_INLAY = expect.stringMatching(/^unicast 10\.16\.33\.0\/24 via 10\.16\.33\.1 proto 73 .*\bonlink$/);
const INLAY = '10.16.33.1 lladdr 192.168.16.33 extern_learn proto 73';
const OVERLAY_ROUTE = 'unicast 10.0.0.0/8 proto 73 scope link src 10.16.32.1';
/** The catch-all, what of the own slice no container has, and the slices that no VM has. */
const UNREACHABLE = [
  'unreachable 10.0.0.0/24 proto 73 metric 4294967295',
  'unreachable 10.0.0.0/8 proto 75 metric 1',
  'unreachable 10.16.32.0/24 proto 73 metric 4294967295',
  'unreachable 10.255.255.0/24 proto 73 metric 4294967295',
];

function expectAllAnswered(pings: readonly Ping[], ways = ALL_WAYS): void {
  expect(pings).toHaveLength(ways);
  for (const ping of pings) expect(ping).toMatchObject({ sent: PINGS, received: PINGS, duplicates: 0, errors: 0 });
}

function expectNothingLost(ping: LongPing): void {
  expect(ping).toMatchObject({ missing: [], duplicates: 0, errors: [] });
}

/** The route and the neighbour of one VM, and nothing of its containers. */
function expectOnlyInlay({ routes, neighbours }: Entries): void {
  expect(neighbours).toEqual([INLAY]);
  expect(routes).toEqual([OVERLAY_ROUTE, ROUTE_TO_INLAY, ...UNREACHABLE]);
}

/** Only pings crossed, and each side has counted all of them. */
function expectSameCounts(counts: Counts): void {
  const packets = ALL_WAYS * PINGS;
  // ICMP echo messages of 84 bytes.
  const direction = { received: packets, packets, bytes: 84 * packets, drops: {} };
  const traffic = { packets, bytes: 84 * packets };
  for (const [name, vm, other, slice] of [
    ['kernel', '192.168.16.32', '192.168.16.33', '10.16.33.0/24'],
    ['inlay', '192.168.16.33', '192.168.16.32', '10.16.32.0/24'],
  ] as const) {
    const { status, tunnels } = counts[name];
    expect(status).toMatchObject({ state: 'running', vm, device: 'inlay0', encapsulation: 'gre', tunnels: 1 });
    expect(status).toMatchObject({ outbound: direction, inbound: direction });
    expect(tunnels).toMatchObject([
      { vm: other, slice, mtu: status.mtu, outbound: traffic, inbound: traffic, state: 'heard' },
    ]);
    expect(tunnels).toHaveLength(1);
  }
}

function messages(log: readonly LogLine[]): string[] {
  return log.map(({ msg }) => msg);
}

const needed = machineMissing('ping', 'setpriv');

describe.skipIf(skip('kernel data plane over gre', needed))('kernel data plane over gre', () => {
  let facts: Facts;
  beforeAll(async () => {
    facts = await runInMachine('dataplane.mjs', String(TRANSFER), JSON.stringify(OPTIONS.map(({ flags }) => flags)));
  }, MACHINE_TIMEOUT);

  describe.each([
    { name: 'without a key', index: 0, mtu: 1476 },
    { name: 'with a key', index: 1, mtu: 1472 },
  ])('with a VM of the wasm data plane, $name', ({ index, mtu }) => {
    const run = () => facts.interoperate[index] as Facts['interoperate'][number];

    test('every ping between VMs and containers is answered once, the first included', () =>
      expectAllAnswered(run().pings));

    test('status and tunnels of both count the same packets', () => {
      const { counts } = run();
      expectSameCounts(counts);
      expect(counts.kernel.status).toMatchObject({ dataPlane: 'kernel', sourceCheck: 'on', mtu });
      expect(counts.inlay.status).toMatchObject({ dataPlane: 'wasm', mtu });
    });

    test.each([0, 1])('TCP carries both directions unchanged, connection %i', (which) => {
      const { client, server } = run().transfers[which] as Transfer;
      expect(client?.sent.bytes).toBe(TRANSFER);
      expect(server?.sent.bytes).toBe(TRANSFER);
      expect(server?.received).toEqual(client?.sent);
      expect(client?.received).toEqual(server?.sent);
    });

    test('drops nothing', () => expect(run().drops).toEqual({}));
  });

  test('with another key the device is made anew', () =>
    expect(facts.interoperate[1]?.ifindex).not.toBe(facts.interoperate[0]?.ifindex));

  test('with different keys nothing passes, either way', () => {
    const { pings, drops, packets, packetsBefore } = facts.wrongKey;
    expect(pings.map(({ sent, received }) => ({ sent, received }))).toEqual(
      Array.from({ length: 4 }, () => ({ sent: 3, received: 0 })),
    );
    expect(packets).toEqual(packetsBefore);
    // The wasm data plane counts what comes. Ours ends at the kernel, which has no device with that key.
    expect(drops).toEqual({ 'gre-key': 6 });
  });

  test('who sends to addresses that nobody can have is told so, before the VM is known', () => {
    const { pings, refused, entries } = facts.nobody;
    expect(pings).toHaveLength(4);
    for (const { said } of pings) expect(said).toMatch(/icmp_seq=1 Destination Host Unreachable$/);
    expect(refused).toBeGreaterThanOrEqual(pings.length);
    expectOnlyInlay(entries);
  });

  describe('a packet that another VM sends', () => {
    test.each([
      ["of a third VM's container", 'spoofed-source'],
      ['of the other VM, by a third VM', 'spoofed-source'],
      ['of the internet', 'spoofed-source'],
      ['of the own container', 'spoofed-source'],
      ['to another slice', 'foreign-destination'],
    ])('%s is dropped as %s, and only the one that is in order arrives', (name, reason) =>
      expect(facts.spoofed[name]).toEqual({ delivered: 1, drops: { [reason]: 5 } }),
    );
  });

  test('one with another key is dropped by the fallback device, even if that is up', () =>
    expect(facts.spoofed['with another key, and gre0 is up']).toEqual({ delivered: 1, drops: {} }));

  test('400 packets at once to a VM that is not known yet are all answered', () => expect(facts.flooded).toBe(400));

  describe('a packet that a container sends', () => {
    test.each(["of another VM's container, outbound", 'of the internet, outbound'])(
      '%s is dropped as foreign-source, and only the one that is in order arrives',
      (name) => expect(facts.spoofed[name]).toEqual({ delivered: 1, drops: { 'foreign-source': 5 } }),
    );
  });

  test('200 containers of one VM, all for the first time and at once, answer, and leave one route and one neighbour', () => {
    const { containers, answered, answers, entries } = facts.burst;
    expect(containers).toBe(200);
    expect({ answered, answers }).toEqual({ answered: containers, answers: containers });
    expectOnlyInlay(entries);
  });

  describe('the daemon is killed, is back, ends and is back, while packets flow', () => {
    test('no packet is lost', () => expectNothingLost(facts.survive.ping));

    test('packets flow without a daemon', () => {
      expect(facts.survive.whileDead).toHaveLength(2);
      for (const packets of [...facts.survive.whileDead, ...facts.survive.whileAlive])
        expect(packets).toBeGreaterThanOrEqual(20);
    });

    test('the next one takes over the device, and knows its VM', () => {
      const { ifindexes, ends, tunnels } = facts.survive;
      expect(new Set(ifindexes).size).toBe(1);
      expect(ends.map(({ exitStatus }) => exitStatus)).toEqual([null, 0]);
      for (const { log } of ends) {
        expect(messages(log)).toContain('ready');
        // Nothing had to be removed or put right.
        expect(log.filter(({ level }) => level !== 'info')).toEqual([]);
      }
      expect(tunnels).toBe(1);
    });

    test('a VM that is new then, with a static tunnel of its own, is reached, and reaches us', () => {
      expectAllAnswered(facts.static.pings, 4);
      expect(facts.static.neighbours).toContain('10.16.34.1 lladdr 192.168.16.34 extern_learn proto 73');
      expect(facts.static.tunnels.map(({ vm }) => vm)).toContain('192.168.16.34');
    });
  });

  test('a neighbour that an operator made is used, and stays', () => {
    expect(facts.static.one).toMatchObject({ sent: PINGS, received: PINGS, duplicates: 0, errors: 0 });
    expect(facts.static.asked).toBe(0);
    expect(facts.static.neighbours).toContain('10.16.34.77 lladdr 192.168.16.34 PERMANENT');
  });

  describe('what others take away or change is put right', () => {
    test.each([
      'route del 10.16.33.0/24 dev inlay0',
      'route del 10.0.0.0/8 dev inlay0',
      'route del unreachable 10.16.32.0/24',
      'neighbour del 10.16.33.1 dev inlay0',
      'link set inlay0 arp off',
      'link set inlay0 mtu 1300',
    ])('%s', (damage) => {
      const found = facts.repair.damages.find((one) => one.damage === damage);
      expect(found).toEqual({
        damage,
        entries: facts.repair.whole,
        mtu: 1476,
        flags: ['UP', 'LOWER_UP'],
        isSame: true,
      });
    });

    test('the programs that check sources', () => expect(facts.repair.filters).toBe(2));

    test('all of that done, every ping is answered once', () => expectAllAnswered(facts.repair.pings));

    test.each([
      { damage: 'link del inlay0', isSame: false },
      { damage: 'link set inlay0 down', isSame: true },
      { damage: 'address del 10.16.32.1/32 dev inlay0', isSame: true },
    ])('$damage: every ping is answered once, the first included', ({ damage, isSame }) => {
      const found = facts.lost.find((one) => one.damage === damage) as Facts['lost'][number];
      expectAllAnswered(found.pings);
      expectOnlyInlay(found.entries);
      expect(found.isSame).toBe(isSame);
    });
  });

  test('a VM that nobody sends to goes after the idle timeout, one in use stays', () => {
    const { opened, left, ping, entries } = facts.byHand.idle;
    expect(opened).toEqual(['192.168.16.33', '192.168.16.35']);
    expect(left).toEqual(['192.168.16.33']);
    expectNothingLost(ping);
    expectOnlyInlay(entries);
  });

  test('two VMs of the kernel data plane: every ping is answered once', () => expectAllAnswered(facts.byHand.pings));

  describe.each(OPTIONS.map((option, index) => ({ ...option, words: option.flags.join(' '), index })))(
    'two VMs of the kernel data plane, with $words',
    ({ index, flags, data, mtu }) => {
      const run = () => facts.bothKernels[index] as Facts['bothKernels'][number];

      test('every ping is answered once, and both count the same', () => {
        expect(run().options).toEqual(flags);
        expectAllAnswered(run().pings);
        expectSameCounts(run().counts);
      });

      test('the device is what the options say, and so is that of --dry-run', () => {
        const locals = ['192.168.16.32', '192.168.16.33', '192.168.16.34'];
        expect(run().links).toEqual(locals.map((local) => ({ info_kind: 'gre', info_data: { ...data, local } })));
        expect(run().mtu).toBe(mtu);
      });
    },
  );

  describe('--dry-run', () => {
    test.each(['link', 'addresses', 'sysctls'] as const)('its commands give the same as the daemon: %s', (what) => {
      const { daemon, commands } = facts.byHand;
      expect(commands.device[what]).toEqual(daemon.device[what]);
    });

    test('its comments give the route and the neighbour that the daemon answers with', () => {
      const { daemon, commands } = facts.byHand;
      expect(commands.entries).toEqual(daemon.entries);
      expect(daemon.entries.neighbours).toEqual(['10.16.32.1 lladdr 192.168.16.32 extern_learn proto 73']);
      expect(daemon.entries.routes).toHaveLength(6);
    });

    test('a VM that was made by them, and that no daemon tends, reaches ours, and is reached', () =>
      expectAllAnswered(facts.byHand.staticPings));
  });

  test('what the daemon made stays when it ends', () => {
    expect(facts.byHand.exitStatus).toBe(0);
    expect(facts.byHand.stayed).toEqual(facts.byHand.daemon.entries);
  });

  test('after down links, addresses, routes, queueing disciplines and sysctls are as before', () => {
    expect(facts.removed).toHaveLength(3);
    for (const said of facts.removed) expect(said).toMatch(/^removed {2}device inlay0$/m);
    expect(facts.left).toEqual([[], []]);
    expect(facts.byHand.left).toEqual([]);
  });

  test('gre-udp is refused where the kernel cannot send it, and nothing is left behind', () => {
    const { status, stderr, left, fou, hasRunDir } = facts.greUdp;
    expect(status).toBe(1);
    expect(plainErrors(stderr)).toMatch(/^inlay: .*CONFIG_NET_FOU_IP_TUNNELS.*\nhint: .*--encapsulation gre/m);
    expect({ left, fou, hasRunDir }).toEqual({ left: [], fou: '', hasRunDir: false });
  });

  test('the demo runs over gre', () => {
    expect(facts.demo.status, facts.demo.stderr).toBe(0);
    expect(facts.demo.result).toMatchObject({
      ...{ dataPlane: 'kernel', encapsulation: 'gre', vms: 2, containers: 1 },
      ...{ pairs: 2, reachable: 2, firstPacketsLost: 0, pingsLost: 0 },
    });
  });
});

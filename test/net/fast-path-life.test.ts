/** The fast path from the start of a daemon to its end, and what a user is told of it; packets themselves are tested elsewhere. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FastPathStatus, Traffic } from '../../src/dataplane/dataplane.ts';
import type { DirectionStatus } from '../../src/observe/status.ts';
import { ContainerVms } from './container-vms.ts';
import { missing, notRoot, skip } from './require.ts';
import { type Daemon, PATIENCE, type Plane } from './vms.ts';

const PLANES: readonly Plane[] = ['wasm', 'wasm-udp'];

const USER = 65534;
/** The group lets it read whether the old iptables has tables. */
const AS_USER = [
  ...['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--groups=0'],
  ...['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,+net_admin,+net_raw,+bpf`),
];

describe.skipIf(skip('the life of the fast path', await missing('ping', 'tc', 'setpriv')))('the fast path', () => {
  describe.each(PLANES)('%s', (plane) => {
    let vms: ContainerVms;
    let a: Daemon;
    const at: Record<string, string> = {};

    beforeAll(async () => {
      vms = await ContainerVms.of(plane, 'a', 'b');
      a = await up('a');
      await up('b');
      await vms.namespaces('c1', 'c2', 'c3');
      for (const [vm, name] of [
        ['a', 'c1'],
        ['b', 'c2'],
        ['a', 'c3'],
      ] as const)
        at[name] = JSON.parse((await vms.inlay(vm, 'attach', name, '--json')).stdout).address;
      await vms.serve('c2');
    });
    afterAll(() => vms?.close());

    const up = (vm: string, ...flags: string[]) => vms.up(vm, '--idle-timeout', '6s', ...flags);
    const fastPath = async (vm: string) => (await vms.status(vm)).fastPath as FastPathStatus;
    const isOn = (vm: string, containers: number) =>
      expect.poll(() => fastPath(vm), PATIENCE).toMatchObject({ state: 'on', containers });
    const packets = async (vm: string) => {
      const { outbound, inbound } = await fastPath(vm);
      return outbound.packets + inbound.packets;
    };
    /** Whether what c1 and c2 send to each other is taken. */
    const isTaken = () =>
      expect
        .poll(async () => {
          const before = await packets('a');
          await vms.pings('c1', at['c2'] as string, 4, '-i', '0.01');
          return (await packets('a')) - before;
        }, PATIENCE)
        .toBeGreaterThan(4);
    const filters = async (vm: string) => {
      const script =
        'for d in $(ls /sys/class/net); do tc filter show dev $d ingress; done; tc qdisc show | grep clsact';
      return (await vms.lab.run(vm, ['sh', '-c', script])).stdout
        .trim()
        .split('\n')
        .filter((line) => /inlay|clsact/.test(line));
    };
    /**
     * With gre-udp, what the other VM's core sends has a checksum, which no card has verified here: so what goes
     * its ordinary way there comes to no daemon here. That is one packet now and then, and never several in a row.
     */
    const lostOf = (lost: number[]) =>
      plane === 'wasm' ? lost : lost.filter((number, i) => lost[i - 1] === number - 1 && lost[i - 2] === number - 2);
    const ends = ({ packets, bytes }: Traffic) => [packets, bytes];

    test('is on by itself', async () => {
      await isOn('a', 2);
      await isOn('b', 1);
      await isTaken();
      // A device that has come gets its program a second later.
      await expect.poll(async () => (await filters('a')).length, PATIENCE).toBe(6);
    });

    test('counters and tunnels have what it took, and received is forwarded and drops', async () => {
      const before = await vms.status('a');
      await vms.pings('c1', at['c2'] as string, 20);
      await vms.pings('c1', at['c3'] as string, 3);
      const after = await vms.status('a');
      for (const name of ['outbound', 'inbound'] as const) {
        const [then, now] = [before[name], after[name]];
        expect(now.packets - then.packets).toBe(20);
        expect(now.bytes - then.bytes).toBe(20 * 84);
        expect(now.received).toBe(now.packets + sumOf(now));
      }
      const [then, now] = [before.fastPath, after.fastPath] as [FastPathStatus, FastPathStatus];
      expect(now.local.packets - then.local.packets).toBe(6);
      expect(now.outbound.packets - then.outbound.packets).toBeGreaterThanOrEqual(18);
      const [tunnel, ...others] = await vms.tunnels('a');
      expect([tunnel?.vm, others]).toEqual([vms.underlay('b'), []]);
      expect(tunnel?.fastPath && [ends(tunnel.fastPath.outbound), ends(tunnel.fastPath.inbound)]).toEqual([
        ends(now.outbound),
        ends(now.inbound),
      ]);
      expect(tunnel?.outbound.packets).toBe(after.outbound.packets);
      expect(tunnel?.state).toBe('heard');
    });

    test('status, tunnels and the log say so', async () => {
      const { stdout } = await vms.inlay('a', 'status');
      expect(stdout).toMatch(/^fast path +on for 2 containers\n +took \d+ of \d+ packets to other VMs, /m);
      expect((await vms.inlay('a', 'tunnels')).stdout).toMatch(/FAST %.*\n192\.168\.16\.33 .* \d\d +\d/);
      expect(await vms.log('a')).toMatch(/"uplink":"eth0","msg":"the fast path is on"/);
      expect(await vms.log('a')).toMatch(/"fastPath":"on","msg":"ready"/);
    });

    test('explain --program prints the programs of the daemon that runs', async () => {
      const { stdout, code } = await vms.inlay('a', 'explain', '--program');
      expect(code).toBe(0);
      for (const line of [/^outbound:$/m, /^inbound:$/m, /^ {2}call redirect_peer$/m, /^ {2}call redirect_neigh$/m])
        expect(stdout).toMatch(line);
      const one = await vms.inlay('a', 'explain', '--program', 'inbound', '--json');
      expect(Object.keys(JSON.parse(one.stdout))).toEqual(['inbound']);
    });

    test('a tunnel in use stays open, and one that is idle is closed', async () => {
      const { lost, sent } = await vms.during('c1', at['c2'] as string, async () => {
        const open = async () => (await vms.tunnels('a'))[0]?.openSeconds ?? 0;
        await expect.poll(open, PATIENCE).toBeGreaterThan((await open()) + 7);
        expect((await vms.tunnels('a'))[0]?.idleSeconds).toBeLessThan(1.5);
      });
      expect([lost, sent > 50]).toEqual([[], true]);
      await expect.poll(() => vms.tunnels('a'), PATIENCE).toEqual([]);
      // It begins as any other does.
      expect(await vms.pings('c1', at['c2'] as string, 3)).toBe('3');
      await isTaken();
    });

    test('killed and started again under traffic: nothing is lost between containers', async () => {
      const { lost, sent } = await vms.during('c1', at['c2'] as string, async () => {
        // The first packets go through the daemon: what it has not passed on yet ends with it.
        await isTaken();
        await vms.end('KILL', a);
        await new Promise((resolve) => setTimeout(resolve, 300));
        a = await up('a');
        await isOn('a', 2);
      });
      expect([lostOf(lost), sent > 50]).toEqual([[], true]);
      await isTaken();
      expect(await vms.log('a')).not.toMatch(/"repaired"|a mistake in Inlay/);
    });

    test('stopped, it goes on between containers; with fast-path off all of it goes', async () => {
      const { lost } = await vms.during('c1', at['c2'] as string, async () => {
        expect(await vms.end('TERM', a)).toBe(0);
        await new Promise((resolve) => setTimeout(resolve, 300));
        expect((await filters('a')).length).toBeGreaterThan(0);
      });
      expect(lostOf(lost)).toEqual([]);
      expect((await vms.log('a')).trim().split('\n').at(-1)).toMatch(
        /"stopped; the fast path goes on for 30 s between containers; then packets for the overlay are unreachable until inlay down"/,
      );
      a = await up('a', '--fast-path', 'off');
      expect(await filters('a')).toEqual([]);
      expect(await vms.status('a')).not.toHaveProperty('fastPath');
      expect(await vms.pings('c1', at['c2'] as string, 3)).toBe('3');
      await vms.end('TERM', a);
      a = await up('a', '--fast-path', 'on');
      await isOn('a', 2);
      await isTaken();
    });

    test('stopped, and its run directory removed, as systemd does it: with fast-path off no program stays', async () => {
      await vms.end('TERM', a);
      await vms.lab.must('a', ['rm', '-r', vms.runDir('a')]);
      a = await up('a', '--fast-path', 'off');
      expect((await filters('a')).filter((line) => line.includes('inlay'))).toEqual([]);
      expect(await vms.pings('c1', at['c2'] as string, 3)).toBe('3');
      await vms.end('TERM', a);
      a = await up('a', '--fast-path', 'on');
      await isOn('a', 2);
      await isTaken();
    });

    test('the underlay device has another name, another MTU: it follows, and its program stays', async () => {
      await vms.ip('a', 'link set eth0 down', 'link set eth0 name wan0', 'link set wan0 up');
      await isOn('a', 2);
      await isTaken();
      await vms.ip('a', 'link set wan0 mtu 1400');
      await expect.poll(async () => (await vms.status('a')).mtu, PATIENCE).toBeLessThan(1400);
      const { mtu } = await vms.status('a');
      const before = await packets('a');
      const tooLong = await vms.lab.run('c1', [
        'ping',
        '-n',
        '-M',
        'do',
        '-c',
        '1',
        '-W',
        '2',
        '-s',
        `${mtu - 27}`,
        at['c2'] as string,
      ]);
      expect(tooLong.stdout).toContain(`mtu = ${mtu}`);
      expect(await packets('a')).toBe(before);
      expect(await vms.pings('c1', at['c2'] as string, 3, '-M', 'do', '-s', `${mtu - 28}`)).toBe('3');
      await vms.ip('a', 'link set wan0 mtu 1500');
      await expect.poll(async () => (await vms.status('a')).mtu, PATIENCE).toBeGreaterThan(1400);
      await vms.ip('a', 'link set wan0 down', 'link set wan0 name eth0', 'link set eth0 up');
      await isOn('a', 2);
      expect((await vms.status('a')).troubles).toEqual([]);
    });

    test('the underlay device is made anew: its program comes again', async () => {
      const address = `${vms.underlay('a')}/16`;
      await vms.lab.ip(undefined, ['link del port-a']);
      await expect.poll(() => fastPath('a'), PATIENCE).toMatchObject({ state: 'off' });
      expect((await fastPath('a')).obstacle).toBeTruthy();
      await vms.lab.ip(undefined, [
        'link add port-a type veth peer name eth0 netns a',
        'link set port-a master underlay up',
      ]);
      await vms.ip('a', `address add ${address} dev eth0`, 'link set eth0 up');
      await isOn('a', 2);
      await isTaken();
      expect((await vms.status('a')).troubles).toEqual([]);
    });

    // Two daemons cannot have one UDP port.
    if (plane === 'wasm')
      test('another mesh on this VM leaves the programs to the first', async () => {
        const words = ['--device', 'other0', '--overlay', '11.0.0.0/8', '--run-dir', '/run/other'];
        const all = [
          ...vms.words('a').filter((word) => !/^10\.0\.0|^--(overlay|run-dir)$|\/run\/a/.test(word)),
          ...words,
        ];
        const child = vms.lab.start('a', all, { stdio: 'ignore' });
        const other = async () =>
          JSON.parse(
            (await vms.lab.run('a', [...all.slice(0, 2), 'status', '--json', '--run-dir', '/run/other'])).stdout ||
              '{}',
          );
        await expect.poll(other, PATIENCE).toMatchObject({
          state: 'running',
          fastPath: { state: 'off', obstacle: 'another Inlay daemon has its program at the underlay device' },
        });
        const before = await filters('a');
        const ended = new Promise((resolve) => child.once('exit', resolve));
        await vms.lab.must(undefined, ['kill', '-TERM', String((await other()).pid)]);
        await ended;
        const { stdout } = await vms.lab.run('a', [...all.slice(0, 2), 'down', '--run-dir', '/run/other']);
        expect(stdout).not.toContain('eth0');
        expect(await filters('a')).toEqual(before);
        await isTaken();
      });

    test('down leaves nothing of it', async () => {
      await vms.end('TERM', a);
      const { stdout, code } = await vms.inlay('a', 'down');
      expect([code, stdout]).toEqual([0, expect.stringContaining('program at the ingress of eth0')]);
      expect(await filters('a')).toEqual([]);
    });

    test('without CAP_BPF all goes its ordinary way, and what an earlier daemon left is removed', async () => {
      a = await up('a');
      await isTaken();
      await vms.end('KILL', a);
      const wrapper = ['setpriv', '--bounding-set=-bpf,-sys_admin', '--inh-caps=-bpf,-sys_admin'];
      a = await vms.upAs(wrapper, 'a');
      expect(await fastPath('a')).toMatchObject({ state: 'off', obstacle: 'CAP_BPF is missing', containers: 0 });
      expect(await filters('a')).toEqual([]);
      expect(await vms.pings('c1', at['c2'] as string, 3)).toBe('3');
      expect((await vms.inlay('a', 'status')).stdout).toMatch(/^fast path +off, because CAP_BPF is missing$/m);
      await vms.end('KILL', a);
    });
  });
});

describe.skipIf(skip('the fast path of an ordinary user', (await missing('ping', 'tc', 'setpriv')) ?? notRoot))(
  'the fast path of an ordinary user',
  () => {
    test('three capabilities are enough, and root removes what is left of it', async () => {
      const vms = await ContainerVms.of('wasm', 'a', 'b');
      try {
        await vms.lab.must(undefined, ['chown', `${USER}`, '/run/a.d']);
        const tun = 'mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200';
        await vms.lab.must(undefined, ['sh', '-c', tun]);
        const a = await vms.upAs(AS_USER, 'a');
        await vms.up('b');
        await vms.namespaces('c1', 'c2');
        const [c1, c2] = [await vms.inlay('a', 'attach', 'c1'), await vms.inlay('b', 'attach', 'c2', '--json')];
        expect([c1.code, c2.code]).toEqual([0, 0]);
        const { address } = JSON.parse(c2.stdout);
        const taken = async () => {
          expect(await vms.pings('c1', address, 4, '-i', '0.01')).toBe('4');
          return (await vms.status('a')).fastPath;
        };
        await expect
          .poll(taken, PATIENCE)
          .toMatchObject({ state: 'on', containers: 1, outbound: { packets: expect.any(Number) } });
        await expect.poll(async () => (await taken())?.outbound.packets, PATIENCE).toBeGreaterThan(4);
        expect(await vms.end('TERM', a)).toBe(0);
        const { stdout, code } = await vms.inlay('a', 'down');
        expect([code, stdout]).toEqual([0, expect.stringContaining('program at the ingress of eth0')]);
        const left = await vms.lab.run('a', ['sh', '-c', 'tc qdisc show | grep clsact']);
        expect(left.stdout).toBe('');
      } finally {
        await vms.close();
      }
    });
  },
);

function sumOf({ drops }: DirectionStatus): number {
  return Object.values(drops).reduce((sum, count) => sum + count, 0);
}

/** Starting, stopping, dying and coming back: of what a daemon makes, only the catch-all stays until `down`, and nothing else is touched. */
import type { ChildProcess } from 'node:child_process';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Lab, type Output } from '../../src/demo/lab.ts';
import type { Status, TunnelStatus } from '../../src/observe/status.ts';
import { CATCH_ALL_REMOVED, FAST_PATH_REMOVED, withoutCatchAllRoute, withoutCatchAllRules } from './catch-all.ts';
import { CLI, readyStatus } from './mesh.ts';
import { missing, skip } from './require.ts';
import { pingWords, withoutIndexes } from './vms.ts';

const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];

describe.skipIf(skip('lifecycle', await missing('ping')))('lifecycle', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await Lab.open();
    await lab.ip(undefined, ['netns add a', 'netns add b', 'link add eth0 netns a type veth peer name eth0 netns b']);
    // Without IPv6 addresses of its own, whose state changes by itself, a link looks the same before and after.
    for (const [name, address] of [
      ['a', '192.168.16.32'],
      ['b', '192.168.16.33'],
    ] as const) {
      await lab.ip(name, ['link set lo up', `address add ${address}/16 dev eth0`, 'link set eth0 addrgenmode none up']);
    }
  });
  // Of a daemon that has ended, or could not be ended by a test that failed.
  afterEach(async () => {
    for (const { pid, ended } of daemons.splice(0)) {
      await lab.run('a', ['sh', '-c', `kill -CONT ${pid}; kill -KILL ${pid}`]);
      await ended;
    }
    for (const vm of ['a', 'b']) expect(await inlay(vm, 'down', '--run-dir', `/run/${vm}`)).toMatchObject({ code: 0 });
  });
  afterAll(() => lab?.close());

  const daemons: { pid: number; ended: Promise<number | null> }[] = [];
  const inlay = (vm: string, ...words: string[]): Promise<Output> => lab.run(vm, [process.execPath, CLI, ...words]);
  const json = async <T>(vm: string, command: string): Promise<T> =>
    JSON.parse((await inlay(vm, command, '--json', '--run-dir', `/run/${vm}`)).stdout);
  const pings = async (vm: string, to: string, count: number) =>
    (await lab.run(vm, pingWords(to, count))).stdout.match(/(\d+) received/)?.[1];

  /** Everything of the network that a daemon could change, without what the kernel counts. */
  async function network(vm: string): Promise<unknown[]> {
    const shown = ['addr', 'link', 'route', 'rule'].map(async (what) =>
      JSON.parse((await lab.must(vm, ['ip', '-j', what])) || '[]'),
    );
    const sysctls = lab.must(vm, [
      'sh',
      '-c',
      'grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward | sort',
    ]);
    const filters = lab.must(vm, ['sh', '-c', 'tc qdisc show dev eth0; tc filter show dev eth0 ingress']);
    return [...(await Promise.all(shown)), await sysctls, await filters];
  }

  async function up(
    vm: string,
    ...flags: string[]
  ): Promise<{ daemon: ChildProcess; ended: Promise<number | null>; pid: number }> {
    const words = [process.execPath, CLI, ...UP, '--run-dir', `/run/${vm}`, ...flags];
    const shell = ['sh', '-c', `exec "$@" 2>/run/${vm}.log`, 'sh', ...words];
    const daemon = lab.start(vm, shell, { stdio: 'ignore' });
    const ended = new Promise<number | null>((resolve) => daemon.once('exit', resolve));
    const { pid } = await readyStatus(lab, `/run/${vm}`);
    daemons.push({ pid, ended });
    return { daemon, ended, pid };
  }

  /** What a VM's last daemon has logged. */
  async function log(vm: string): Promise<Record<string, unknown>[]> {
    const lines = (await lab.must(vm, ['cat', `/run/${vm}.log`])).split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line));
  }

  /** After the daemon's end, the network is as it was but for the fast path and the catch-all, which the next daemon or `down` finds in the run directory. */
  async function expectOnlyCatchAll(before: readonly unknown[]): Promise<void> {
    const [addresses, links, routes, rules, sysctls] = await network('a');
    const other = [withoutCatchAllRoute(routes as unknown[]), withoutCatchAllRules(rules as unknown[])];
    expect([addresses, links, ...other, sysctls]).toEqual(before.slice(0, -1));
    expect(await lab.must('a', ['ls', '-A', '/run/a'])).toBe('journal.jsonl\nmesh.json\n');
  }

  /** What `down` says, which has to leave nothing. */
  async function down(before: readonly unknown[]): Promise<string> {
    const { code, stdout, stderr } = await inlay('a', 'down', '--run-dir', '/run/a');
    expect([code, stderr]).toEqual([0, '']);
    expect(await network('a')).toEqual(before);
    await expectNoRunDir();
    expect(await inlay('a', 'down', '--run-dir', '/run/a')).toMatchObject({ code: 0, stdout: 'nothing to remove\n' });
    return stdout;
  }

  async function expectNoRunDir(): Promise<void> {
    expect((await lab.run('a', ['ls', '/run/a'])).code).toBe(2);
  }

  const kill = (signal: string, pid: number) => lab.must('a', ['sh', '-c', `kill -${signal} ${pid}`]);

  describe.each(['linux', 'portable'])('engine %s', (engine) => {
    test.each(['TERM', 'INT'])(
      'SIG%s leaves the network as it was, but for the catch-all; down removes it',
      async (signal) => {
        const before = await network('a');
        const { ended, pid } = await up('a', '--engine', engine);
        expect(await network('a')).not.toEqual(before);
        await kill(signal, pid);
        expect(await ended).toBe(0);
        await expectOnlyCatchAll(before);
        expect((await inlay('a', 'status', '--run-dir', '/run/a')).code).toBe(3);
        expect(await down(before)).toBe(`${FAST_PATH_REMOVED}${CATCH_ALL_REMOVED}removed  directory /run/a\n`);
      },
    );

    test('after kill -9, down leaves the network as it was, and a second time finds nothing', async () => {
      const before = await network('a');
      const { ended, pid } = await up('a', '--engine', engine);
      await kill('KILL', pid);
      await ended;
      expect(await network('a')).not.toEqual(before);
      const removed = await down(before);
      expect(removed).toContain('unreachable 10.16.32.0/24');
      expect(removed).toContain(CATCH_ALL_REMOVED);
    });

    test('after kill -9, the next up works, and its end leaves the catch-all alone', async () => {
      const before = await network('a');
      const first = await up('a', '--engine', engine);
      await kill('KILL', first.pid);
      await first.ended;
      const second = await up('a', '--engine', engine);
      await kill('TERM', second.pid);
      expect(await second.ended).toBe(0);
      await expectOnlyCatchAll(before);
      await down(before);
    });

    test('a start that fails leaves the catch-all of an earlier daemon', async () => {
      const before = await network('a');
      const first = await up('a', '--engine', engine);
      await kill('TERM', first.pid);
      await first.ended;
      await lab.ip('a', ['route add 10.0.0.0/8 dev lo']);
      expect(await inlay('a', ...UP, '--run-dir', '/run/a', '--engine', engine)).toMatchObject({ code: 1 });
      await lab.ip('a', ['route del 10.0.0.0/8 dev lo']);
      await expectOnlyCatchAll(before);
      await down(before);
    });

    test('a start that fails with another run directory leaves the catch-all of an earlier daemon', async () => {
      const before = await network('a');
      const first = await up('a', '--engine', engine);
      await kill('TERM', first.pid);
      await first.ended;
      await lab.ip('a', ['route add 10.0.0.0/8 dev lo']);
      expect(await inlay('a', ...UP, '--run-dir', '/run/other', '--engine', engine)).toMatchObject({ code: 1 });
      await lab.ip('a', ['route del 10.0.0.0/8 dev lo']);
      await expectOnlyCatchAll(before);
      expect((await lab.run('a', ['ls', '/run/other'])).code).toBe(2);
      await down(before);
    });

    test('a start that fails ends, and leaves the network as it was', async () => {
      await lab.ip('a', ['route add 10.0.0.0/8 dev lo']);
      const before = await network('a');
      expect(await inlay('a', ...UP, '--run-dir', '/run/a', '--engine', engine)).toMatchObject({ code: 1 });
      expect(await network('a')).toEqual(before);
      await expectNoRunDir();
      await lab.ip('a', ['route del 10.0.0.0/8 dev lo']);
    });

    test('a change that is not allowed ends the start; what can be undone is', async () => {
      const before = await network('a');
      // As in a container whose /proc/sys is read-only.
      const readOnly = ['unshare', '--mount', 'sh', '-c', 'mount --bind -o ro /proc/sys /proc/sys && exec "$@"', 'sh'];
      const words = [...readOnly, process.execPath, CLI, ...UP, '--run-dir', '/run/a', '--engine', engine];
      const { code, stderr } = await lab.run('a', words);
      expect([code, stderr]).toEqual([
        1,
        expect.stringContaining('net.ipv4.conf.inlay0.forwarding is 0 and cannot be set to 1: EROFS'),
      ]);
      expect(await network('a')).toEqual(before);
      await expectNoRunDir();
    });

    test('signals that come while it stops do not keep it from cleaning up', async () => {
      const before = await network('a');
      const { ended, pid } = await up('a', '--engine', engine);
      await lab.must('a', [
        'sh',
        '-c',
        `for s in HUP TERM INT TERM INT; do kill -$s ${pid} || exit 0; sleep 0.005; done`,
      ]);
      // The last one may meet a process that is done and about to exit 0: then it ends by the signal, which is no matter.
      await ended;
      await expectOnlyCatchAll(before);
      await down(before);
    });

    test('when somebody deletes the device, the daemon makes it anew, counts on and says so', async () => {
      const before = await network('a');
      const [a, b] = [await up('a', '--engine', engine), await up('b')];
      expect(await pings('a', '10.16.33.1', 5)).toBe('5');
      const { repaired } = await json<Status>('a', 'status');
      expect(repaired).toBe(0);
      const right = withoutIndexes(await network('a'));
      await lab.ip('a', ['link del inlay0']);
      await expect.poll(async () => withoutIndexes(await network('a')), { timeout: 10_000 }).toEqual(right);
      expect(await pings('a', '10.16.33.1', 5)).toBe('5');
      const status = await json<Status>('a', 'status');
      const traffic = { received: 10, packets: 10, bytes: 10 * 84 };
      expect(status).toMatchObject({ state: 'running', pid: a.pid, outbound: traffic, inbound: traffic });
      expect(status.repaired).toBeGreaterThan(0);
      const said = (await log('a')).filter(({ level }) => level === 'warn');
      expect(said).toMatchObject([{ msg: 'put right what others changed', found: expect.any(Array) }]);
      expect(said[0]?.['found']).toContain('device inlay0 is missing');
      expect((await log('a')).filter(({ level }) => level === 'error')).toEqual([]);
      for (const { pid, ended } of [a, b]) {
        await kill('TERM', pid);
        expect(await ended).toBe(0);
      }
      await expectOnlyCatchAll(before);
      await down(before);
    });
  });

  test('tunnels come with the first packet and go when idle; status and tunnels tell', async () => {
    const [a, b] = [await up('a', '--idle-timeout', '500ms'), await up('b')];
    expect(await json<TunnelStatus[]>('a', 'tunnels')).toEqual([]);
    expect(await pings('a', '10.16.33.1', 5)).toBe('5');
    const traffic = { packets: 5, bytes: 5 * 84 };
    expect(await json<TunnelStatus[]>('b', 'tunnels')).toMatchObject([
      { vm: '192.168.16.32', slice: '10.16.32.0/24', outbound: traffic, inbound: traffic },
    ]);
    expect(await json<Status>('b', 'status')).toMatchObject({
      state: 'running',
      vm: '192.168.16.33',
      overlayAddress: '10.16.33.1',
      device: 'inlay0',
      core: 'wasm',
      engine: 'linux',
      encapsulation: 'gre',
      mtu: 1476,
      tunnels: 1,
      outbound: { received: 5, ...traffic, drops: {} },
      inbound: { received: 5, ...traffic, drops: {} },
    });
    await expect.poll(() => json<TunnelStatus[]>('a', 'tunnels'), { timeout: 10_000 }).toEqual([]);
    expect(await json<TunnelStatus[]>('b', 'tunnels')).toHaveLength(1);
    // The next packet opens it anew, and is not lost.
    expect(await pings('a', '10.16.33.1', 1)).toBe('1');
    for (const { pid, ended } of [a, b]) {
      await kill('TERM', pid);
      expect(await ended).toBe(0);
    }
  });

  test('down removes the files of a daemon that was killed before it had noted anything', async () => {
    const files = 'lock journal.jsonl journal.jsonl.new vm.new';
    await lab.must('a', ['sh', '-ec', `mkdir /run/a; chmod 1700 /run/a; cd /run/a; touch ${files}`]);
    const down = await inlay('a', 'down', '--run-dir', '/run/a');
    expect(down).toMatchObject({ code: 0, stdout: 'removed  directory /run/a\n' });
    await expectNoRunDir();
  });

  test('a daemon that does not answer is running all the same: down leaves its network alone', async () => {
    const { daemon, pid, ended } = await up('a');
    const before = await network('a');
    await kill('STOP', pid);
    expect(await inlay('a', 'down', '--run-dir', '/run/a')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('runs already'),
    });
    expect(await inlay('a', 'status', '--run-dir', '/run/a')).toMatchObject({ code: 1 });
    expect(await network('a')).toEqual(before);
    await kill('CONT', pid);
    daemon.kill('SIGCONT'); // nsenter stops with its child.
    await kill('TERM', pid);
    expect(await ended).toBe(0);
  });

  test('M1 the MTU is that of the device which the underlay is reached by', async () => {
    await lab.ip(undefined, ['netns add c', 'link add eth0 mtu 1400 netns c type veth peer name port-c']);
    await lab.ip('c', [
      'link set lo up',
      'link set eth0 up',
      'address add 192.168.40.1/32 dev lo',
      'route add 192.168.0.0/16 dev eth0',
    ]);
    const { pid, ended } = await up('c');
    expect(await json<Status>('c', 'status')).toMatchObject({ mtu: 1376 });
    await kill('TERM', pid);
    expect(await ended).toBe(0);
  });

  test('G9 an address of our slice that no container has is unreachable, not a loop', async () => {
    const { pid, ended } = await up('a');
    const { stdout } = await lab.run('a', ['ping', '-n', '-c', '1', '-W', '1', '10.16.32.77']);
    expect(stdout).not.toMatch(/1 received/);
    expect((await json<Status>('a', 'status')).outbound).toMatchObject({ received: 0 });
    await kill('TERM', pid);
    await ended;
  });
});

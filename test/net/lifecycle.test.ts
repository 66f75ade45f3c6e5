/** Starting, stopping, dying and coming back: what a daemon makes is gone afterwards, and nothing else is. */
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab, type Output } from '../../src/demo/lab.ts';
import type { Status, TunnelStatus } from '../../src/observe/status.ts';
import { CLI } from './mesh.ts';
import { missing, skip } from './require.ts';

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
  afterAll(() => lab?.close());

  const inlay = (vm: string, ...words: string[]): Promise<Output> => lab.run(vm, [process.execPath, CLI, ...words]);
  const json = async <T>(vm: string, command: string): Promise<T> =>
    JSON.parse((await inlay(vm, command, '--json', '--run-dir', `/run/${vm}`)).stdout);
  const pings = async (vm: string, to: string, count: number) =>
    (await lab.run(vm, ['ping', '-n', '-c', String(count), '-i', '0.02', '-W', '1', to])).stdout.match(
      /(\d+) received/,
    )?.[1];

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
    return [...(await Promise.all(shown)), await sysctls];
  }

  async function up(
    vm: string,
    ...flags: string[]
  ): Promise<{ daemon: ChildProcess; ended: Promise<number | null>; pid: number }> {
    const daemon = lab.start(vm, [process.execPath, CLI, ...UP, '--run-dir', `/run/${vm}`, ...flags], {
      stdio: 'ignore',
    });
    const ended = new Promise<number | null>((resolve) => daemon.once('exit', resolve));
    const ready = await inlay(vm, 'status', '--wait', '10', '--json', '--run-dir', `/run/${vm}`);
    expect(ready).toMatchObject({ code: 0 });
    return { daemon, ended, pid: (JSON.parse(ready.stdout) as Status).pid };
  }

  const kill = (signal: string, pid: number) => lab.must('a', ['sh', '-c', `kill -${signal} ${pid}`]);

  describe.each(['linux', 'portable'])('engine %s', (engine) => {
    test.each(['TERM', 'INT'])('SIG%s leaves the network as it was', async (signal) => {
      const before = await network('a');
      const { ended, pid } = await up('a', '--engine', engine);
      expect(await network('a')).not.toEqual(before);
      await kill(signal, pid);
      expect(await ended).toBe(0);
      expect(await network('a')).toEqual(before);
      expect((await inlay('a', 'status', '--run-dir', '/run/a')).code).toBe(3);
    });

    test('after kill -9, down leaves the network as it was, and a second time finds nothing', async () => {
      const before = await network('a');
      const { ended, pid } = await up('a', '--engine', engine);
      await kill('KILL', pid);
      await ended;
      expect(await network('a')).not.toEqual(before);
      expect(await inlay('a', 'down', '--run-dir', '/run/a')).toMatchObject({
        code: 0,
        stdout: expect.stringContaining('unreachable 10.16.32.0/24'),
      });
      expect(await network('a')).toEqual(before);
      expect((await lab.run('a', ['ls', '/run/a'])).code).toBe(2);
      expect(await inlay('a', 'down', '--run-dir', '/run/a')).toMatchObject({ code: 0, stdout: 'nothing to remove\n' });
    });

    test('after kill -9, the next up works, and its end leaves the network as it was', async () => {
      const before = await network('a');
      const first = await up('a', '--engine', engine);
      await kill('KILL', first.pid);
      await first.ended;
      const second = await up('a', '--engine', engine);
      await kill('TERM', second.pid);
      expect(await second.ended).toBe(0);
      expect(await network('a')).toEqual(before);
    });

    test('a start that fails ends, and leaves the network as it was', async () => {
      await lab.ip('a', ['route add 10.0.0.0/8 dev lo']);
      const before = await network('a');
      expect(await inlay('a', ...UP, '--run-dir', '/run/a', '--engine', engine)).toMatchObject({ code: 1 });
      expect(await network('a')).toEqual(before);
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
      expect((await lab.run('a', ['ls', '/run/a'])).code).toBe(2);
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
      expect(await network('a')).toEqual(before);
      expect((await lab.run('a', ['ls', '/run/a'])).code).toBe(2);
    });

    test('when somebody deletes the device, the daemon says so and ends with 1', async () => {
      const before = await network('a');
      const { ended } = await up('a', '--engine', engine);
      await lab.ip('a', ['link del inlay0']);
      expect(await ended).toBe(1);
      expect(await network('a')).toEqual(before);
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

/** The kernel forwards whether a daemon runs or not: ends, starts, other settings, starts that fail, and `down`. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CATCH_ALL_ROUTE } from './catch-all.ts';
import { KernelVms } from './kernel-vms.ts';
import { missing, skip } from './require.ts';
import { type Daemon, PATIENCE } from './vms.ts';

describe.skipIf(skip('kernel lifecycle', await missing('ping', 'tc', 'bridge')))('kernel lifecycle', () => {
  let vms: KernelVms;
  let b: Daemon;
  let calm: unknown;

  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b', 'c');
    calm = await vms.network('a');
    b = await vms.up('b');
    await vms.up('c');
    await vms.serve('b');
  });
  afterEach(() => vms.reset('a'));
  afterAll(() => vms?.close());

  const down = () => vms.inlay('a', 'down');
  const removesAll = async (route = CATCH_ALL_ROUTE) => {
    const { code, stderr, stdout } = await down();
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('device inlay0');
    expect(stdout).toContain(route);
    expect(await vms.network('a')).toEqual(calm);
    expect(await down()).toEqual({ code: 0, stderr: '', stdout: 'nothing to remove\n' });
  };

  describe.each(['TERM', 'INT', 'KILL'])('SIG%s', (signal) => {
    test('the kernel goes on, the next daemon takes over what it has, and down removes it', async () => {
      const code = signal === 'KILL' ? null : 0;
      const first = await vms.up('a');
      expect(await vms.network('a')).not.toEqual(calm);
      expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
      const index = await vms.index('a');
      const before = await vms.network('a');
      const { lost, sent } = await vms.during('a', vms.overlay('b'), async () => {
        expect(await vms.end(signal, first)).toBe(code);
        expect(await vms.pings('a', vms.overlay('b'), 20)).toBe('20');
        await vms.expectEntries('a', 'b');
        const second = await vms.up('a');
        expect([await vms.index('a'), await vms.network('a')]).toEqual([index, before]);
        expect(await vms.status('a')).toMatchObject({ tunnels: 1, neighbours: { resyncs: 1, repaired: 0, failed: 0 } });
        expect(await vms.pings('a', vms.overlay('c'), 1)).toBe('1');
        await vms.expectEntries('a', 'b', 'c');
        expect(await vms.end('KILL', second)).toBe(null);
      });
      expect({ lost, sent: sent > 0 }).toEqual({ lost: [], sent: true });
      await removesAll();
    });
  });

  test('without a daemon, packets to a VM that is not known are refused after a while, and the next daemon answers', async () => {
    const first = await vms.up('a');
    await vms.end('TERM', first);
    const waiting = vms.lab.run('a', ['ping', '-n', '-c', '1', '-W', '10', vms.overlay('b')]);
    const second = await vms.up('a');
    expect((await waiting).stdout).toMatch(/1 received|Destination Host Unreachable/);
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
    await vms.end('TERM', second);
    await removesAll();
  });

  test('what waits when the daemon comes is answered', async () => {
    const first = await vms.up('a');
    await vms.kill('STOP', first);
    // The request is made while nobody listens; the packet waits up to three seconds.
    const waiting = vms.lab.run('a', ['ping', '-n', '-c', '1', '-W', '20', vms.overlay('b')]);
    await expect
      .poll(() => vms.lab.must('a', ['ip', 'neighbour', 'show', 'nud', 'incomplete', 'dev', 'inlay0']), PATIENCE)
      .toContain(vms.overlay('b'));
    await vms.kill('CONT', first);
    expect((await waiting).stdout).toMatch(/ 1 received/);
    await vms.end('KILL', first);
    await removesAll();
  });

  describe('other settings', () => {
    const remade: { name: string; flags: string[]; shown: RegExp; others: string[] }[] = [
      { name: 'key', flags: ['--key', '9'], shown: /vxlan id 9 /, others: ['--key', '9'] },
      { name: 'ttl', flags: ['--ttl', '7'], shown: / ttl 7 /, others: [] },
      { name: 'ttl inherit', flags: ['--ttl', 'inherit'], shown: / ttl inherit /, others: [] },
      { name: 'dscp', flags: ['--dscp', '46'], shown: / tos 0xb8 /, others: [] },
      { name: 'path MTU discovery', flags: ['--path-mtu-discovery', 'off'], shown: /^(?!.* df set)/s, others: [] },
    ];

    test.each(remade)('$name: the device is made anew', async ({ flags, shown, others }) => {
      const first = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      const index = await vms.index('a');
      await vms.end('TERM', first);
      if (others.length > 0) {
        await vms.end('TERM', b);
        b = await vms.up('b', ...others);
      }
      const second = await vms.up('a', ...flags);
      expect(await vms.index('a')).not.toBe(index);
      expect(await vms.lab.must('a', ['ip', '-d', 'link', 'show', 'inlay0'])).toMatch(shown);
      expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
      await vms.expectEntries('a', 'b');
      await vms.end('TERM', second);
      // The same again: nothing is made anew.
      const again = await vms.index('a');
      const third = await vms.up('a', ...flags);
      expect(await vms.index('a')).toBe(again);
      await vms.end('TERM', third);
      if (others.length > 0) {
        await vms.end('TERM', b);
        b = await vms.up('b');
      }
      await removesAll();
    });

    test('another MTU of the underlay: the device is told', async () => {
      const first = await vms.up('a');
      const index = await vms.index('a');
      await vms.end('TERM', first);
      const second = await vms.up('a', '--underlay-mtu', '1300');
      expect(await vms.index('a')).toBe(index);
      expect(await vms.lab.must('a', ['cat', '/sys/class/net/inlay0/mtu'])).toBe('1250\n');
      await vms.end('TERM', second);
      await removesAll();
    });

    test('another overlay: what belongs to the old one goes', async () => {
      const first = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.end('TERM', first);
      const second = await vms.up('a', '--overlay', '240.0.0.0/4');
      // Of the other VM, which has its MAC address still, what belongs to the new overlay is made.
      const shown = 'ip -4 route show table all; ip neighbour show nud all dev inlay0; ip -4 address show inlay0';
      const found = await vms.lab.must('a', ['sh', '-c', shown]);
      expect(found).not.toMatch(/\b10\./);
      expect(found).toMatch(/^240\.0\.0\.0\/4 dev inlay0 proto 73 scope link src 241\.2\.0\.1 $/m);
      expect(found).toMatch(/^unreachable 241\.2\.0\.0\/20 proto 73 metric 4294967295 $/m);
      expect(found).toMatch(/^unreachable 240\.0\.0\.0\/4 proto 75 metric 1 $/m);
      expect(found).toMatch(/inet 241\.2\.0\.1\/32 /);
      await vms.end('TERM', second);
      await removesAll('route unreachable 240.0.0.0/4 proto 75 metric 1');
    });

    test('another name of the device: the old one goes', async () => {
      const first = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.end('TERM', first);
      const second = await vms.up('a', '--device', 'other0');
      expect((await vms.lab.run('a', ['ip', 'link', 'show', 'inlay0'])).code).toBe(1);
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.end('TERM', second);
      expect(await down()).toMatchObject({ code: 0, stdout: expect.stringContaining('device other0') });
      expect(await vms.network('a')).toEqual(calm);
    });

    test('the data plane wasm, and back: each removes the other first, and works', async () => {
      const kernel = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.end('TERM', kernel);
      const wasm = await vms.up('a', '--dataplane', 'wasm', '--fast-path', 'off');
      expect(await vms.status('a')).toMatchObject({
        dataPlane: 'wasm',
        encapsulation: 'gre',
        engine: 'linux',
        core: 'wasm',
      });
      expect(await vms.lab.must('a', ['ip', '-d', 'link', 'show', 'inlay0'])).toMatch(/tun type tun/);
      expect(await vms.lab.must('a', ['tc', 'qdisc', 'show', 'dev', 'eth0'])).not.toMatch(/clsact/);
      await vms.end('TERM', b);
      expect((await vms.inlay('b', 'down')).code).toBe(0);
      b = await vms.up('b', '--dataplane', 'wasm');
      expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
      await vms.end('TERM', b);
      await vms.end('KILL', wasm);
      b = await vms.up('b');
      const again = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
      await vms.end('TERM', again);
      await removesAll();
    });
  });

  describe('starts that fail leave everything as it was', () => {
    afterEach(async () => {
      await vms.lab.run('a', ['ip', 'link', 'del', 'inlay0']);
      await vms.lab.run('a', ['ip', 'route', 'del', '10.0.0.0/8']);
      expect(await vms.network('a')).toEqual(calm);
    });

    const fails: { name: string; before: string; says: string }[] = [
      {
        name: 'a route of others to the overlay',
        before: 'route add 10.0.0.0/8 dev lo',
        says: 'a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev lo proto 3',
      },
      {
        name: 'a device of others with our name',
        before: 'link add inlay0 type veth peer name peer0',
        says: 'device inlay0 exists already',
      },
      {
        name: 'the same device, but made by others',
        before:
          'link add inlay0 address 02:00:c0:a8:10:20 type vxlan id 1 local 192.168.16.32 dstport 4789 nolearning ttl 64 df set',
        says: 'device inlay0 exists already',
      },
      {
        name: 'a VXLAN device of others with the same identifier',
        before: 'link add other0 type vxlan id 1 local 192.168.16.32 dstport 4789',
        says: 'EEXIST',
      },
    ];
    test.each(fails)('$name', async ({ before: line, says }) => {
      await vms.ip('a', line);
      const before = await vms.network('a');
      const { code, stderr } = await vms.lab.run('a', vms.words('a'));
      expect([code, stderr]).toEqual([1, expect.stringContaining(says)]);
      expect(await vms.network('a')).toEqual(before);
      if (line.includes('other0')) await vms.ip('a', 'link del other0');
    });

    test('/proc/sys is read-only', async () => {
      const readOnly = ['unshare', '--mount', 'sh', '-c', 'mount --bind -o ro /proc/sys /proc/sys && exec "$@"', 'sh'];
      const { code, stderr } = await vms.lab.run('a', [...readOnly, ...vms.words('a')]);
      expect([code, stderr]).toEqual([1, expect.stringContaining('cannot be set to 1: EROFS')]);
      expect(await vms.network('a')).toEqual(calm);
    });
  });

  test('a start that fails after an earlier daemon was killed leaves what that one had, for down', async () => {
    const first = await vms.up('a');
    await vms.end('KILL', first);
    await vms.ip('a', 'route del 10.0.0.0/8', 'route add 10.0.0.0/8 dev lo');
    expect(await vms.lab.run('a', vms.words('a'))).toMatchObject({ code: 1 });
    await vms.ip('a', 'route del 10.0.0.0/8 dev lo');
    await removesAll();
  });

  test('down removes everything after a kill, even if others removed some of it', async () => {
    const first = await vms.up('a');
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
    await vms.end('KILL', first);
    await vms.ip('a', 'link del inlay0');
    expect((await down()).code).toBe(0);
    expect(await vms.network('a')).toEqual(calm);
  });

  test('down while the daemon runs does nothing', async () => {
    const first = await vms.up('a');
    const before = await vms.network('a');
    expect(await down()).toMatchObject({ code: 1, stderr: expect.stringContaining('runs already') });
    expect(await vms.network('a')).toEqual(before);
    await vms.end('TERM', first);
    await removesAll();
  });

  test("others' discipline and filter at the underlay's device survive", async () => {
    const others =
      'tc qdisc add dev eth0 clsact && tc filter add dev eth0 ingress prio 5 protocol ip u32 match ip protocol 253 0xff flowid 1:1';
    await vms.lab.must('a', ['sh', '-c', others]);
    const before = await vms.network('a');
    const first = await vms.up('a');
    expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
    expect(await vms.status('a')).toMatchObject({ inbound: { packets: 3, drops: {} } });
    await vms.end('KILL', first);
    expect((await down()).code).toBe(0);
    expect(await vms.network('a')).toEqual(before);
    await vms.lab.must('a', ['tc', 'qdisc', 'del', 'dev', 'eth0', 'clsact']);
    expect(await vms.network('a')).toEqual(calm);
  });

  test("others' filter in our discipline keeps it there", async () => {
    const first = await vms.up('a');
    const others = 'tc filter add dev eth0 ingress prio 5 protocol ip u32 match ip protocol 253 0xff flowid 1:1';
    await vms.lab.must('a', ['sh', '-c', others]);
    await vms.end('TERM', first);
    expect((await down()).code).toBe(0);
    expect(await vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'eth0', 'ingress'])).toMatch(/u32/);
    expect(await vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'eth0', 'ingress'])).not.toMatch(/inlay/);
    await vms.lab.must('a', ['tc', 'qdisc', 'del', 'dev', 'eth0', 'clsact']);
    expect(await vms.network('a')).toEqual(calm);
  });
});

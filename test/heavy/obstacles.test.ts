/** What others have on this machine that meets what a daemon makes: it is left alone, and `status` says what is in the way for as long as it is. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CATCH_ALL_ROUTE } from '../net/catch-all.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE, Vms } from '../net/vms.ts';

const reason = await missing('bridge', 'ping', 'tc');

describe.skipIf(skip('obstacles', reason)).each(['wasm', 'kernel'] as const)('obstacles, %s', (plane) => {
  let vms: Vms;
  let calm: unknown;

  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
    await vms.up('b');
    calm = await vms.network('a');
  });
  afterEach(async () => {
    await vms.reset('a');
    const script = 'for d in other0 br0 peer0; do ip link del $d; done; ip route flush root 10.0.0.0/8; rm /run/a.log';
    await vms.lab.run('a', ['sh', '-c', script]);
    expect(await vms.network('a')).toEqual(calm);
  });
  afterAll(() => vms?.close());

  const routes = async (to: string) =>
    (await vms.lab.must('a', ['ip', 'route', 'show', to])).split('\n').map((line) => line.trim());
  const flows = async () => {
    await expect.poll(() => vms.pings('a', vms.overlay('b'), 3), PATIENCE).toBe('3');
    await expect.poll(() => vms.pings('b', vms.overlay('a'), 3), PATIENCE).toBe('3');
  };
  const said = async (message: string) =>
    (await vms.log('a'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter(({ msg }) => String(msg).startsWith(message));
  const down = async () => {
    const output = await vms.inlay('a', 'down');
    expect([output.code, output.stderr]).toEqual([0, '']);
    return output.stdout;
  };

  describe("an operator's own unreachable route to the overlay", () => {
    const cases = [1, 2, 100, 0xffffffff].flatMap((metric) =>
      // Where the catch-all is, nobody can add another.
      (metric === 1 ? ['before'] : ['before', 'after']).map((when) => ({ metric, when })),
    );
    test.each(cases)('with metric $metric, made $when the start, is no obstacle', async ({ metric, when }) => {
      const line = `unreachable 10.0.0.0/8 metric ${metric}`;
      if (when === 'before') await vms.ip('a', `route add ${line}`);
      const a = await vms.up('a');
      if (when === 'after') await vms.ip('a', `route add ${line}`);
      await flows();
      expect(await routes('10.0.0.0/8')).toContain(line);
      expect(await vms.status('a')).toMatchObject({ state: 'running', troubles: [], repaired: 0 });
      await vms.end('TERM', a);
      // A restart, whatever was first.
      await vms.end('TERM', await vms.up('a'));
      // It does what the catch-all is for, where it stands in its place.
      const removed = await down();
      if (metric === 1) expect(removed).not.toContain(CATCH_ALL_ROUTE);
      else expect(removed).toContain(CATCH_ALL_ROUTE);
      expect(await routes('10.0.0.0/8')).toEqual([line, '']);
    });

    test('when it goes, the catch-all takes its place', async () => {
      await vms.ip('a', 'route add unreachable 10.0.0.0/8 metric 1');
      const a = await vms.up('a');
      expect(await routes('10.0.0.0/8')).not.toContain('unreachable 10.0.0.0/8 proto 75 metric 1');
      await vms.ip('a', 'route del unreachable 10.0.0.0/8 metric 1');
      await expect.poll(() => routes('10.0.0.0/8'), PATIENCE).toContain('unreachable 10.0.0.0/8 proto 75 metric 1');
      await vms.end('TERM', a);
      expect(await down()).toContain(CATCH_ALL_ROUTE);
    });
  });

  describe("a bridge with the slice's own prefix", () => {
    const BRIDGE = [
      'link add br0 type bridge',
      'link set br0 addrgenmode none up',
      'address add 10.16.32.2/24 dev br0',
    ];
    test.each(['before', 'after'])('made %s the start: its route wins, and there is no trouble', async (when) => {
      if (when === 'before') await vms.ip('a', ...BRIDGE);
      await vms.up('a');
      if (when === 'after') await vms.ip('a', ...BRIDGE);
      await flows();
      expect(await vms.lab.must('a', ['ip', 'route', 'get', '10.16.32.77'])).toContain(' dev br0 ');
      expect(await vms.status('a')).toMatchObject({ state: 'running', troubles: [], repaired: 0 });
      await vms.ip('a', 'link del br0');
      expect((await vms.lab.run('a', ['ip', 'route', 'get', '10.16.32.77'])).stderr).toContain('No route to host');
    });
  });

  /** While a daemon runs: what comes in the way, what `status` then says, and how it goes again. */
  const comes: { name: string; come: string; shown: [words: string, found: string]; go: string; what: string }[] = [
    {
      name: 'a route of others in the place of ours',
      come: 'ip route replace 10.0.0.0/8 dev lo',
      shown: ['ip route show 10.0.0.0/8', '10.0.0.0/8 dev lo scope link'],
      go: 'ip route del 10.0.0.0/8 dev lo',
      what: 'a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev lo proto 3',
    },
    {
      name: 'a route of others in the place of the catch-all',
      come: 'ip route replace blackhole 10.0.0.0/8 metric 1',
      shown: ['ip route show 10.0.0.0/8', 'blackhole 10.0.0.0/8 metric 1'],
      go: 'ip route del blackhole 10.0.0.0/8 metric 1',
      what: 'a route to 10.0.0.0/8 exists already: blackhole 10.0.0.0/8 proto 3 metric 1',
    },
    {
      name: 'a more exact route of others into the overlay',
      come: 'ip route add 10.16.64.0/20 dev eth0',
      shown: ['ip route show 10.16.64.0/20', '10.16.64.0/20 dev eth0 scope link'],
      go: 'ip route del 10.16.64.0/20',
      what: 'a route of others hides VMs of the overlay: 10.16.64.0/20 dev eth0 proto 3',
    },
    {
      name: 'a more exact route of others that goes with its device',
      come: 'ip link add other0 type veth peer name peer0; ip link set other0 addrgenmode none up; ip link set peer0 addrgenmode none up; ip address add 10.16.64.1/20 dev other0',
      shown: ['ip route show 10.16.64.0/20', '10.16.64.0/20 dev other0 proto kernel scope link src 10.16.64.1'],
      go: 'ip link del other0',
      what: 'a route of others hides VMs of the overlay: 10.16.64.0/20 dev other0 proto 2',
    },
  ];

  test.each(comes)('$name: degraded while it is there, and then running again', async ({ come, shown, go, what }) => {
    const a = await vms.up('a');
    await flows();
    const right = await vms.network('a');
    await vms.lab.must('a', ['sh', '-c', come]);
    await expect.poll(async () => (await vms.status('a')).state, PATIENCE).toBe('degraded');
    expect(await vms.status('a')).toMatchObject({ pid: a.pid, troubles: [{ what, hint: expect.any(String) }] });
    // It stays told once, and others' route as it was, for several looks.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    const [words, found] = shown;
    expect((await vms.lab.must('a', words.split(' '))).split('\n').map((line) => line.trim())).toContain(found);
    expect(await said('degraded')).toMatchObject([{ level: 'warn', msg: `degraded: ${what}` }]);
    expect((await vms.status('a')).troubles).toHaveLength(1);

    await vms.lab.must('a', ['sh', '-c', go]);
    await expect.poll(async () => (await vms.status('a')).state, PATIENCE).toBe('running');
    await expect.poll(() => vms.network('a'), PATIENCE).toEqual(right);
    await flows();
    expect(await said('over')).toMatchObject([{ level: 'info', trouble: what }]);
    expect(await said('running again')).toMatchObject([{ level: 'info' }]);
    await vms.end('TERM', a);
    await down();
  });

  test('a device of others with our name: degraded while it is there, and then running again', async () => {
    const a = await vms.up('a');
    await flows();
    await vms.kill('STOP', a);
    await vms.ip(
      'a',
      'link del inlay0',
      'link add inlay0 type veth peer name peer0',
      'address add 172.16.0.1/24 dev inlay0',
    );
    const theirs = await vms.lab.must('a', ['ip', '-d', '-o', 'link', 'show', 'inlay0']);
    await vms.kill('CONT', a);
    await expect.poll(async () => (await vms.status('a')).state, PATIENCE).toBe('degraded');
    const what = 'device inlay0 exists already: another daemon or program uses it';
    expect((await vms.status('a')).troubles[0]).toMatchObject({ what, hint: expect.stringContaining('--device') });
    await new Promise((resolve) => setTimeout(resolve, 1200));
    expect(await vms.lab.must('a', ['ip', '-d', '-o', 'link', 'show', 'inlay0'])).toBe(theirs);
    expect(await vms.lab.must('a', ['ip', '-4', 'address', 'show', 'inlay0'])).not.toMatch(/inet 10\./);
    expect((await said('degraded')).filter(({ msg }) => msg === `degraded: ${what}`)).toHaveLength(1);
    // What nobody carries is unreachable all the while.
    expect((await vms.lab.run('a', ['ip', 'route', 'get', vms.overlay('b')])).stderr).toContain('No route to host');
    await vms.ip('a', 'link del inlay0');
    await expect.poll(async () => (await vms.status('a')).state, PATIENCE).toBe('running');
    await flows();
    expect((await vms.status('a')).pid).toBe(a.pid);
    await vms.end('TERM', a);
    await down();
  });
});

/** Containers that come and go all the time: no address too early, nothing left behind, and nothing lost of the others. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ContainerVms, type Library, NOTHING } from '../net/container-vms.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE, type Plane } from '../net/vms.ts';

const skipped = skip('containers, churn', await missing('ping'));
type Interval = [container: number, from: number, to: number];

describe.skipIf(skipped)('processes that attach and detach in loops', () => {
  const PROCESSES = 8;
  const EACH = 20;
  const COOL_DOWN = 1;
  const SMALL = { overlay: '10.0.0.0/26', underlay: '192.168.16.32/31', coolDown: COOL_DOWN };
  let vms: ContainerVms;
  beforeAll(async () => {
    vms = await ContainerVms.of('wasm', 'a');
  });
  afterAll(() => vms?.close());

  test('no address has two containers, and none is had before its time', async () => {
    const names = Array.from({ length: PROCESSES }, (_, i) => `c${i}`);
    await vms.namespaces(...names);
    const libraries = names.map(() => vms.library('a', SMALL));
    const churn = (netns: string, i: number) => libraries[i]?.call<Interval[]>('churn', { netns, count: EACH });
    const all = (await Promise.all(names.map(churn))).flatMap((each) => each ?? []);
    expect(all).toHaveLength(PROCESSES * EACH);
    const numbers = new Set(all.map(([container]) => container));
    let pairs = 0;
    for (const number of numbers) {
      const intervals = all.filter(([container]) => container === number);
      intervals.sort(([, one], [, other]) => one - other);
      for (const [i, [container, from]] of intervals.slice(1).entries()) {
        const [, , to] = intervals[i] as Interval;
        // It was given back after `to`, and claimed before `from`.
        expect([container, from - to >= COOL_DOWN]).toEqual([container, true]);
        pairs++;
      }
    }
    expect(pairs).toBeGreaterThan(PROCESSES * EACH - 29 - 1);
    const { tombstones, ...rest } = await vms.traces('a');
    expect({ ...rest, tombstones: [] }).toEqual(NOTHING);
    // When their time is over they are in nobody's way, and go when somebody looks.
    await expect.poll(async () => (await libraries[0]?.usage())?.coolingDown, PATIENCE).toBe(0);
    const again = tombstones.map((address) => Number(address.split('.').at(-1)) - 1);
    expect(await libraries[0]?.attach({ netns: 'c0', id: 'c0', container: again[0] as number })).toBeTruthy();
    expect((await vms.traces('a')).tombstones).toEqual([]);
    await Promise.all(libraries.map((library) => library.close()));
  });
});

describe.skipIf(skipped).each<Plane>(['wasm', 'kernel'])('beside others and their traffic, %s', (plane) => {
  const OTHERS = 20;
  const COUNT = 300;
  let vms: ContainerVms;
  beforeAll(async () => {
    vms = await ContainerVms.of(plane, 'a', 'b');
    await vms.namespaces('b1', 'x', 'y', ...others);
  });
  afterAll(() => vms?.close());
  const others = Array.from({ length: OTHERS }, (_, i) => `o${i}`);

  /** What the kernel has, by number. */
  async function counted(pid: number): Promise<Record<string, number>> {
    const script = `ip -br link | wc -l; ip -4 route show table all type unicast | wc -l; ip -4 neighbour show nud all | grep -v " dev eth0 " | wc -l
      ls /proc/sys/net/ipv4/conf | wc -l; ip -4 rule | wc -l; ls /proc/${pid}/fd | wc -l`;
    const names = ['links', 'routes', 'neighbours', 'settings', 'rules', "the daemon's descriptors"];
    const values = (await vms.lab.must('a', ['sh', '-c', script])).trim().split('\n').map(Number);
    return Object.fromEntries(names.map((name, i) => [name, values[i] as number]));
  }

  /** Descriptors, and bytes. What is freed when something is collected goes with the next collection. */
  async function resources(library: Library): Promise<{ descriptors: number; memory: number }> {
    await library.call('resources');
    return await library.call('resources');
  }

  test(`${COUNT} attach and detach: all is as before, and no packet of the others is lost`, async () => {
    const a = await vms.up('a');
    await vms.up('b');
    const [library, far] = [vms.library('a', { mtu: 1400, coolDown: 1 }), vms.library('b', { mtu: 1400 })];
    const { address } = await far.attach({ netns: 'b1', id: 'b1', container: 90 });
    for (const netns of others) await library.attach({ netns, id: netns });
    await vms.serve('b1');
    expect(await vms.pings('o0', address, 1)).toBe('1');
    // What is loaded, and what is allocated, the first time.
    await library.call('churn', { netns: 'x', count: 20 });
    await library.detachAll([{ id: 'x' }]);
    const before = { counts: await counted(a.pid), ...(await resources(library)) };

    const { sent, lost } = await vms.during('o0', address, async () => {
      const churns = ['x', 'y'].map((netns) => library.call('churn', { netns, count: COUNT / 2 }));
      await Promise.all(churns);
    });
    expect([sent > 100, lost]).toEqual([true, []]);

    await expect.poll(() => counted(a.pid), PATIENCE).toEqual(before.counts);
    const { descriptors, memory } = await resources(library);
    expect(descriptors).toBe(before.descriptors);
    // Bytes for each: what stays of one socket or of one answer is much more.
    expect((memory - before.memory) / COUNT).toBeLessThan(2000);
    for (const netns of others) await library.check({ id: netns, netns });
    expect((await library.list()).map(({ id }) => id).sort()).toEqual([...others].sort());
    expect((await vms.status('a')).state).toBe('running');
    await Promise.all([library.close(), far.close()]);
  });
});

/** Whatever becomes of a container's namespace, and of what is in it: the VM's side stays whole, and detach takes all of it away. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ContainerVms, type Library, NOTHING } from './container-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const skipped = skip('containers, inside', await missing('ping'));
const LINK = 'ip -n c1 link set eth0';

describe.skipIf(skipped)('a container', () => {
  let vms: ContainerVms;
  let library: Library;
  beforeAll(async () => {
    vms = await ContainerVms.of('wasm', 'a');
    await vms.namespaces('c1', 'c2', 'c3');
    library = vms.library('a', { coolDown: 0 });
  });
  afterAll(async () => {
    await library?.close();
    await vms?.close();
  });
  beforeEach(async () => {
    await library.detachAll([{ id: 'x' }, { id: 'y' }]);
    expect(await vms.traces('a')).toEqual(NOTHING);
    await library.attach({ netns: 'c1', id: 'x', container: 90 });
  });

  const shell = (script: string) => vms.lab.must(undefined, ['sh', '-ec', script]);
  const wrong = async () => (await library.refusal('check', { id: 'x', netns: 'c1' })).message;

  test.each([
    {
      what: 'takes its address away',
      script: 'ip -n c1 address del 10.16.32.91/32 dev eth0',
      says: 'eth0 does not have its address',
    },
    {
      what: 'takes another address',
      script: 'ip -n c1 address del 10.16.32.91/32 dev eth0; ip -n c1 address add 10.16.32.92/32 dev eth0',
      says: 'eth0 does not have its address',
    },
    {
      what: 'deletes the route to its gateway',
      script: 'ip -n c1 route del default; ip -n c1 route del 10.16.32.1',
      says: 'eth0 has no route to its gateway',
    },
    { what: 'deletes its default route', script: 'ip -n c1 route del default', says: 'eth0 has no route to the mesh' },
    {
      what: 'forgets where its gateway is',
      script: 'ip -n c1 neighbour del 10.16.32.1 dev eth0',
      says: 'eth0 has no lasting entry for its gateway',
    },
    { what: 'takes its interface down', script: `${LINK} down`, says: 'eth0 has no route to its gateway' },
    { what: 'renames its interface', script: `${LINK} name other`, says: 'interface eth0 has gone from namespace c1' },
    {
      what: 'moves its interface into another namespace',
      script: `${LINK} netns c2`,
      says: 'interface eth0 has gone from namespace c1',
    },
  ])('whose root $what is as it was for its VM, and not for whoever checks', async ({ script, says }) => {
    const before = await vms.traces('a');
    await library.check({ id: 'x', netns: 'c1' });
    await shell(script);
    expect(await wrong()).toBe(`container x: ${says}`);
    expect(await vms.traces('a')).toEqual(before);
    expect(await library.list()).toMatchObject([{ container: 90, id: 'x', namespace: 'c1' }]);
    // Its number stays its own.
    expect(await library.refusal('attach', { netns: 'c3', id: 'y', container: 90 })).toMatchObject({ reason: 'taken' });
    expect(await library.detach({ id: 'x' })).toMatchObject({ container: 90, id: 'x' });
    expect(await vms.traces('a')).toEqual(NOTHING);
    expect(await shell('for c in c1 c2 c3; do ip -n $c -br link; done')).toMatch(/^(lo .*\n){3}$/);
  });

  test('whose interface has another link-layer address is where it was', async () => {
    const before = await vms.traces('a');
    await vms.lab.ip('c1', ['link set eth0 address 02:00:00:00:00:77']);
    await vms.lab.run('c1', ['ping', '-n', '-c', '1', '-W', '0.1', '10.16.32.1']);
    expect(await vms.traces('a')).toEqual(before);
    await vms.lab.ip('c1', [`link set eth0 address ${before.neighbours[0]?.split(' ').at(-1)}`]);
    expect(await vms.pings('a', '10.16.32.91', 1)).toBe('1');
  });

  test('that was spoilt is attached still, and made anew when it was detached', async () => {
    await shell('ip -n c1 address flush dev eth0');
    expect(await library.refusal('attach', { netns: 'c1', id: 'x' })).toMatchObject({ reason: 'attached' });
    await library.detach({ id: 'x' });
    const { container } = await library.attach({ netns: 'c1', id: 'x' });
    expect(await library.check({ id: 'x', netns: 'c1' })).toMatchObject({ container });
  });

  test('whose root deletes its interface is detached, and can be attached again', async () => {
    await shell('ip -n c1 link del eth0');
    expect(await vms.traces('a')).toEqual(NOTHING);
    expect([await library.find({ id: 'x' }), await library.detach({ id: 'x' })]).toEqual([null, null]);
    expect(await wrong()).toBe('container x: no interface eth0 is attached');
    await library.attach({ netns: 'c1', id: 'x', container: 90 });
    expect(await vms.pings('c1', '10.16.32.1', 1)).toBe('1');
  });

  test('whose namespace is deleted goes by itself; another namespace with its name is another', async () => {
    const { netns } = (await library.find({ id: 'x' })) ?? {};
    const crowd = Array.from({ length: 10 }, (_, i) => `crowd${i}`);
    await vms.namespaces(...crowd);
    for (const name of crowd) await library.attach({ netns: name, id: name });
    // The old one takes a while to go, the more so behind others.
    await vms.lab.ip(undefined, [...[...crowd, 'c1'].map((name) => `netns del ${name}`), 'netns add c1']);
    const again = await library.attach({ netns: 'c1', id: 'x' });
    expect(again.netns).not.toBe(netns);
    expect(await vms.pings('c1', '10.16.32.1', 1)).toBe('1');
    await vms.deleteNamespaces('c1');
    await expect.poll(() => vms.traces('a'), PATIENCE).toEqual(NOTHING);
    expect(await library.refusal('attach', { netns: 'c1', id: 'x' })).toMatchObject({ reason: 'no-namespace' });
    await vms.namespaces('c1');
  });

  test('stays while only its name is deleted, and is called by a process in it', async () => {
    const sleeper = vms.lab.start('c1', ['sleep', 'infinity'], { stdio: 'ignore' });
    const pids = async () => (await vms.lab.must(undefined, ['ip', 'netns', 'pids', 'c1'])).trim();
    await expect.poll(pids, PATIENCE).toMatch(/^\d+$/);
    const pid = await pids();
    await shell('umount /run/netns/c1; rm /run/netns/c1');
    expect(await library.list()).toMatchObject([{ id: 'x', namespace: `pid ${pid}` }]);
    expect(await library.check({ id: 'x', netns: pid })).toMatchObject({ container: 90 });
    expect(await vms.pings('a', '10.16.32.91', 1)).toBe('1');
    await library.detach({ id: 'x' });
    await vms.lab.must(undefined, ['kill', '-KILL', pid]);
    sleeper.kill('SIGKILL');
    await vms.namespaces('c1');
  });

  test('whose routes on the VM somebody flushes can be detached, and attached anew', async () => {
    await vms.ip('a', 'route flush proto 74');
    expect(await wrong()).toMatch(/^container x: the route to its address does not lead to inl/);
    expect(await library.refusal('attach', { netns: 'c1', id: 'x' })).toMatchObject({ reason: 'attached' });
    expect(await library.detach({ id: 'x' })).toMatchObject({ container: 90 });
    expect(await vms.traces('a')).toEqual(NOTHING);
  });

  test('is attached where somebody takes the VM’s own address away, and where lo is down', async () => {
    await vms.ip('a', 'address del 10.16.32.1/32 dev lo');
    // The kernel deletes routes whose preferred source goes.
    expect((await vms.traces('a')).claims).toEqual([]);
    await library.detach({ id: 'x' });
    await library.attach({ netns: 'c1', id: 'x' });
    expect(await vms.pings('c1', '10.16.32.1', 1)).toBe('1');
    // Where lo is down, its addresses are none.
    await vms.ip('a', 'link set lo down', 'address del 10.16.32.1/32 dev lo');
    const { address } = await library.attach({ netns: 'c2', id: 'y' });
    expect(await vms.pings('a', address, 1)).toBe('1');
    await vms.ip('a', 'link set lo up', 'address del 10.16.32.1/32 dev lo');
    await library.detach({ id: 'y' });
    await library.attach({ netns: 'c2', id: 'y' });
    expect(await vms.lab.must('a', ['ip', 'route', 'show', 'proto', '74'])).toMatch(/ src 10\.16\.32\.1 /);
  });
});

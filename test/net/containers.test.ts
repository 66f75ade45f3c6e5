/** Containers that come by attach and go by detach: whatever becomes of the daemon, in both data planes. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ContainerVms, type Library, MESH, NOTHING } from './container-vms.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { PATIENCE, type Plane } from './vms.ts';

const reason = await missing('ping', 'setpriv');
const skipped = skip('containers', reason);

describe.skipIf(skipped)('attach, detach and containers', () => {
  let vms: ContainerVms;
  let library: Library;
  beforeAll(async () => {
    vms = await ContainerVms.of('wasm', 'a');
    await vms.namespaces('c1', 'c2', 'c3', '77');
    library = vms.library('a', { coolDown: 0 });
  });
  afterAll(async () => {
    await library?.close();
    await vms?.close();
  });

  const inlay = (...words: string[]) => vms.command('a', [...words, ...MESH, '--address-cool-down', '0s']);
  async function json<T = Record<string, unknown>>(...words: string[]): Promise<T> {
    const { code, stdout, stderr } = await inlay(...words, '--json');
    expect([code, stderr, stdout.split('\n').length]).toEqual([0, '', 2]);
    return JSON.parse(stdout);
  }
  const inodeOf = async (netns: string) =>
    Number(await vms.lab.must(undefined, ['stat', '-Lc', '%i', `/run/netns/${netns}`]));

  test('where no daemon has run, what is for other VMs follows no default route', async () => {
    await vms.ip('a', 'route add default dev eth0');
    const way = () => vms.lab.run('a', ['ip', 'route', 'get', '10.99.1.2']);
    expect((await way()).stdout).toContain('dev eth0');
    await json('attach', 'c3');
    expect((await way()).stderr).toMatch(/No route to host|Host is unreachable/i);
    await json('detach', 'c3');
    await vms.ip('a', 'route del default dev eth0');
  });

  test('by name: the container is reached, and reaches others by their addresses', async () => {
    const first = await inlay('attach', 'c1', '--container', '90');
    expect(first).toEqual({ code: 0, stdout: 'c1: eth0 is container 90, 10.16.32.91\n', stderr: '' });
    const netns = await inodeOf('c1');
    const second = await json('attach', 'c2', '--id', 'web', '--ifname', 'mesh0', '--mac', '02:00:00:00:00:91');
    const mac = expect.stringMatching(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/);
    const hostInterface = expect.stringMatching(/^inl[a-z2-7]{12}$/);
    expect(second).toEqual({
      ...{ container: expect.any(Number), address: vms.container('a', (second['container'] as number) + 1) },
      ...{ gateway: '10.16.32.1', id: 'web', ifname: 'mesh0', hostInterface, mac: '02:00:00:00:00:91', hostMac: mac },
      ...{ mtu: 1476, netns: await inodeOf('c2'), since: expect.any(Number), route: '0.0.0.0/0' },
    });
    expect(await vms.pings('c2', '10.16.32.91', 2)).toBe('2');
    expect(await vms.pings('a', '10.16.32.91', 1)).toBe('1');
    expect(await vms.pings('c1', '10.16.32.1', 1)).toBe('1');

    const { containers, ...usage } = await json<{ containers: Record<string, unknown>[] }>('containers');
    expect(usage).toEqual({ capacity: 253, inUse: 2, coolingDown: 0 });
    const counters = { sentPackets: expect.any(Number), sentBytes: expect.any(Number) };
    const received = { receivedPackets: expect.any(Number), receivedBytes: expect.any(Number) };
    const common = { hostInterface, since: expect.any(Number), ...counters, ...received };
    expect(containers.find(({ id }) => id === 'web')).toEqual({
      ...{ container: second['container'], address: second['address'], id: 'web', ifname: 'mesh0', namespace: 'c2' },
      ...{ netns: second['netns'], ...common },
    });
    const c1 = containers.find(({ container }) => container === 90);
    expect(c1).toEqual({
      ...{ container: 90, address: '10.16.32.91', id: `netns-${netns}`, ifname: 'eth0', namespace: 'c1', netns },
      ...common,
    });
    // Two echoes and an answer to each, and to the VM's; the VM's answer.
    expect([c1?.['sentPackets'], c1?.['receivedPackets']]).toEqual([4, 4]);
    expect(containers.map(({ container }) => container)).toEqual(
      [90, second['container'] as number].sort((one, other) => one - other),
    );
  });

  test('what is made is what the documentation says', async () => {
    const links = await vms.json<Record<string, unknown>[]>('a', 'ip', '-j', '-d', 'link', 'show', 'group', '74');
    const link = links.find(({ ifname }) => ifname);
    expect(link).toMatchObject({
      mtu: 1476,
      operstate: 'UP',
      num_tx_queues: 1,
      num_rx_queues: 1,
      inet6_addr_gen_mode: 'none',
    });
    const device = String(link?.['ifname']);
    const script = `cd /proc/sys/net; cat ipv4/conf/${device}/{forwarding,rp_filter,accept_redirects,send_redirects} ipv6/conf/${device}/disable_ipv6`;
    expect((await vms.lab.must('a', ['bash', '-c', script])).split('\n')).toEqual(['1', '1', '0', '0', '1', '']);
    expect(await vms.lab.must('a', ['ip', '-br', 'address', 'show', 'dev', device])).not.toMatch(/[.:]\S*\//);
    const inside = async (...words: string[]) => (await vms.lab.must('c2', ['ip', ...words])).trim().split(/ *\n */);
    expect(await inside('route')).toEqual([
      'default via 10.16.32.1 dev mesh0 proto static',
      '10.16.32.1 dev mesh0 proto static scope link',
    ]);
    expect(await inside('neighbour')).toEqual([
      expect.stringMatching(/^10\.16\.32\.1 dev mesh0 lladdr \S+ PERMANENT$/),
    ]);
    // Nothing of IPv6 but the loopback's address.
    expect(await inside('-6', '-br', 'address')).toEqual([expect.stringMatching(/^lo /)]);
    expect(await inside('-br', 'link')).toEqual([
      expect.stringMatching(/^lo /),
      expect.stringMatching(/^mesh0@\S+ +UP +02:00:00:00:00:91 /),
    ]);
  });

  test('by path, and by a process; a name of digits is a name', async () => {
    const sleeper = vms.lab.start('c3', ['sleep', 'infinity'], { stdio: 'ignore' });
    const pidIn = async () => (await vms.lab.run(undefined, ['ip', 'netns', 'pids', 'c3'])).stdout.trim();
    await expect.poll(pidIn, PATIENCE).toMatch(/^\d+$/);
    const pid = await pidIn();
    const { id, netns } = await library.attach({ netns: pid });
    expect([id, netns]).toEqual([`netns-${netns}`, await inodeOf('c3')]);
    // The same namespace by another name is the same container.
    expect(await library.refusal('attach', { netns: '/run/netns/c3' })).toMatchObject({ reason: 'attached' });
    expect(await library.check({ id, netns: `/proc/${pid}/ns/net` })).toMatchObject({ id, netns });
    await library.detach({ id });
    sleeper.kill('SIGKILL');
    expect(await library.attach({ netns: '/run/netns/../netns/c3' })).toMatchObject({ id, netns });
    expect(await vms.pings('c3', '10.16.32.91', 1)).toBe('1');
    expect(await library.attach({ netns: '77' })).toMatchObject({ netns: await inodeOf('77') });
    const names = (await library.list()).map(({ namespace }) => namespace);
    expect(names.sort()).toEqual(['77', 'c1', 'c2', 'c3']);
  });

  test('a second attach of the same container and interface is refused, and changes nothing', async () => {
    const before = await vms.traces('a');
    const again = await inlay('attach', 'c1');
    expect(again).toMatchObject({ code: 73, stdout: '' });
    expect(again.stderr).toMatch(/^inlay: container netns-\d+ is attached as eth0\nhint: inlay detach --id netns-/);
    expect(await library.refusal('attach', { netns: 'c3', id: 'web', ifname: 'mesh0' })).toMatchObject({
      message: 'container web is attached as mesh0, in another namespace',
      hint: 'inlay detach --id web --ifname mesh0',
    });
    expect(await vms.traces('a')).toEqual(before);
    expect(await vms.pings('c2', '10.16.32.91', 1)).toBe('1');
  });

  test('anybody may look', async () => {
    const asUser = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    const { code, stdout } = await vms.command('a', ['containers', ...MESH], asUser);
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(/10\.16\.32\.91 +c1 +eth0[\s\S]*\n\n4 of 253 addresses in use, /),
    ]);
  });

  test('a namespace is detached whatever it was attached as, whoever is named twice is told once, and all are gone', async () => {
    const detached = await json<{ id: string; ifname: string }[]>('detach', 'c1', 'c2', 'c2', '/run/netns/c1');
    expect(detached.map(({ id, ifname }) => `${id.replace(/\d+/, 'N')} ${ifname}`).sort()).toEqual([
      'netns-N eth0',
      'web mesh0',
    ]);
    expect(await inlay('detach', 'c1')).toEqual({ code: 0, stdout: 'nothing was attached\n', stderr: '' });
    expect(await library.detach({ id: 'web', ifname: 'mesh0' })).toBeNull();
    expect(await inlay('detach', 'c1', '--id', 'web')).toMatchObject({ code: 2, stdout: '' });
    expect((await library.attach({ netns: 'c1', container: 90 })).container).toBe(90);
    // All is also a container whose route others took away, and one whose attach was killed.
    await vms.ip('a', 'route del 10.16.32.91 proto 74');
    expect(await vms.stopped('a', '7', [['attach', { netns: 'c2', id: 'half-made' }]])).toBeUndefined();
    expect((await vms.traces('a')).links).toHaveLength(4);
    expect((await json<unknown[]>('detach', '--all')).length).toBe(3);
    expect(await vms.traces('a')).toEqual(NOTHING);
    for (const name of ['c1', 'c2', 'c3', '77'])
      expect(await vms.lab.must(name, ['ip', '-br', 'link'])).toMatch(/^lo .*\n$/);
    expect(await library.usage()).toEqual({ capacity: 253, inUse: 0, coolingDown: 0 });
  });

  test('what is of another mesh is left alone, and goes only by its id', async () => {
    const other = vms.library('a', { overlay: '11.0.0.0/8' });
    await other.attach({ netns: 'c1', id: 'other' });
    const before = await vms.traces('a');
    expect(await library.refusal('attach', { netns: 'c2', id: 'other' })).toMatchObject({ reason: 'other-mesh' });
    expect(await json<unknown[]>('detach', '--all')).toEqual([]);
    expect(await vms.traces('a')).toEqual(before);
    const { stdout } = await inlay('detach', '--id', 'other');
    expect(stdout).toMatch(/^eth0: 11\.16\.32\.\d+ is detached\n$/);
    expect(await vms.traces('a')).toEqual(NOTHING);
    await other.close();
  });
});

describe.skipIf(skipped)('whatever becomes of the daemon', () => {
  let vms: ContainerVms;
  let library: Library;
  beforeAll(async () => {
    vms = await ContainerVms.of('wasm', 'a', 'b');
    await vms.namespaces('a1', 'a2', 'a3', 'b1');
    library = vms.library('a');
  });
  afterAll(async () => {
    await library?.close();
    await vms?.close();
  });

  const inlay = (vm: string, ...words: string[]) => vms.command(vm, words);
  const A1 = '10.16.32.91';
  const B1 = '10.16.33.91';

  test('without one, the flags tell the mesh', async () => {
    const says = expect.stringContaining('no daemon has left its mesh');
    expect(await inlay('a', 'attach', 'a1')).toMatchObject({ code: 78, stderr: says });
    expect((await inlay('a', 'attach', 'a1', '--container', '90', ...MESH)).code).toBe(0);
    expect((await inlay('b', 'attach', 'b1', '--container', '90', ...MESH)).code).toBe(0);
  });

  test.each<Plane>(['wasm', 'kernel'])('running, killed, restarted, stopped, and after down: %s', async (plane) => {
    const before = await vms.traces('a');
    const b = await vms.up('b', ...PLANES[plane]);
    const first = await vms.up('a', ...PLANES[plane]);
    expect([await vms.pings('a1', B1, 2), await vms.pings('b1', A1, 2)]).toEqual(['2', '2']);

    // Who attaches while it is dead has the mesh that it left.
    await vms.end('KILL', first);
    const { stdout } = await inlay('a', 'attach', 'a2', '--json');
    const { container, address } = JSON.parse(stdout);
    expect(await vms.pings('a2', A1, 1)).toBe('1');
    const second = await vms.up('a', ...PLANES[plane]);
    expect([await vms.pings('a2', B1, 2), await vms.pings('b1', A1, 1)]).toEqual(['2', '1']);

    // Senders to an address that cools down are told that the host is not there; and it is nobody else's.
    const detached = `eth0: ${address} is detached\n`;
    expect(await inlay('a', 'detach', 'a2')).toEqual({ code: 0, stdout: detached, stderr: '' });
    const ping = await vms.lab.run('b1', ['ping', '-n', '-c', '1', '-W', '5', address]);
    expect(ping.stdout).toContain('Destination Host Unreachable');
    expect(await library.refusal('attach', { netns: 'a3', container })).toMatchObject({ reason: 'cooling' });

    expect(await vms.end('TERM', second)).toBe(0);
    const { id } = await library.attach({ netns: 'a3' });
    expect(await vms.pings('a3', A1, 1)).toBe('1');
    await library.detach({ id });
    expect((await inlay('a', 'down')).code).toBe(0);
    // All that was there before is there, and nothing else.
    const after = await vms.traces('a');
    expect({ ...after, tombstones: [] }).toEqual({ ...before, tombstones: [] });
    expect(after.tombstones).toHaveLength(before.tombstones.length + 2);
    expect(await vms.pings('a1', '10.16.32.1', 1)).toBe('1');
    await vms.end('TERM', b);
  });
});

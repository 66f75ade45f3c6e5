/** Everything that can be wrong with a request, each with its own reason, and that nothing is left of it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ReasonName } from '../../src/containers/reasons.ts';
import { plainErrors } from '../../src/log.ts';
import { ContainerVms, type Library, MESH, NOTHING } from './container-vms.ts';
import { missing, skip } from './require.ts';

const skipped = skip('containers, refused', await missing('ping', 'setpriv'));

let vms: ContainerVms;
let library: Library;
beforeAll(async () => {
  if (skipped) return;
  vms = await ContainerVms.of('wasm', 'a');
  await vms.namespaces('c1', 'c2', 'c3', 'other');
  await vms.lab.ip('other', [
    'link add eth1 type bridge',
    'link set eth1 addrgenmode none up',
    'address add 172.17.0.2/16 dev eth1',
  ]);
  await vms.lab.must(undefined, [
    'sh',
    '-c',
    'touch /run/netns/file && mkfifo /run/fifo && mkdir /run/locked && chmod 700 /run/locked',
  ]);
  library = vms.library('a');
});
afterAll(async () => {
  await library?.close();
  await vms?.close();
});

/** All of a network namespace that attach may change; nothing of it changes by itself. */
const snapshot = (where: string) =>
  vms.lab.must(where, [
    'sh',
    '-c',
    'ip link; ip -4 address; ip -4 route show table all; ip -4 neighbour show nud permanent; ip rule',
  ]);

describe.skipIf(skipped)('a request', () => {
  interface Case {
    name: string;
    request: Record<string, unknown>;
    reason: ReasonName;
    says: RegExp;
  }
  const cases: Case[] = [
    { name: 'no such name', request: { netns: 'nowhere' }, reason: 'no-namespace', says: /nowhere \(.*ENOENT\)$/ },
    {
      name: 'no such process',
      request: { netns: '4194304' },
      reason: 'no-namespace',
      says: /\/proc\/4194304\/ns\/net: ENOENT/,
    },
    { name: 'a plain file', request: { netns: 'file' }, reason: 'no-namespace', says: /file is no network namespace/ },
    { name: 'a FIFO', request: { netns: '/run/fifo' }, reason: 'no-namespace', says: /is no network namespace/ },
    { name: 'a folder', request: { netns: '/run' }, reason: 'no-namespace', says: /is no network namespace/ },
    {
      name: 'another kind of namespace',
      request: { netns: '/proc/self/ns/uts' },
      reason: 'no-namespace',
      says: /is no network namespace/,
    },
    { name: 'below a file', request: { netns: '/run/netns/file/x' }, reason: 'no-namespace', says: /ENOTDIR/ },
    { name: 'the VM itself', request: { netns: 'a' }, reason: 'invalid', says: /this VM's own network namespace/ },
    {
      name: 'the VM itself, by a process',
      request: { netns: '/proc/self/ns/net' },
      reason: 'invalid',
      says: /own network namespace/,
    },
    { name: 'no name', request: { netns: '' }, reason: 'invalid', says: /expected a name, a path or a process id/ },
    {
      name: 'the loopback',
      request: { netns: 'c1', ifname: 'lo' },
      reason: 'interface-exists',
      says: /has an interface lo already/,
    },
    {
      name: 'the interface is there',
      request: { netns: 'other', ifname: 'eth1' },
      reason: 'interface-exists',
      says: /namespace other has an interface eth1/,
    },
    {
      name: 'an interface with a space',
      request: { netns: 'c1', ifname: 'e 0' },
      reason: 'invalid',
      says: /^interface "e 0": /,
    },
    {
      name: 'an interface of 16 letters',
      request: { netns: 'c1', ifname: 'x'.repeat(16) },
      reason: 'invalid',
      says: /1 to 15/,
    },
    { name: 'a pattern', request: { netns: 'c1', ifname: 'eth%d' }, reason: 'invalid', says: /without \/ : %/ },
    { name: 'all', request: { netns: 'c1', ifname: 'all' }, reason: 'invalid', says: /not all or default$/ },
    {
      name: 'an id of 257',
      request: { netns: 'c1', id: 'x'.repeat(257) },
      reason: 'invalid',
      says: /1 to 256 printable/,
    },
    {
      name: 'an id with a line end',
      request: { netns: 'c1', id: 'a\nb' },
      reason: 'invalid',
      says: /1 to 256 printable/,
    },
    { name: 'an empty id', request: { netns: 'c1', id: '' }, reason: 'invalid', says: /1 to 256 printable/ },
    {
      name: 'number 0',
      request: { netns: 'c1', container: 0 },
      reason: 'out-of-range',
      says: /expected 1 to 253 on this VM$/,
    },
    { name: 'number 254', request: { netns: 'c1', container: 254 }, reason: 'out-of-range', says: /^container 254: / },
    {
      name: 'half a number',
      request: { netns: 'c1', container: 1.5 },
      reason: 'out-of-range',
      says: /^container 1\.5: /,
    },
  ];

  test('that makes no sense is refused with its reason, and changes nothing', async () => {
    const where = ['a', 'c1', 'other'];
    const before = await Promise.all(where.map(snapshot));
    for (const { name, request, reason, says } of cases) {
      const refusal = await library.refusal('attach', request);
      expect([name, refusal.reason]).toEqual([name, reason]);
      expect([name, refusal.message]).toEqual([name, expect.stringMatching(says)]);
    }
    expect(await Promise.all(where.map(snapshot))).toEqual(before);
  });

  test.each(['x', ' ', 'x'.repeat(256), '𝕏'.repeat(256), '$(reboot);\'"`', '../../etc', '网'.repeat(100)])(
    'with the id %.20s is the same at the next time, and found by it',
    async (id) => {
      const made = await library.attach({ netns: 'c1', id });
      const { route, ...rest } = made;
      expect(route).toBe('0.0.0.0/0');
      expect(await library.find({ id })).toEqual({ ...rest, id: expect.any(String) });
      expect(await library.refusal('attach', { netns: 'c1', id })).toMatchObject({ reason: 'attached' });
      const [listed] = await library.list();
      // What is listed can be detached, however long its id was.
      const { id: shown = '', ifname, hostInterface = '' } = listed ?? {};
      expect(await library.detachAll([{ id: shown, ifname: ifname ?? '', hostInterface }])).toHaveLength(1);
      expect(await library.list()).toEqual([]);
    },
  );
});

describe.skipIf(skipped)('numbers', () => {
  test('taken, cooling, and by whom', async () => {
    await library.attach({ netns: 'c1', id: 'one', container: 90 });
    expect(await library.refusal('attach', { netns: 'c2', id: 'two', container: 90 })).toEqual({
      ...{ reason: 'taken', exitCode: 73, code: 'ERR_FAILED', message: 'container 90 (10.16.32.91) is in use' },
      hint: expect.stringContaining('inlay containers shows by whom'),
    });
    await library.detach({ id: 'one' });
    expect(await library.refusal('attach', { netns: 'c2', id: 'two', container: 90 })).toMatchObject({
      ...{ reason: 'cooling', exitCode: 75, message: 'container 90 (10.16.32.91) was in use a moment ago' },
      hint: expect.stringMatching(/^it is free in (6[01]|5\d) s; /),
    });
    expect(await vms.traces('a')).toEqual({ ...NOTHING, tombstones: expect.arrayContaining(['10.16.32.91']) });
  });

  test.each([
    { overlay: '10.0.0.0/29', capacity: 1 },
    { overlay: '10.0.1.0/28', capacity: 5 },
  ])(
    'a slice of $capacity that is full says so, with how many are in use and cool down',
    async ({ overlay, capacity }) => {
      const small = vms.library('a', { overlay, underlay: '192.168.16.32/31', coolDown: 1000 });
      const names = Array.from({ length: capacity + 1 }, (_, i) => `s${capacity}-${i}`);
      await vms.namespaces(...names);
      try {
        const found = new Set<number>();
        for (const netns of names.slice(1)) found.add((await small.attach({ netns, id: netns })).container);
        expect([...found].sort()).toEqual(Array.from({ length: capacity }, (_, i) => i + 1));
        const full = (cold: number) =>
          `no address is free: ${capacity} a VM, ${capacity - cold} in use, ${cold} cooling down`;
        const last = { netns: names[0] as string, id: 'last' };
        expect(await small.refusal('attach', last)).toMatchObject({ reason: 'full', exitCode: 69, message: full(0) });
        // What goes with its namespace does not cool down: nobody gave it back.
        await vms.deleteNamespaces(names[1] as string);
        await expect.poll(async () => (await small.usage()).inUse).toBe(capacity - 1);
        expect(await small.attach(last)).toMatchObject({ ifname: 'eth0' });
        await small.detach({ id: 'last' });
        expect(await small.refusal('attach', last)).toMatchObject({ reason: 'full', message: full(1) });
        expect(await small.usage()).toEqual({ capacity, inUse: capacity - 1, coolingDown: 1 });
        expect((await small.list()).length).toBe(capacity - 1);
        await small.detachAll(names.map((id) => ({ id })));
      } finally {
        await small.close();
      }
    },
  );
});

describe.skipIf(skipped)('beside other networks', () => {
  const routesOf = async (where: string) => (await vms.lab.must(where, ['ip', 'route'])).trim().split(/ *\n/);

  test.each(['', ' metric 100'])('a default route%s of another network stays the way out', async (metric) => {
    await vms.lab.ip('other', [`route add default via 172.17.0.1 dev eth1${metric}`]);
    const { address } = await library.attach({ netns: 'other', id: 'x' });
    expect(await routesOf('other')).toEqual([
      `default via 172.17.0.1 dev eth1${metric}`,
      '10.0.0.0/8 via 10.16.32.1 dev eth0 proto static',
      '10.16.32.1 dev eth0 proto static scope link',
      '172.17.0.0/16 dev eth1 proto kernel scope link src 172.17.0.2',
    ]);
    expect(await library.check({ id: 'x', netns: 'other' })).toMatchObject({ address });
    expect(await vms.pings('other', '10.16.32.1', 1)).toBe('1');
    await library.detach({ id: 'x' });
    expect(await routesOf('other')).toHaveLength(2);
    await vms.lab.ip('other', [`route del default via 172.17.0.1 dev eth1${metric}`]);
  });

  test('a second interface of the mesh in one namespace is refused, and the first one stays', async () => {
    const { address } = await library.attach({ netns: 'c3', id: 'x' });
    const before = await snapshot('c3');
    expect(await library.refusal('attach', { netns: 'c3', id: 'x', ifname: 'eth1' })).toMatchObject({
      ...{ reason: 'interface-exists', message: 'the namespace is on the mesh already, beside eth1' },
      hint: expect.stringContaining('detach the other one first'),
    });
    expect(await library.refusal('attach', { netns: 'c3', id: 'y' })).toMatchObject({ reason: 'interface-exists' });
    expect(await snapshot('c3')).toBe(before);
    expect((await vms.traces('a')).claims).toEqual([expect.stringContaining(`${address} dev `)]);
    expect(await vms.pings('c3', '10.16.32.1', 1)).toBe('1');
    await library.detach({ id: 'x' });
  });

  test('a link of somebody else that has our name is left alone', async () => {
    const { hostInterface } = await library.attach({ netns: 'c1', id: 'x' });
    await library.detach({ id: 'x' });
    const others = [
      'group 0',
      'alias mine',
      'alias mine group 74',
      'alias "inlay container 5 eth0 1 1 other" group 74',
    ];
    for (const what of others) {
      await vms.ip('a', `link add ${hostInterface} type veth peer name theirs`, `link set ${hostInterface} ${what}`);
      const before = await snapshot('a');
      for (const call of ['attach', 'detach', 'check'] as const)
        expect(await library.refusal(call, { id: 'x', ...(call === 'attach' && { netns: 'c1' }) })).toMatchObject({
          ...{ reason: 'not-ours', message: `link ${hostInterface} is not one that Inlay made for x` },
        });
      expect(await snapshot('a')).toBe(before);
      await vms.ip('a', `link del ${hostInterface}`);
    }
  });

  test('a link of somebody else is left alone, whatever its group, when many are detached', async () => {
    await vms.ip('a', 'link add theirs74 type bridge', 'link add theirs75 type bridge');
    await vms.ip('a', 'link set theirs74 group 74', 'link set theirs75 group 75');
    for (const netns of ['c1', 'c2', 'c3']) await library.attach({ netns, id: netns });
    expect(await library.detachAll(['c1', 'c2', 'c3', 'c1', 'nobody'].map((id) => ({ id })))).toHaveLength(3);
    expect(await vms.lab.must('a', ['ip', '-br', 'link', 'show', 'type', 'bridge'])).toMatch(/^theirs74 .*\ntheirs75 /);
    await vms.ip('a', 'link del theirs74', 'link del theirs75');
  });

  test('a rule of policy routing that leads the slice elsewhere takes no claim away', async () => {
    await library.attach({ netns: 'c1', id: 'x', container: 20 });
    await vms.ip('a', 'rule add to 10.16.32.0/24 lookup 99', 'route add 10.16.32.0/24 dev eth0 table 99');
    expect(await library.refusal('attach', { netns: 'c1', id: 'x' })).toMatchObject({ reason: 'attached' });
    expect(await library.detach({ id: 'x' })).toMatchObject({ container: 20 });
    expect((await vms.traces('a')).tombstones).toContain('10.16.32.21');
    await vms.ip('a', 'rule del to 10.16.32.0/24 lookup 99', 'route flush table 99');
  });
});

describe.skipIf(skipped)('a process that may not', () => {
  const asUser = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const without = (name: string) => ['setpriv', `--bounding-set=-${name}`];

  test.each([
    { name: 'an ordinary user', wrapper: asUser, says: ['no permission to make a veth', 'CAP_NET_ADMIN'] },
    {
      name: 'no CAP_NET_ADMIN',
      wrapper: without('net_admin'),
      says: ['no permission to make a veth', 'CAP_NET_ADMIN'],
    },
    {
      name: 'no CAP_SYS_ADMIN',
      wrapper: without('sys_admin'),
      says: ['network namespace c1 cannot be entered', 'CAP_SYS_ADMIN'],
    },
  ])('attach: $name', async ({ wrapper, says }) => {
    const before = await snapshot('a');
    const { code, stdout, stderr } = await vms.command('a', ['attach', 'c1', ...MESH], wrapper);
    expect([code, stdout]).toEqual([77, '']);
    for (const words of says) expect(plainErrors(stderr)).toContain(words);
    expect(await snapshot('a')).toBe(before);
    expect(await vms.lab.must('c1', ['ip', '-br', 'link'])).toMatch(/^lo .*\n$/);
  });

  test('detach, and a namespace that it may not open', async () => {
    await library.attach({ netns: 'c1', id: 'x' });
    const before = await vms.traces('a');
    const refused = await vms.command('a', ['detach', '--id', 'x', ...MESH], without('net_admin'));
    expect([refused.code, refused.stdout]).toEqual([77, '']);
    expect(await vms.traces('a')).toEqual(before);
    await library.detach({ id: 'x' });
    const path = ['attach', `/proc/1/ns/net`, ...MESH];
    const { code, stderr } = await vms.command('a', path, [
      ...asUser,
      '--inh-caps=+net_admin,+sys_admin',
      '--ambient-caps=+net_admin,+sys_admin',
    ]);
    expect([code, plainErrors(stderr)]).toEqual([
      77,
      expect.stringMatching(/no permission to open \/proc\/1\/ns\/net\n.*CAP_SYS_PTRACE/),
    ]);
  });
});

describe.skipIf(skipped)('a mesh', () => {
  const attach = (...words: string[]) => vms.command('a', ['attach', 'c1', ...words]);

  test('that is missing, or has no underlay address on this VM yet', async () => {
    expect(await attach('--run-dir', '/run/none')).toMatchObject({
      ...{ code: 78, stdout: '' },
      stderr:
        'inlay: no daemon has left its mesh in /run/none\nhint: start inlay up, name its directory with --run-dir, or give --overlay and --underlay\n',
    });
    const flags = ['--overlay', '10.0.0.0/8', '--underlay', '172.16.0.0/16'];
    expect(await attach(...flags)).toMatchObject({
      code: 75,
      stderr: expect.stringContaining('no address inside the underlay 172.16.0.0/16'),
    });
  });

  test('that is damaged, or other than the daemon’s', async () => {
    const leave = (content: string) =>
      vms.lab.must('a', ['sh', '-c', 'mkdir -p /run/m && cat >/run/m/mesh.json'], content);
    await leave('{"vm":"192.168.16.32"');
    expect(await attach('--run-dir', '/run/m')).toMatchObject({
      code: 78,
      stderr: expect.stringContaining('/run/m/mesh.json is damaged: '),
    });
    const mappings = [{ overlay: '11.0.0.0/8', underlay: '192.168.0.0/16' }];
    await leave(JSON.stringify({ vm: '192.168.16.32', mtu: 1400, coolDown: 60, mappings }));
    expect(await attach('--run-dir', '/run/m', ...MESH)).toMatchObject({
      ...{ code: 78 },
      stderr: expect.stringMatching(
        /^inlay: the daemon of \/run\/m is part of 11\.0\.0\.0\/8 over 192\.168\.0\.0\/16, not of 10\.0\.0\.0\/8 over/,
      ),
    });
    expect(
      await vms.command(
        'a',
        ['containers', '--run-dir', '/run/locked/x'],
        ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
      ),
    ).toMatchObject({ code: 77 });
  });
});

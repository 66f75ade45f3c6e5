/** The CNI plugin as its own process, on VMs with daemons: what it answers is what the kernel has. */
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Output } from '../../src/demo/lab.ts';
import { missing, skip } from './require.ts';
import { Vms } from './vms.ts';

const PLUGIN = fileURLToPath(new URL('../../dist/cni.cjs', import.meta.url));
const PREFIXES = { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };
/** The slice has 253 addresses, and each test takes some: they are not waited for. */
const COOL_DOWN = 0;

interface Result {
  cniVersion: string;
  interfaces: { name: string; mac: string; mtu?: number; sandbox?: string }[];
  ips: { address: string; gateway: string; interface: number; version?: string }[];
  routes: { dst: string; gw?: string }[];
}

interface Answer extends Output {
  /** What came on standard output: a result, or an error. */
  json: Result & { code: number; msg: string; details: string };
}

interface Link {
  ifname: string;
  address: string;
  mtu: number;
  operstate: string;
  addr_info: { local: string; prefixlen: number }[];
}

describe.skipIf(skip('test/net/cni', await missing('ping', 'setpriv')))('the plugin', () => {
  let vms: Vms;
  /** Names of the namespaces that a test made. */
  let made: string[] = [];

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    await Promise.all([vms.up('a'), vms.up('b', '--attach', 'on')]);
  });
  afterAll(() => vms?.close());
  afterEach(async () => {
    // Not left to the end of the namespaces: the kernel clears them one after the other, those of all suites.
    for (const vm of vms.names) if ((await links(vm)).length > 0) await vms.inlay(vm, 'detach', '--all');
    for (const name of made) await vms.lab.run(undefined, ['ip', 'netns', 'del', name]);
    made = [];
    for (const vm of vms.names) expect(await links(vm)).toEqual([]);
  });

  async function container(name: string): Promise<string> {
    await vms.lab.must(undefined, ['ip', 'netns', 'add', name]);
    made.push(name);
    return `/run/netns/${name}`;
  }

  /** The names of the containers' links on a VM. */
  async function links(vm: string): Promise<string[]> {
    return (await vms.json<{ ifname: string }[]>(vm, 'ip', '-j', 'link', 'show', 'type', 'veth'))
      .map(({ ifname }) => ifname)
      .filter((name) => name.startsWith('inl'));
  }

  async function cni(
    vm: string,
    env: Record<string, string>,
    config: object = {},
    ...wrapper: string[]
  ): Promise<Answer> {
    const whole = {
      cniVersion: '1.1.0',
      name: 'mesh',
      type: 'inlay-cni',
      runDir: vms.runDir(vm),
      coolDown: COOL_DOWN,
      ...config,
    };
    const variables = { CNI_CONTAINERID: 'web', CNI_IFNAME: 'eth0', CNI_PATH: '/opt/cni/bin', ...env };
    const words = ['env', ...Object.entries(variables).map(([name, value]) => `${name}=${value}`)];
    const output = await vms.lab.run(vm, [...wrapper, ...words, process.execPath, PLUGIN], JSON.stringify(whole));
    expect(output.stderr).toBe('');
    return { ...output, json: output.stdout === '' ? {} : JSON.parse(output.stdout) };
  }

  async function add(vm: string, name: string, config: object = {}, env: Record<string, string> = {}): Promise<Result> {
    const CNI_NETNS = `/run/netns/${name}`;
    const { code, json } = await cni(vm, { CNI_COMMAND: 'ADD', CNI_CONTAINERID: name, CNI_NETNS, ...env }, config);
    expect(json.msg).toBeUndefined();
    expect(code).toBe(0);
    return json;
  }

  async function done(
    vm: string,
    command: string,
    name: string,
    config: object = {},
    env: Record<string, string> = {},
  ): Promise<void> {
    const { code, stdout } = await cni(
      vm,
      { CNI_COMMAND: command, CNI_CONTAINERID: name, CNI_NETNS: `/run/netns/${name}`, ...env },
      config,
    );
    expect([stdout, code]).toEqual(['', 0]);
  }

  async function refused(
    vm: string,
    command: string,
    name: string,
    config: object = {},
    env: Record<string, string> = {},
  ): Promise<[number, string]> {
    const { code, json } = await cni(
      vm,
      { CNI_COMMAND: command, CNI_CONTAINERID: name, CNI_NETNS: `/run/netns/${name}`, ...env },
      config,
    );
    expect(code).toBe(1);
    return [json.code, json.msg];
  }

  function inside<T>(name: string, ...words: string[]): Promise<T> {
    return vms.json<T>(name, ...words);
  }

  test.each(['0.3.1', '0.4.0', '1.0.0', '1.1.0'])(
    'what ADD answers in version %s is what the kernel has',
    async (cniVersion) => {
      await container('c1');
      const result = await add('a', 'c1', { cniVersion, ...PREFIXES });
      expect(result.cniVersion).toBe(cniVersion);
      const [host, eth0] = result.interfaces;
      const [ip] = result.ips;
      const [link] = await inside<Link[]>('c1', 'ip', '-j', 'address', 'show', 'eth0');
      const [end] = await vms.json<Link[]>('a', 'ip', '-j', 'address', 'show', host?.name ?? '');
      expect(link).toMatchObject({ address: eth0?.mac, operstate: 'UP' });
      expect(`${link?.addr_info[0]?.local}/${link?.addr_info[0]?.prefixlen}`).toBe(ip?.address);
      expect(end).toMatchObject({ address: host?.mac, addr_info: [] });
      expect(eth0).toMatchObject({ name: 'eth0', sandbox: '/run/netns/c1' });
      if (cniVersion === '1.1.0') expect([host?.mtu, eth0?.mtu]).toEqual([end?.mtu, link?.mtu]);
      expect(ip).toMatchObject({ gateway: '10.16.32.1', interface: 1 });
      const [route] = await inside<{ gateway: string }[]>('c1', 'ip', '-j', 'route', 'show', 'default');
      expect(result.routes).toEqual([{ dst: '0.0.0.0/0', gw: route?.gateway }]);
      if (cniVersion !== '0.3.1') await done('a', 'CHECK', 'c1', { cniVersion, prevResult: result });
      await done('a', 'DEL', 'c1', { cniVersion, prevResult: result });
      expect(await links('a')).toEqual([]);
    },
  );

  test('where another network has the default route, the result has only that of the mesh', async () => {
    await container('c1');
    await vms.lab.ip('c1', [
      'link add other0 type veth peer name other1',
      'link set other0 up',
      'route add default dev other0',
    ]);
    const { routes } = await add('a', 'c1', { cniVersion: '1.1.0', ...PREFIXES });
    expect(routes).toEqual([{ dst: '10.0.0.0/8', gw: '10.16.32.1' }]);
    await done('a', 'DEL', 'c1', { cniVersion: '1.1.0' });
  });

  test('containers on two VMs reach each other', async () => {
    await container('c1');
    await container('c2');
    await add('a', 'c1', { runtimeConfig: { Ips: ['10.16.32.91/32'], mac: '02:00:00:00:00:5a' } });
    const { ips } = await add('b', 'c2', {}, { CNI_ARGS: 'K8S_POD_NAME=web;IP=10.16.33.17' });
    expect(ips[0]?.address).toBe('10.16.33.17/32');
    expect(await vms.pings('c1', '10.16.33.17', 3)).toBe('3');
    expect(await vms.pings('c2', '10.16.32.91', 3)).toBe('3');
    const [{ address }] = await inside<[Link]>('c1', 'ip', '-j', 'link', 'show', 'eth0');
    expect(address).toBe('02:00:00:00:00:5a');
  });

  test('DEL works three times, the last times without namespace and result', async () => {
    await container('c1');
    const prevResult = await add('a', 'c1');
    await done('a', 'DEL', 'c1', { prevResult });
    expect(await links('a')).toEqual([]);
    await done('a', 'DEL', 'c1', {}, { CNI_NETNS: '' });
    await done('a', 'DEL', 'c1', {}, { CNI_NETNS: '/proc/1/no-such-file' });
    await vms.lab.must(undefined, ['ip', 'netns', 'exec', 'c1', 'true']);
  });

  test('DEL works where the namespace has gone, and where no daemon ever was', async () => {
    await container('c1');
    await add('a', 'c1');
    await vms.lab.must(undefined, ['ip', 'netns', 'del', 'c1']);
    await done('a', 'DEL', 'c1');
    await done('a', 'DEL', 'c1', { runDir: '/run/no-such-directory' });
  });

  test('a second ADD is an error and changes nothing', async () => {
    await container('c1');
    await container('c2');
    const prevResult = await add('a', 'c1');
    expect(await refused('a', 'ADD', 'c1')).toEqual([104, expect.stringContaining('attached')]);
    // Another container that takes the same namespace.
    expect(await refused('a', 'ADD', 'c2', {}, { CNI_NETNS: '/run/netns/c1' })).toEqual([
      103,
      expect.stringContaining('eth0'),
    ]);
    await done('a', 'CHECK', 'c1', { prevResult });
    expect(await links('a')).toHaveLength(1);
    // A container has one interface of the mesh.
    expect(await refused('a', 'ADD', 'c1', {}, { CNI_IFNAME: 'net1' })).toEqual([103, expect.stringContaining('net1')]);
    await done('a', 'DEL', 'c1', {}, { CNI_IFNAME: 'net1' });
    await done('a', 'CHECK', 'c1', { prevResult });
  });

  test.each<[what: string, where: 'container' | 'vm', command: string]>([
    ['the address', 'container', 'ip address flush dev eth0'],
    ['the default route', 'container', 'ip route del default'],
    ['the interface, which is down', 'container', 'ip link set eth0 down'],
    ['the link', 'vm', 'ip link del LINK'],
  ])('CHECK misses %s', async (_, where, command) => {
    await container('c1');
    const prevResult = await add('a', 'c1');
    await done('a', 'CHECK', 'c1', { prevResult });
    const words = command.replace('LINK', prevResult.interfaces[0]?.name ?? '').split(' ');
    await vms.lab.must(where === 'vm' ? 'a' : 'c1', words);
    const [code] = await refused('a', 'CHECK', 'c1', { prevResult });
    expect([101, 102]).toContain(code);
    await done('a', 'DEL', 'c1');
  });

  test('CHECK finds the routes that a plugin of a chain has moved to a table for the address', async () => {
    await container('c1');
    const prevResult = await add('a', 'c1');
    const [address = ''] = (prevResult.ips[0]?.address ?? '').split('/');
    // As sbr of the CNI project does it, for a container with another way out.
    await vms.lab.ip('c1', [
      `rule add from ${address} table 100`,
      'route flush table main',
      'route add 10.16.32.1 dev eth0 table 100',
      'route add default via 10.16.32.1 dev eth0 table 100 onlink',
    ]);
    await done('a', 'CHECK', 'c1', { prevResult });
    await vms.lab.ip('c1', ['route del default table 100']);
    expect(await refused('a', 'CHECK', 'c1', { prevResult })).toEqual([102, expect.stringContaining('no route')]);
    await done('a', 'DEL', 'c1');
  });

  test('GC detaches what is not valid any more, of its network only', async () => {
    for (const name of ['c1', 'c2', 'c3', 'c4']) await container(name);
    await add('a', 'c1');
    await add('a', 'c2');
    await add('a', 'c3', { name: 'other' });
    await vms.lab.must('a', vms.inlayWords('a', 'attach', 'c4'));
    const valid = [{ containerID: 'c1', ifname: 'eth0' }];
    const { code, stdout } = await cni(
      'a',
      { CNI_COMMAND: 'GC', CNI_CONTAINERID: '', CNI_IFNAME: '' },
      { 'cni.dev/valid-attachments': valid },
    );
    expect([stdout, code]).toEqual(['', 0]);
    const { stdout: list } = await vms.inlay('a', 'containers', '--json');
    const { containers } = JSON.parse(list) as { containers: { id: string }[] };
    const ids = containers.map(({ id }) => id).sort();
    expect(ids).toEqual(['cni:mesh:c1', 'cni:other:c3', expect.stringMatching(/^netns-/)]);
  });

  test('ids of 256 characters', async () => {
    const ids = [`${'x'.repeat(255)}1`, `${'x'.repeat(255)}2`];
    for (const [i, id] of ids.entries()) {
      const CNI_NETNS = await container(`c${i}`);
      await add('a', `c${i}`, {}, { CNI_CONTAINERID: id, CNI_NETNS });
    }
    expect(await links('a')).toHaveLength(2);
    const valid = [{ containerID: ids[1], ifname: 'eth0' }];
    await cni('a', { CNI_COMMAND: 'GC' }, { 'cni.dev/valid-attachments': valid });
    expect(await links('a')).toHaveLength(1);
    await done('a', 'DEL', 'c1', {}, { CNI_CONTAINERID: ids[1] as string });
    expect(await links('a')).toEqual([]);
  });

  test('STATUS says whether a container can be attached', async () => {
    await done('a', 'STATUS', 'x', PREFIXES);
    expect(await refused('a', 'STATUS', 'x', { runDir: '/run/no-such-directory' })).toEqual([
      50,
      expect.stringContaining('/run/no-such-directory'),
    ]);
    expect(await refused('a', 'STATUS', 'x', { ...PREFIXES, overlay: '11.0.0.0/8' })).toEqual([
      50,
      expect.stringContaining('11.0.0.0/8'),
    ]);
  });

  describe('refuses', () => {
    test('what the kernel does not have', async () => {
      await container('c1');
      const of = (CNI_NETNS: string, config: object = {}, env = {}) =>
        refused('a', 'ADD', 'c1', config, { CNI_NETNS, ...env });
      expect(await of('/run/netns/none')).toEqual([100, expect.stringContaining('/run/netns/none')]);
      expect(await of('/etc/passwd')).toEqual([100, expect.stringContaining('/etc/passwd')]);
      expect(await of('/run/netns/a')).toEqual([4, expect.stringContaining('own network namespace')]);
      expect(await of('/run/netns/c1', { runDir: '/run/none' })).toEqual([108, expect.stringContaining('/run/none')]);
      expect(await of('/run/netns/c1', { ...PREFIXES, overlay: '11.0.0.0/8' })).toEqual([
        7,
        expect.stringContaining('11.0.0.0/8'),
      ]);
      expect(await of('/run/netns/c1', { runtimeConfig: { ips: ['10.16.33.7'] } })).toEqual([
        7,
        expect.stringContaining('10.16.33.7'),
      ]);
      expect(await of('/run/netns/c1', { container: 254 })).toEqual([7, expect.stringContaining('254')]);
      expect(await links('a')).toEqual([]);
    });

    test('an address that another has, or had a moment ago', async () => {
      for (const name of ['c1', 'c2']) await container(name);
      await add('a', 'c1', { container: 90, coolDown: 60 });
      const [code, message] = await refused('a', 'ADD', 'c2', { container: 90 });
      expect([code, message]).toEqual([105, expect.stringMatching(/90|10\.16\.32\.91/)]);
      await done('a', 'DEL', 'c1', { coolDown: 60 });
      expect(await refused('a', 'ADD', 'c2', { container: 90 })).toEqual([
        106,
        expect.stringMatching(/90|10\.16\.32\.91/),
      ]);
      expect(await links('a')).toEqual([]);
    });

    test('who may not', async () => {
      await container('c1');
      const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c1', CNI_NETNS: '/run/netns/c1' };
      const { code, json } = await cni('a', env, {}, 'setpriv', '--bounding-set', '-all', '--inh-caps', '-all');
      expect([code, json.code, json.msg]).toEqual([1, 109, expect.stringMatching(/CAP_|permission|entered/)]);
      expect(await links('a')).toEqual([]);
    });
  });

  describe('by the shim', () => {
    const SHIM = '/run/bin/inlay-cni';

    beforeAll(async () => {
      const folders = ['--bin-dir', '/run/bin', '--conf-dir', '/run/net.d'];
      expect(await vms.inlay('b', 'cni', 'install', ...folders)).toMatchObject({ code: 0, stderr: '' });
    });

    async function shim(command: string, name: string, config: object = {}): Promise<Answer> {
      const env = { CNI_COMMAND: command, CNI_CONTAINERID: name, CNI_NETNS: `/run/netns/${name}` };
      const variables = { ...env, CNI_IFNAME: 'eth0', CNI_PATH: '/run/bin' };
      const words = ['env', ...Object.entries(variables).map(([key, value]) => `${key}=${value}`), SHIM];
      const whole = { cniVersion: '1.0.0', name: 'mesh', type: 'inlay-cni', runDir: vms.runDir('b'), ...config };
      const output = await vms.lab.run('b', words, JSON.stringify(whole));
      expect(output.stderr).toBe('');
      return { ...output, json: output.stdout === '' ? {} : JSON.parse(output.stdout) };
    }

    test('the daemon attaches, without Node', async () => {
      await container('c1');
      // What would start Node starts something that fails.
      await vms.lab.must(undefined, ['sed', '-i.whole', 's#^node=.*#node=/bin/false#', SHIM]);
      const { code, json } = await shim('ADD', 'c1');
      expect(code).toBe(0);
      expect(await vms.pings('c1', vms.overlay('a'), 3)).toBe('3');
      expect(await shim('CHECK', 'c1', { prevResult: json })).toMatchObject({ code: 0, stdout: '' });
      expect((await shim('ADD', 'c1')).json).toMatchObject({ cniVersion: '1.0.0', code: 104 });
      for (let i = 0; i < 3; i++) expect(await shim('DEL', 'c1')).toMatchObject({ code: 0, stdout: '' });
      expect((await shim('VERSION', 'c1')).json).toMatchObject({ cniVersion: '1.0.0' });
      await vms.lab.must(undefined, ['mv', `${SHIM}.whole`, SHIM]);
    });

    test("another daemon's containers, and those of no daemon, are Node's", async () => {
      await container('c1');
      expect((await shim('ADD', 'c1', { runDir: '/run/none' })).json).toMatchObject({ code: 108 });
      await vms.lab.must(undefined, ['mv', `${vms.runDir('b')}/attach.sock`, '/run/attach.sock']);
      expect(await shim('ADD', 'c1')).toMatchObject({ code: 0 });
      await vms.lab.must(undefined, ['mv', '/run/attach.sock', `${vms.runDir('b')}/attach.sock`]);
      // Attached by one, detached by the other.
      expect(await shim('DEL', 'c1')).toMatchObject({ code: 0, stdout: '' });
      expect(await links('b')).toEqual([]);
    });
  });
});

/** docker's plugin in the kernel, without docker: the test asks what docker asks, and moves devices as docker does. */
import type { ChildProcess } from 'node:child_process';
import http from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { namesOf } from '../../src/containers/alias.ts';
import { CLI } from './mesh.ts';
import { missing, notRoot, skip } from './require.ts';
import { Vms } from './vms.ts';

const SOCKET = '/run/docker/plugins/inlay.sock';
const PID_FILE = '/run/plugin.pid';
const POOL = '10.16.32.0/24';
/** All that the plugin needs, as root or as another user. */
const LEAST = ['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,+net_admin`);
const USER = 65534;

type Answer = Record<string, unknown>;

describe.skipIf(skip('docker plugin', (await missing('ping', 'setpriv')) ?? notRoot))('docker plugin', () => {
  let vms: Vms;
  let plugin: ChildProcess | undefined;
  let before: string[];

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    await Promise.all([vms.up('a'), vms.up('b')]);
    await vms.lab.ip(undefined, ['netns add first', 'netns add box']);
    await vms.inlay('a', 'attach', 'first');
    await vms.inlay('a', 'detach', 'first');
    before = await links();
  });
  afterEach(async () => {
    await end('TERM');
    expect(await links()).toEqual(before);
    await vms.lab.run('a', ['ip', 'route', 'flush', 'protocol', '74', 'type', 'unreachable']);
  });
  afterAll(() => vms?.close());

  const words = (runDir = vms.runDir('a'), socket = SOCKET) => {
    return [process.execPath, CLI, 'docker-plugin', '--run-dir', runDir, '--socket', socket];
  };

  async function begin(wrapper: readonly string[] = [], runDir?: string, socket?: string): Promise<void> {
    const script = `echo $$ >${PID_FILE}; exec "$@"`;
    plugin = vms.lab.start('a', ['sh', '-c', script, 'sh', ...wrapper, ...words(runDir, socket)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    plugin.unref();
    await new Promise<void>((resolve, reject) => {
      plugin?.stderr?.once('data', () => resolve());
      plugin?.once('exit', () => reject(new Error('the plugin ended')));
    });
  }

  /** Ends the plugin, if it runs. */
  async function end(signal: 'TERM' | 'KILL'): Promise<number | null | undefined> {
    const child = plugin;
    if (!child) return undefined;
    plugin = undefined;
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    await vms.lab.must(undefined, ['sh', '-c', `kill -${signal} $(cat ${PID_FILE})`]);
    return await ended;
  }

  function ask(method: string, body: object = {}, socket = SOCKET): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const socketPath = vms.lab.path(socket);
      const request = http.request({ socketPath, path: `/${method}`, method: 'POST' }, (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve(JSON.parse(text)));
      });
      request.on('error', reject).end(JSON.stringify(body));
    });
  }

  const links = async () =>
    (await vms.lab.must('a', ['ip', '-o', 'link'])).split('\n').map((line) => line.split(':')[1] ?? '');
  const addressOf = async (Address = '') =>
    String((await ask('IpamDriver.RequestAddress', { PoolID: POOL, Address }))['Address']).split('/')[0] ?? '';
  const create = (EndpointID: string, address: string) =>
    ask('NetworkDriver.CreateEndpoint', { EndpointID, Interface: { Address: `${address}/32` } });
  const remove = (EndpointID: string) => ask('NetworkDriver.DeleteEndpoint', { EndpointID });
  const unreachable = async () =>
    (await vms.lab.must('a', ['ip', 'route', 'show', 'type', 'unreachable', 'proto', '74'])).trim();

  test('killed after each answer, it goes on where it was, with CAP_NET_ADMIN alone', async () => {
    const each = async (method: string, body: object = {}): Promise<Answer> => {
      await begin(['setpriv', ...LEAST]);
      const answer = await ask(method, body);
      expect(await end('KILL')).toBeNull();
      return answer;
    };
    const endpoint = { NetworkID: 'n', EndpointID: 'e'.repeat(64) };
    expect(await each('Plugin.Activate')).toHaveProperty('Implements');
    expect(await each('IpamDriver.RequestPool', { Pool: POOL })).toMatchObject({ PoolID: POOL });
    const { Address } = await each('IpamDriver.RequestAddress', { PoolID: POOL });
    const address = String(Address).split('/')[0] as string;
    const made = await each('NetworkDriver.CreateEndpoint', { ...endpoint, Interface: { Address } });
    const { InterfaceName } = await each('NetworkDriver.Join', endpoint);
    const device = (InterfaceName as { SrcName: string }).SrcName;

    await vms.ip('a', `link set ${device} netns box name eth0`);
    await vms.lab.ip('box', [
      `address add ${address}/32 dev eth0`,
      'link set eth0 up',
      'route add 10.16.32.1 dev eth0',
      'route add default via 10.16.32.1',
    ]);
    const [inside] = JSON.parse(await vms.lab.must('box', ['ip', '-j', 'link', 'show', 'eth0']));
    expect([inside.address, inside.mtu]).toEqual([(made['Interface'] as { MacAddress: string }).MacAddress, 1476]);
    // No setting of address resolution matters.
    await vms.lab.must('a', ['sh', '-c', 'echo 2 >/proc/sys/net/ipv4/conf/all/arp_ignore']);
    expect(await vms.pings('b', address, 3)).toBe('3');
    expect(await vms.lab.must('box', ['ip', 'neighbour'])).toBe('');
    await vms.lab.must('a', ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore']);

    await vms.lab.ip('box', ['link set eth0 down', `link set eth0 netns a name ${device}`]);
    for (const method of ['Leave', 'DeleteEndpoint', 'DeleteEndpoint'])
      expect(await each(`NetworkDriver.${method}`, endpoint)).toEqual({});
    expect(await each('IpamDriver.ReleaseAddress', { PoolID: POOL, Address: address })).toEqual({});
    // Nobody gets it for a while.
    expect(await unreachable()).toMatch(address);
  });

  test("as the daemon's user, who may not be root, and whose mesh root may use, too", async () => {
    const [runDir, socket] = ['/run/user', '/run/user/inlay.sock'];
    await vms.lab.must('a', ['sh', '-c', `mkdir ${runDir} && cp ${vms.runDir('a')}/mesh.json ${runDir}`]);
    await vms.lab.must('a', ['chown', '-R', String(USER), runDir]);
    await begin(['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', ...LEAST], runDir, socket);
    const { Address } = await ask('IpamDriver.RequestAddress', { PoolID: POOL }, socket);
    const request = { EndpointID: 'e', Interface: { Address } };
    expect(await ask('NetworkDriver.CreateEndpoint', request, socket)).toHaveProperty('Interface.MacAddress');
    const { containers } = JSON.parse((await vms.inlay('a', 'containers', '--json')).stdout);
    expect(containers).toMatchObject([{ id: 'e', address: String(Address).split('/')[0] }]);
    expect(await ask('NetworkDriver.DeleteEndpoint', request, socket)).toEqual({});
    for (const command of ['attach', 'detach'])
      await vms.lab.must('a', [process.execPath, CLI, command, 'box', '--run-dir', runDir]);
  });

  test('addresses are reserved before they are used, each for one', async () => {
    await begin();
    const [one, other] = [await addressOf(), await addressOf()];
    expect(one).not.toBe(other);
    expect(await addressOf('10.16.32.91')).toBe('10.16.32.91');
    const { stderr } = await vms.inlay('a', 'attach', 'box', '--container', '90');
    expect(stderr).toContain('container 90 (10.16.32.91)');
    await create('e', one);
    expect(await ask('IpamDriver.RequestAddress', { PoolID: POOL, Address: one })).toMatchObject({
      Error: expect.stringContaining('is in use'),
    });
    // One that was given back may be asked for by its number, as docker does for a container that is started again.
    await remove('e');
    expect(await addressOf(one)).toBe(one);
    expect(await ask('IpamDriver.RequestAddress', { PoolID: POOL, Address: '10.16.32.1' })).toMatchObject({
      Error: expect.stringContaining('not one of this VM'),
    });
  });

  test('an endpoint is made once, and whole', async () => {
    await begin();
    expect(await create('e', '10.16.32.91')).toMatchObject({ Err: expect.stringContaining('reservation') });
    const address = await addressOf();
    const made = await create('e', address);
    expect(await create('e', address)).toEqual(made);
    expect(await create('e', await addressOf())).toMatchObject({ Err: expect.stringContaining(`has ${address}`) });
    await remove('e');
    expect(await ask('NetworkDriver.Join', { EndpointID: 'e' })).toMatchObject({ Err: 'there is no endpoint e' });

    // What a plugin that was killed left half made: a veth without an alias.
    const { hostInterface } = namesOf({ id: 'half', ifname: 'eth' });
    await vms.ip('a', `link add ${hostInterface} group 74 type veth peer name ${hostInterface.replace('inl', 'inc')}`);
    expect(await create('half', await addressOf())).toHaveProperty('Interface');
    await remove('half');
    // A link of another with its name is left alone.
    await vms.ip('a', `link add ${hostInterface} type veth peer name other`);
    expect(await create('half', await addressOf())).toMatchObject({
      Err: expect.stringContaining('not one that Inlay'),
    });
    await vms.ip('a', 'link delete other');
  });

  test('a full slice says so', async () => {
    await begin();
    const answers: Answer[] = [];
    for (let i = 0; i < 254; i++) answers.push(await ask('IpamDriver.RequestAddress', { PoolID: POOL }));
    expect(new Set(answers.slice(0, 253).map(({ Address }) => Address)).size).toBe(253);
    expect(answers[253]).toMatchObject({ Error: expect.stringContaining('no address is free: 253 a VM') });
  });

  test('its socket: removed at its end, taken over after a kill, left to another that listens', async () => {
    const isThere = async () => (await vms.lab.run('a', ['test', '-S', SOCKET])).code === 0;
    await begin();
    const second = await vms.lab.run('a', words());
    expect([second.code, second.stderr]).toEqual([1, expect.stringContaining(`another plugin listens at ${SOCKET}`)]);
    expect(await end('TERM')).toBe(0);
    expect(await isThere()).toBe(false);
    await begin();
    await end('KILL');
    expect(await isThere()).toBe(true);
    await begin();
    expect(await ask('Plugin.Activate')).toHaveProperty('Implements');
    expect(await vms.lab.must('a', ['stat', '-c', '%a', SOCKET])).toBe('600\n');
  });

  test('without a mesh it waits for one', async () => {
    await begin([], '/run/later');
    const pool = () => ask('IpamDriver.RequestPool');
    expect(await pool()).toMatchObject({ Error: expect.stringContaining('no daemon has left its mesh in /run/later') });
    await vms.lab.must('a', ['sh', '-c', `mkdir /run/later && cp ${vms.runDir('a')}/mesh.json /run/later`]);
    expect(await pool()).toHaveProperty('Pool');
  });
});

/** netavark's plugin, without podman: the test says what podman says. */

import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from './require.ts';
import { Vms } from './vms.ts';

const PLUGIN = fileURLToPath(new URL('../../dist/netavark.js', import.meta.url));

const NETWORK = {
  ...{ name: 'mesh', id: '2f259bab93aa', driver: 'inlay', dns_enabled: true, internal: false, ipv6_enabled: false },
  ...{ subnets: null, ipam_options: null, options: null, network_interface: 'podman1' },
};

describe.skipIf(skip('netavark', await missing('ping')))('netavark', () => {
  let vms: Vms;
  let before: string;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    await Promise.all([vms.up('a'), vms.up('b')]);
    await vms.lab.ip(undefined, ['netns add one', 'netns add two']);
    await vms.inlay('a', 'attach', 'one');
    await vms.inlay('a', 'detach', 'one');
    before = await links();
  });
  afterAll(() => vms?.close());

  const links = () => vms.lab.must('a', ['ip', '-o', '-br', 'link']);

  /** What the plugin answers; in failure, the error. */
  async function call(words: readonly string[], request?: unknown) {
    const input = request === undefined ? '' : typeof request === 'string' ? request : JSON.stringify(request);
    const { code, stdout } = await vms.lab.run('a', [process.execPath, PLUGIN, ...words], input);
    const answer = stdout === '' ? undefined : JSON.parse(stdout);
    return code === 0 ? answer : { code, ...answer };
  }

  const of = (container_id: string, network_options: object = {}, network: object = {}) => ({
    ...{ container_id, container_name: 'web', port_mappings: [] },
    network: { ...NETWORK, options: { 'run-dir': vms.runDir('a') }, ...network },
    network_options: { interface_name: 'eth0', aliases: [], static_ips: null, static_mac: null, ...network_options },
  });

  test('info', async () => {
    expect(await call(['info'])).toEqual({ version: expect.stringMatching(/^\d/), api_version: '1.0.0' });
  });

  test('create keeps a network as it is, without names', async () => {
    expect(await call(['create'], NETWORK)).toEqual({ ...NETWORK, dns_enabled: false });
    const options = { 'run-dir': '/run/other' };
    expect(await call(['create'], { ...NETWORK, options })).toMatchObject({ options });
  });

  test.each([
    [{ subnets: [{ subnet: '10.16.32.0/24' }] }, 'leave out --subnet'],
    [{ ipam_options: { driver: 'host-local' } }, 'leave out --ipam-driver'],
    [{ ipv6_enabled: true }, 'leave out --ipv6'],
    [{ internal: true }, '--internal'],
    [{ options: { mtu: '1400' } }, 'option mtu: expected run-dir'],
  ])('create refuses %j', async (change, error) => {
    expect(await call(['create'], { ...NETWORK, ...change })).toEqual({
      code: 1,
      error: expect.stringContaining(error),
    });
  });

  test('setup attaches, teardown detaches, and once more does no harm', async () => {
    const answer = await call(['setup', '/run/netns/one'], of('c1'));
    const { mac_address, subnets } = answer.interfaces.eth0;
    expect(answer).toMatchObject({ dns_server_ips: [], dns_search_domains: [] });
    expect(subnets).toEqual([{ gateway: '10.16.32.1', ipnet: expect.stringMatching(/^10\.16\.32\.\d+\/32$/) }]);
    const [link] = JSON.parse(await vms.lab.must('one', ['ip', '-j', 'link', 'show', 'eth0']));
    expect(link.address).toBe(mac_address);
    expect(await vms.pings('b', subnets[0].ipnet.split('/')[0], 3)).toBe('3');
    expect(await call(['teardown', '/run/netns/one'], of('c1'))).toBeUndefined();
    expect(await call(['teardown', '/run/netns/one'], of('c1'))).toBeUndefined();
    expect(await links()).toBe(before);
  });

  test('where there is no mesh, there is nothing to tear down', async () => {
    const request = of('c1', {}, { options: { 'run-dir': '/run/none' } });
    expect(await call(['teardown', '/run/netns/one'], request)).toBeUndefined();
  });

  test('the address, the name and the link-layer address that podman asks for, at once after a restart, too', async () => {
    const wanted = { static_ips: ['10.16.32.91'], static_mac: '02:00:00:00:00:07', interface_name: 'net7' };
    for (let i = 0; i < 2; i++) {
      expect(await call(['setup', '/run/netns/one'], of('c2', wanted))).toMatchObject({
        interfaces: { net7: { mac_address: '02:00:00:00:00:07', subnets: [{ ipnet: '10.16.32.91/32' }] } },
      });
      expect(await call(['teardown', '/run/netns/one'], of('c2', wanted))).toBeUndefined();
    }
    expect(await call(['setup', '/run/netns/two'], of('c3', wanted))).toEqual({
      ...{ code: 1, error: expect.stringContaining('container 90 (10.16.32.91) was in use a moment ago') },
    });
    expect(await links()).toBe(before);
  });

  test.each<[string, readonly string[], (good: object) => unknown, string]>([
    ['no command', [], () => ({}), 'command undefined: expected info'],
    ['a command of another version', ['update'], () => ({}), 'command "update"'],
    ['no JSON', ['setup', '/run/netns/one'], () => '{', 'is not a JSON object'],
    ['a list', ['setup', '/run/netns/one'], () => [], 'is not a JSON object'],
    ['too much', ['setup', '/run/netns/one'], () => JSON.stringify({ x: 'x'.repeat(2 << 20) }), 'is longer than'],
    ['no namespace', ['setup'], (good) => good, 'expected a path'],
    ['a name', ['setup', 'one'], (good) => good, 'expected a path'],
    ['a namespace that is not there', ['setup', '/run/netns/none'], (good) => good, 'there is no network namespace'],
    ['no id', ['setup', '/run/netns/one'], (good) => ({ ...good, container_id: 7 }), 'no container_id'],
    [
      'two addresses',
      ['setup', '/run/netns/one'],
      (good) => ({ ...good, network_options: { interface_name: 'eth0', static_ips: ['10.16.32.2', '10.16.32.3'] } }),
      'give --ip once',
    ],
    [
      "another VM's address",
      ['setup', '/run/netns/one'],
      (good) => ({ ...good, network_options: { interface_name: 'eth0', static_ips: ['10.16.33.2'] } }),
      "not one of this VM's",
    ],
    [
      'an odd interface',
      ['teardown', '/run/netns/one'],
      (good) => ({ ...good, network_options: { interface_name: 'a/b' } }),
      'interface "a/b"',
    ],
    ['no mesh', ['setup', '/run/netns/one'], (good) => ({ ...good, network: {} }), 'no daemon has left its mesh'],
  ])('refused: %s', async (_, words, request, error) => {
    expect(await call(words, request(of('c4')))).toEqual({ code: 1, error: expect.stringContaining(error) });
    expect(await links()).toBe(before);
  });
});

/** docker's plugin: what it answers, without a kernel. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import http from 'node:http';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { EndpointStore } from '../src/containers/docker/endpoint-store.ts';
import { PluginServer } from '../src/containers/docker/server.ts';
import { ContainerError } from '../src/containers/reasons.ts';

/** In memory, with addresses that end in .2 to .4. */
class FakeStore implements EndpointStore {
  pool = '10.16.32.0/24';
  overlay = '10.0.0.0/8';
  gateway = '10.16.32.1';
  readonly reserved = new Set<string>();
  readonly endpoints = new Map<string, string>();

  reserve(address: string | undefined): string {
    const free = ['10.16.32.2', '10.16.32.3', '10.16.32.4'].filter(
      (each) => !this.reserved.has(each) && ![...this.endpoints.values()].includes(each),
    );
    const found = address === undefined ? free[0] : free.find((each) => each === address);
    if (found === undefined)
      throw new ContainerError(address ? 'taken' : 'full', `no ${address ?? 'address'}`, { hint: 'try again' });
    this.reserved.add(found);
    return found;
  }
  release(address: string): void {
    this.reserved.delete(address);
  }
  create(endpoint: string, address: string, mac = '02:00:00:00:00:01'): string {
    if (!this.reserved.delete(address)) throw new ContainerError('taken', `no reservation of ${address}`);
    this.endpoints.set(endpoint, address);
    return mac;
  }
  deviceOf(endpoint: string): string {
    if (!this.endpoints.has(endpoint)) throw new ContainerError('not-attached', `no endpoint ${endpoint}`);
    return `inc-${endpoint}`;
  }
  remove(endpoint: string): void {
    this.endpoints.delete(endpoint);
  }
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-docker-'));
const socketPath = path.join(folder, 'inlay.sock');
let store = new FakeStore();
let mesh: () => FakeStore = () => store;
const server = new PluginServer((work) => work(mesh()));

beforeAll(() => server.listen({ path: socketPath }));
beforeEach(() => {
  store = new FakeStore();
  mesh = () => store;
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

test('the socket is for root alone, from the beginning', async () => {
  const other = new PluginServer((work) => work(mesh()));
  const file = path.join(folder, 'other.sock');
  const listening = other.listen({ path: file });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await listening;
  await other.close();
});

function ask(name: string, body?: unknown, method = 'POST'): Promise<[status: number, answer: unknown]> {
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, path: `/${name}`, method }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve([response.statusCode ?? 0, JSON.parse(text)]));
    });
    request.on('error', reject);
    request.end(typeof body === 'string' || body === undefined ? body : JSON.stringify(body));
  });
}

test('what docker asks for on the way to a container, and its way back', async () => {
  expect(await ask('Plugin.Activate')).toEqual([200, { Implements: ['NetworkDriver', 'IpamDriver'] }]);
  expect(await ask('NetworkDriver.GetCapabilities', 'null')).toMatchObject([200, { Scope: 'local' }]);
  expect(await ask('IpamDriver.GetDefaultAddressSpaces')).toMatchObject([200, { LocalDefaultAddressSpace: 'inlay' }]);
  const pool = { AddressSpace: 'inlay', Pool: '', SubPool: '', Options: null, V6: false };
  expect(await ask('IpamDriver.RequestPool', pool)).toEqual([
    200,
    { PoolID: '10.16.32.0/24', Pool: '0.0.0.0/0', Data: {} },
  ]);
  expect(await ask('IpamDriver.RequestPool', { ...pool, Pool: '10.16.32.0/24' })).toMatchObject([
    200,
    { PoolID: '10.16.32.0/24', Pool: '10.16.32.0/24' },
  ]);
  const PoolID = '10.16.32.0/24';
  const gateway = { RequestAddressType: 'com.docker.network.gateway' };
  expect(await ask('IpamDriver.RequestAddress', { PoolID, Address: '', Options: gateway })).toEqual([
    200,
    { Address: '10.16.32.1/24', Data: {} },
  ]);
  const data = [{ AddressSpace: 'inlay', Pool: '0.0.0.0/0', Gateway: '10.16.32.1/24' }];
  const network = { NetworkID: 'n', Options: { 'com.docker.network.generic': {} }, IPv4Data: data, IPv6Data: [] };
  expect(await ask('NetworkDriver.CreateNetwork', network)).toEqual([200, {}]);

  expect(await ask('IpamDriver.RequestAddress', { PoolID, Address: '', Options: {} })).toEqual([
    200,
    { Address: '10.16.32.2/32', Data: {} },
  ]);
  const endpoint = { NetworkID: 'n', EndpointID: 'e' };
  const made = { ...endpoint, Options: {}, Interface: { Address: '10.16.32.2/32', AddressIPv6: '', MacAddress: '' } };
  expect(await ask('NetworkDriver.CreateEndpoint', made)).toEqual([
    200,
    { Interface: { MacAddress: '02:00:00:00:00:01' } },
  ]);
  expect(await ask('NetworkDriver.Join', { ...endpoint, SandboxKey: '/var/run/docker/netns/1' })).toEqual([
    200,
    {
      InterfaceName: { SrcName: 'inc-e', DstPrefix: 'eth' },
      Gateway: '10.16.32.1',
      StaticRoutes: [
        { Destination: '10.16.32.1/32', RouteType: 1 },
        { Destination: '10.0.0.0/8', RouteType: 0, NextHop: '10.16.32.1' },
      ],
    },
  ]);
  expect(await ask('NetworkDriver.ProgramExternalConnectivity', { ...endpoint, Options: {} })).toEqual([200, {}]);
  expect(await ask('NetworkDriver.EndpointOperInfo', endpoint)).toEqual([200, { Value: {} }]);
  for (const name of ['RevokeExternalConnectivity', 'Leave', 'DeleteEndpoint', 'DeleteEndpoint', 'DeleteNetwork'])
    expect(await ask(`NetworkDriver.${name}`, endpoint)).toEqual([200, {}]);
  expect(await ask('IpamDriver.ReleaseAddress', { PoolID, Address: '10.16.32.2' })).toEqual([200, {}]);
  expect(await ask('IpamDriver.ReleasePool', { PoolID })).toEqual([200, {}]);
  expect(store.endpoints.size).toBe(0);
});

test('addresses that the user gives are kept, and theirs alone', async () => {
  const PoolID = '10.16.32.0/24';
  const asked = { PoolID, Address: '10.16.32.4', Options: null };
  expect(await ask('IpamDriver.RequestAddress', asked)).toMatchObject([200, { Address: '10.16.32.4/32' }]);
  expect(await ask('IpamDriver.RequestAddress', asked)).toEqual([200, { Error: 'no 10.16.32.4 (try again)' }]);
  const Interface = { Address: '10.16.32.4/32', MacAddress: '02:42:00:00:00:01' };
  expect(await ask('NetworkDriver.CreateEndpoint', { EndpointID: 'e', Interface })).toEqual([200, { Interface: {} }]);
});

const PoolID = '10.16.32.0/24';
const OTHER = '10.16.33.0/24';
test.each<[name: string, body: object, reason: RegExp]>([
  ['IpamDriver.RequestPool', { V6: true }, /no IPv6/],
  ['IpamDriver.RequestPool', { Pool: OTHER }, /--subnet 10\.16\.33\.0\/24: this VM has 10\.16\.32\.0\/24/],
  ['IpamDriver.RequestPool', { Pool: PoolID, SubPool: '10.16.32.128/25' }, /--ip-range/],
  ['IpamDriver.RequestAddress', { PoolID: OTHER }, /docker's network has 10\.16\.33\.0\/24.*docker network rm/],
  [
    'IpamDriver.RequestAddress',
    { PoolID, Address: '10.16.32.9', Options: { RequestAddressType: 'com.docker.network.gateway' } },
    /--gateway 10\.16\.32\.9/,
  ],
  ['NetworkDriver.CreateNetwork', { IPv4Data: [{ Pool: '172.18.0.0/16' }] }, /--ipam-driver inlay/],
  ['NetworkDriver.CreateNetwork', {}, /--ipam-driver inlay/],
  [
    'NetworkDriver.CreateNetwork',
    { IPv4Data: [{ Pool: PoolID }], Options: { 'com.docker.network.internal': true } },
    /--internal/,
  ],
  [
    'NetworkDriver.CreateNetwork',
    { IPv4Data: [{ Pool: PoolID }], Options: { 'com.docker.network.generic': { mtu: '1' } } },
    /option mtu/,
  ],
  ['NetworkDriver.CreateEndpoint', { EndpointID: 'e', Interface: null }, /no address/],
  ['NetworkDriver.CreateEndpoint', { EndpointID: 'e', Interface: { Address: '10.16.32.2/32' } }, /reservation/],
  ['NetworkDriver.Join', { EndpointID: 'e' }, /no endpoint e/],
  [
    'NetworkDriver.ProgramExternalConnectivity',
    { EndpointID: 'e', Options: { 'com.docker.network.portmap': [{ Port: 80 }] } },
    /publishes no ports/,
  ],
])('what cannot be is refused where docker looks for it: %s %j', async (name, body, reason) => {
  const [status, answer] = await ask(name, body);
  const field = name.startsWith('Ipam') ? 'Error' : 'Err';
  expect([status, Object.keys(answer as object)]).toEqual([200, [field]]);
  expect((answer as Record<string, string>)[field]).toMatch(reason);
});

test('without a mesh each request fails for itself, and works when there is one', async () => {
  mesh = () => {
    throw new ContainerError('no-mesh', 'no daemon has left its mesh', { hint: 'start inlay up' });
  };
  const pool = { Pool: '' };
  expect(await ask('IpamDriver.RequestPool', pool)).toEqual([
    200,
    { Error: 'no daemon has left its mesh (start inlay up)' },
  ]);
  expect(await ask('Plugin.Activate')).toMatchObject([200, {}]);
  mesh = () => store;
  expect(await ask('IpamDriver.RequestPool', pool)).toMatchObject([200, { PoolID }]);
});

test('what docker never sends', async () => {
  const failed = (status: number, reason: string) => [status, { Err: reason, Error: reason }];
  expect(await ask('Join', {})).toEqual(failed(404, 'there is no method "/Join"'));
  expect(await ask('NetworkDriver.toString', {})).toMatchObject([404, {}]);
  expect(await ask('NetworkDriver.Join', undefined, 'GET')).toEqual(failed(405, 'expected POST'));
  expect(await ask('NetworkDriver.Join', '{"EndpointID":')).toEqual(failed(400, 'the request is not JSON'));
  for (const body of ['[]', '1', '{}', '{"EndpointID":7}', '{"EndpointID":""}', { EndpointID: 'e'.repeat(257) }])
    expect((await ask('NetworkDriver.Join', body))[0]).toBe(400);
  expect(await ask('NetworkDriver.Join', { EndpointID: 'e', more: 'x'.repeat(1 << 20) })).toEqual(
    failed(400, 'the request is longer than 262144 bytes'),
  );
  expect((await ask('IpamDriver.RequestAddress', { PoolID, Address: 'x'.repeat(2000) }))[0]).toBe(400);
  expect(await ask('Plugin.Activate')).toMatchObject([200, {}]);
});

test('a client that sends no HTTP, or nothing, keeps nobody waiting', async () => {
  const idle = connect(socketPath);
  const odd = connect(socketPath);
  const ended = new Promise((resolve) => odd.once('close', resolve));
  odd
    .on('error', () => {})
    .resume()
    .write('\x00\x01\r\n\r\n');
  await ended;
  expect(await ask('Plugin.Activate')).toMatchObject([200, {}]);
  idle.destroy();
});

/** The CNI plugin as the specification has it, over a library in memory. */
import { beforeEach, describe, expect, test } from 'vitest';
import { idOf } from '../src/containers/cni/id.ts';
import { deletion, Elsewhere, runCni } from '../src/containers/cni/plugin.ts';
import { VERSIONS } from '../src/containers/cni/versions.ts';
import { ContainerError, type ReasonName } from '../src/containers/reasons.ts';
import { FakeContainers } from './fake-containers.ts';

const NETNS = '/run/netns/c90';
const ENV = { CNI_CONTAINERID: 'web', CNI_NETNS: NETNS, CNI_IFNAME: 'eth0', CNI_PATH: '/opt/cni/bin' };
const CONFIG = { cniVersion: '1.1.0', name: 'mesh', type: 'inlay-cni' };

let library: FakeContainers;
beforeEach(() => {
  library = new FakeContainers();
});

function call(command: string, config: unknown = CONFIG, env: Record<string, string> = {}) {
  const text = typeof config === 'string' || config instanceof Uint8Array ? config : JSON.stringify(config);
  const { code, stdout } = runCni({ ...ENV, CNI_COMMAND: command, ...env }, text, library);
  expect(library.opened, 'what was opened is closed').toBe(0);
  if (stdout !== '') expect(stdout).toMatch(/^\{.*\}\n$/);
  return { code, answer: stdout === '' ? undefined : JSON.parse(stdout) };
}

/** The answer to a call that works. */
function done(...words: Parameters<typeof call>) {
  const { code, answer } = call(...words);
  expect(answer?.msg).toBeUndefined();
  expect(code).toBe(0);
  return answer;
}

/** The error of a call that does not. */
function refused(...words: Parameters<typeof call>) {
  const { code, answer } = call(...words);
  expect(code).toBe(1);
  return answer;
}

describe('VERSION', () => {
  test.each([
    ['{"cniVersion":"1.0.0"}', '1.0.0'],
    ['{"cniVersion":"0.2.0"}', '0.2.0'],
    ['', '1.1.0'],
    ['not JSON', '1.1.0'],
    ['{"cniVersion":7}', '1.1.0'],
  ])('answers %j with the version that was asked in', (config, cniVersion) => {
    const env = { CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy', CNI_CONTAINERID: '' };
    expect(done('VERSION', config, env)).toEqual({ cniVersion, supportedVersions: VERSIONS });
  });

  test('needs no other variable', () => {
    expect(runCni({ CNI_COMMAND: 'VERSION' }, '', library).code).toBe(0);
  });
});

describe('ADD', () => {
  test('answers interfaces, address, route and name servers', () => {
    const dns = { nameservers: ['10.16.32.1'], search: ['mesh'] };
    expect(done('ADD', { ...CONFIG, dns })).toEqual({
      cniVersion: '1.1.0',
      interfaces: [
        { name: 'inlabcdefghijkl', mac: '02:00:00:00:00:01', mtu: 1476 },
        { name: 'eth0', mac: '02:00:00:00:00:5a', mtu: 1476, sandbox: NETNS },
      ],
      ips: [{ address: '10.16.32.91/32', gateway: '10.16.32.1', interface: 1 }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.16.32.1' }],
      dns,
    });
    expect(library.requests).toEqual([{ netns: NETNS, ifname: 'eth0', id: 'cni:mesh:web' }]);
    expect(library.meshes).toEqual([{ runDir: '/run/inlay', prefixes: undefined, coolDown: undefined }]);
  });

  test('answers the route that there is where another network has the default route', () => {
    library.route = '10.0.0.0/8';
    expect(done('ADD').routes).toEqual([{ dst: '10.0.0.0/8', gw: '10.16.32.1' }]);
  });

  test.each([
    ['0.3.1', '4', undefined],
    ['0.4.0', '4', undefined],
    ['1.0.0', undefined, undefined],
    ['1.1.0', undefined, 1476],
  ])('has the form of version %s', (cniVersion, version, mtu) => {
    const result = done('ADD', { ...CONFIG, cniVersion });
    expect(result.cniVersion).toBe(cniVersion);
    expect(result.ips[0].version).toBe(version);
    expect(result.interfaces.map((each: { mtu?: number }) => each.mtu)).toEqual([mtu, mtu]);
  });

  test('a second time for the same interface is an error, for another it is not', () => {
    done('ADD');
    expect(refused('ADD')).toMatchObject({ code: 104, cniVersion: '1.1.0' });
    expect(library.attached.size).toBe(1);
    done('ADD', CONFIG, { CNI_IFNAME: 'eth1' });
  });

  test('what plugins before had stays before what is ours', () => {
    const prevResult = {
      cniVersion: '1.0.0',
      interfaces: [{ name: 'lo', sandbox: NETNS }],
      ips: [{ address: '127.0.0.1/8', interface: 0 }],
      routes: [{ dst: '192.0.2.0/24' }],
      dns: { domain: 'theirs' },
    };
    const result = done('ADD', { ...CONFIG, cniVersion: '1.0.0', prevResult });
    expect(result.interfaces.map(({ name }: { name: string }) => name)).toEqual(['lo', 'inlabcdefghijkl', 'eth0']);
    expect(result.ips).toEqual([
      { address: '127.0.0.1/8', interface: 0 },
      { address: '10.16.32.91/32', gateway: '10.16.32.1', interface: 2 },
    ]);
    expect(result.routes).toEqual([{ dst: '192.0.2.0/24' }, { dst: '0.0.0.0/0', gw: '10.16.32.1' }]);
    expect(result.dns).toEqual({ domain: 'theirs' });
  });

  test.each<[name: string, config: object, env: Record<string, string>, container: number]>([
    ['the capability', { runtimeConfig: { ips: ['10.16.32.7'] } }, {}, 6],
    ['the capability in other capitals', { runtimeConfig: { IPs: ['10.16.32.7/24'] } }, {}, 6],
    ['args', { args: { cni: { Ips: ['10.16.32.8/32'] } } }, { CNI_ARGS: 'IP=10.16.32.9' }, 7],
    [
      'the capability before args',
      { runtimeConfig: { Ips: ['10.16.32.7'] }, args: { cni: { ips: ['10.16.32.8'] } } },
      {},
      6,
    ],
    ['an empty list before CNI_ARGS', { runtimeConfig: { ips: [] } }, { CNI_ARGS: 'IP=10.16.32.9/24' }, 8],
    ['CNI_ARGS before the configuration', { container: 3 }, { CNI_ARGS: 'IgnoreUnknown=1;IP=10.16.32.9;X=Y' }, 8],
    ['the configuration', { container: 3 }, {}, 3],
  ])('takes the address of %s', (_, config, env, container) => {
    done('ADD', { ...CONFIG, ...config }, env);
    expect(library.requests[0]?.container).toBe(container);
  });

  test.each<[name: string, config: object, env: Record<string, string>]>([
    ['the capability', { runtimeConfig: { mac: '02:00:00:00:00:07' } }, { CNI_ARGS: 'MAC=02:00:00:00:00:09' }],
    ['the capability in other capitals', { runtimeConfig: { Mac: '02-00-00-00-00-07' } }, {}],
    ['args', { args: { cni: { mac: '02:00:00:00:00:07' } } }, {}],
    ['CNI_ARGS', {}, { CNI_ARGS: 'MAC=02:00:00:00:00:07' }],
    ['the configuration', { mac: '02:00:00:00:00:07' }, {}],
  ])('takes the link-layer address of %s', (_, config, env) => {
    done('ADD', { ...CONFIG, ...config }, env);
    expect(library.requests[0]?.mac).toEqual(Uint8Array.of(2, 0, 0, 0, 0, 7));
  });

  test('tells which mesh is meant', () => {
    const mappings = [{ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' }];
    done('ADD', { ...CONFIG, runDir: '/run/inlay-2/', ...mappings[0], coolDown: 5 });
    done('ADD', { ...CONFIG, mappings }, { CNI_CONTAINERID: 'other' });
    expect(library.meshes).toEqual([
      { runDir: '/run/inlay-2', prefixes: mappings, coolDown: 5 },
      { runDir: '/run/inlay', prefixes: mappings, coolDown: undefined },
    ]);
  });

  test("takes what a runtime adds to every plugin's configuration", () => {
    done('ADD', {
      ...CONFIG,
      capabilities: { ips: true, portMappings: false },
      ipam: {},
      ipMasq: false,
      args: { cni: {}, labels: [] },
      runtimeConfig: {
        portMappings: null,
        bandwidth: [],
        'io.kubernetes.cri.pod-annotations': { a: 'b' },
        aliases: ['x'],
      },
      'cni.dev/attachments': [],
    });
  });
});

describe('CNI_ARGS', () => {
  test.each([
    '',
    'K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop',
    'NOMAD_ALLOC_ID=1;NOMAD_X=a=b',
    'IgnoreUnknown=True;A=B',
    'A=B;IgnoreUnknown=1',
  ])('%j is taken', (CNI_ARGS) => {
    done('ADD', CONFIG, { CNI_ARGS });
  });

  test.each([
    ['A=B', 'unknown arguments ["A=B"]'],
    ['A=B;IgnoreUnknown=0', 'unknown arguments ["A=B"]'],
    ['ip=10.16.32.7', 'unknown arguments'],
    ['A', '"A" is no pair'],
    ['=B', '"=B" is no pair'],
    ['IgnoreUnknown=1;', '"" is no pair'],
    ['IgnoreUnknown=perhaps', 'IgnoreUnknown="perhaps"'],
    ['IP=10.16.32', 'IP "10.16.32": expected an IPv4 address'],
    ['MAC=2', 'MAC "2": expected a link-layer address'],
  ])('%j is an error that names it', (CNI_ARGS, message) => {
    expect(refused('ADD', CONFIG, { CNI_ARGS })).toMatchObject({
      code: 4,
      msg: expect.stringContaining(`CNI_ARGS: ${message}`),
    });
    expect(library.attached.size).toBe(0);
  });
});

describe('DEL', () => {
  test('is about one interface of one container, whatever mesh the configuration means', () => {
    const env = { ...ENV, CNI_COMMAND: 'DEL' };
    const config = { ...CONFIG, coolDown: 5, overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };
    expect(deletion(env, JSON.stringify(config))).toEqual({
      mesh: { runDir: '/run/inlay', prefixes: undefined, coolDown: 5 },
      target: { id: 'cni:mesh:web', ifname: 'eth0' },
    });
    expect(() => deletion(env, '{}')).toThrow('incompatible CNI versions');
  });

  test('works three times, and without anything but id and interface', () => {
    done('ADD');
    done('DEL', { ...CONFIG, prevResult: { anything: true } });
    expect(library.attached.size).toBe(0);
    expect(done('DEL', CONFIG, { CNI_NETNS: '' })).toBeUndefined();
    done('DEL', { cniVersion: '0.3.1', name: 'mesh' }, { CNI_NETNS: 'gone', CNI_ARGS: 'A' });
  });

  test('detaches only that interface', () => {
    for (const CNI_IFNAME of ['eth0', 'eth1']) done('ADD', CONFIG, { CNI_IFNAME });
    done('DEL');
    expect([...library.attached.keys()]).toEqual(['cni:mesh:web eth1']);
  });

  test('does not ask whether the configuration would attach', () => {
    done('ADD');
    done('DEL', { ...CONFIG, overlay: '10.0.0.0/8', typo: 1, ipam: { type: 'host-local' } });
    expect(library.meshes.at(-1)?.prefixes).toBeUndefined();
    expect(library.attached.size).toBe(0);
  });

  test.each<ReasonName>(['no-mesh', 'not-ours'])('is done where nothing can be attached: %s', (reason) => {
    library.refusal = new ContainerError(reason, 'nothing');
    done('DEL');
  });

  test.each<ReasonName>(['permission', 'system'])('is not done where it failed: %s', (reason) => {
    library.refusal = new ContainerError(reason, 'it failed', { hint: 'do this' });
    expect(refused('DEL')).toMatchObject({ msg: 'it failed', details: 'do this' });
  });
});

describe('CHECK', () => {
  test('compares the result with what is attached', () => {
    const prevResult = done('ADD');
    expect(done('CHECK', { ...CONFIG, prevResult })).toBeUndefined();
    // Of other plugins: another route, another interface before.
    const more = {
      ...prevResult,
      interfaces: [{ name: 'x' }, ...prevResult.interfaces],
      ips: [
        { address: '192.0.2.1/24', interface: 0 },
        { ...prevResult.ips[0], interface: 2 },
      ],
      routes: [],
    };
    done('CHECK', { ...CONFIG, prevResult: more });
  });

  test.each<[name: string, change: (result: ReturnType<typeof done>) => object, message: string]>([
    [
      'address',
      (r) => ({ ips: [{ ...r.ips[0], address: '10.16.32.7/32' }] }),
      '["10.16.32.7/32"], the interface 10.16.32.91/32',
    ],
    ['no address', () => ({ ips: [] }), 'the interface 10.16.32.91/32'],
    ['interface', (r) => ({ interfaces: [r.interfaces[0]] }), `no interface eth0 in ${NETNS}`],
    [
      'namespace',
      (r) => ({ interfaces: [r.interfaces[0], { ...r.interfaces[1], sandbox: '/x' }] }),
      `no interface eth0 in ${NETNS}`,
    ],
    [
      'link-layer address',
      (r) => ({ interfaces: [r.interfaces[0], { ...r.interfaces[1], mac: '02:00:00:00:00:FF' }] }),
      '02:00:00:00:00:FF',
    ],
    [
      "the VM's interface",
      (r) => ({ interfaces: [{ name: 'other' }, r.interfaces[1]] }),
      'no interface inlabcdefghijkl',
    ],
  ])('another %s is an error', (_, change, message) => {
    const result = done('ADD');
    const prevResult = { ...result, ...change(result) };
    expect(refused('CHECK', { ...CONFIG, prevResult })).toMatchObject({
      code: 102,
      msg: expect.stringContaining(message),
    });
  });

  test('needs the result', () => {
    done('ADD');
    expect(refused('CHECK')).toMatchObject({ code: 7, msg: expect.stringContaining('prevResult is missing') });
  });

  test('what is not attached any more is an error', () => {
    const prevResult = done('ADD');
    done('DEL');
    expect(refused('CHECK', { ...CONFIG, prevResult })).toMatchObject({ code: 102 });
  });
});

describe('GC', () => {
  function attachSome() {
    for (const CNI_CONTAINERID of ['a', 'b', 'c'])
      for (const CNI_IFNAME of ['eth0', 'eth1']) done('ADD', CONFIG, { CNI_CONTAINERID, CNI_IFNAME });
    done('ADD', { ...CONFIG, name: 'mesh2' }, { CNI_CONTAINERID: 'a' });
    library.attach({ netns: 'by-hand', id: 'netns-1', ifname: 'eth0' });
  }
  const OTHERS = ['cni:mesh2:a eth0', 'netns-1 eth0'];
  const GC_ENV = { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' };

  test.each(['cni.dev/valid-attachments', 'cni.dev/attachments'])(
    'keeps what %s has, and what is not of the network',
    (key) => {
      attachSome();
      const valid = [
        { containerID: 'a', ifname: 'eth0' },
        { containerID: 'c', ifname: 'eth1' },
        { containerID: 'unknown', ifname: 'eth0' },
      ];
      expect(done('GC', { ...CONFIG, [key]: valid }, GC_ENV)).toBeUndefined();
      expect([...library.attached.keys()]).toEqual(['cni:mesh:a eth0', 'cni:mesh:c eth1', ...OTHERS]);
    },
  );

  test.each([[[]], [null], [undefined]])('a list of %j keeps nothing of the network', (list) => {
    attachSome();
    done('GC', { ...CONFIG, 'cni.dev/valid-attachments': list }, GC_ENV);
    expect([...library.attached.keys()]).toEqual(OTHERS);
  });

  test.each([['all'], [{}], [[1]], [[null]], [[{ containerID: 'a' }]], [[{ containerID: 1, ifname: 'eth0' }]]])(
    'a list of %j detaches nothing',
    (list) => {
      attachSome();
      expect(refused('GC', { ...CONFIG, 'cni.dev/valid-attachments': list }, GC_ENV).code).toBe(7);
      expect(library.attached.size).toBe(8);
    },
  );

  test('knows long ids again', () => {
    const ids = ['x'.repeat(256), `${'x'.repeat(255)}y`, 'x'.repeat(107), 'x'.repeat(108)];
    for (const CNI_CONTAINERID of ids) done('ADD', CONFIG, { CNI_CONTAINERID });
    expect(library.attached.size).toBe(4);
    const valid = ids.slice(1).map((containerID) => ({ containerID, ifname: 'eth0' }));
    done('GC', { ...CONFIG, 'cni.dev/valid-attachments': valid }, GC_ENV);
    expect([...library.attached.keys()]).toEqual(ids.slice(1).map((id) => `${idOf('mesh', id)} eth0`));
  });
});

describe('STATUS', () => {
  const STATUS_ENV = { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' };

  test('says nothing while containers can be attached', () => {
    expect(done('STATUS', CONFIG, STATUS_ENV)).toBeUndefined();
  });

  test('is error 50 while no address is free', () => {
    library.coolingDown = 252;
    done('ADD');
    expect(refused('STATUS', CONFIG, STATUS_ENV)).toEqual({
      cniVersion: '1.1.0',
      code: 50,
      msg: 'all 253 addresses of this VM are taken: 1 in use, 252 cooling down',
    });
  });

  test.each<[ReasonName, number]>([
    ['no-mesh', 50],
    ['other-mesh', 50],
    ['permission', 50],
    ['no-underlay', 51],
  ])('tells what attaching would fail of: %s is %i', (reason, code) => {
    library.refusal = new ContainerError(reason, 'it would fail', { hint: 'do this' });
    expect(refused('STATUS', CONFIG, STATUS_ENV)).toMatchObject({ code, msg: 'it would fail', details: 'do this' });
  });

  test('is error 51 if the machine has not the address of the VM any more', () => {
    library.isElsewhere = true;
    expect(refused('STATUS', CONFIG, STATUS_ENV).code).toBe(51);
  });

  test('finds what is wrong with the configuration before the first container does', () => {
    expect(refused('STATUS', { ...CONFIG, rundir: '/x' }, STATUS_ENV).code).toBe(2);
  });
});

describe('ids', () => {
  test.each([
    ['mesh', 'web', 'cni:mesh:web'],
    ['m', 'x'.repeat(107), `cni:m:${'x'.repeat(107)}`],
    ['m', 'x'.repeat(108), /^cni:m:x{86}~[\w-]{20}$/],
    ['n'.repeat(300), 'x'.repeat(256), /^cni:n{27}~[\w-]{20}:x{86}~[\w-]{20}$/],
  ])('of network %s and container %s', (network, container, expected) => {
    const id = idOf(network, container);
    expect(id).toMatch(expected);
    expect(id.length).toBeLessThanOrEqual(160);
  });

  test('are of one network only', () => {
    expect(new Set([idOf('a', 'b.c'), idOf('a.b', 'c'), idOf('a', 'b'), idOf('b', 'a')]).size).toBe(4);
  });
});

test("a call about another daemon's containers is passed on", () => {
  library.open = () => {
    throw new Elsewhere();
  };
  expect(() => call('ADD')).toThrow(Elsewhere);
});

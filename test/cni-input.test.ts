/** What the CNI plugin refuses: each with the specification's code, and a message that says which word it is. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LONGEST } from '../src/containers/cni/network.ts';
import { runCni } from '../src/containers/cni/plugin.ts';
import { FakeContainers } from './fake-containers.ts';

const ENV = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'web', CNI_NETNS: '/run/netns/c90', CNI_IFNAME: 'eth0' };
const CONFIG = { cniVersion: '1.0.0', name: 'mesh' };

function errorOf(config: string | Uint8Array, env: Record<string, string | undefined> = {}) {
  const library = new FakeContainers();
  const { code, stdout } = runCni({ ...ENV, ...env }, config, library);
  expect(code).toBe(1);
  expect(library.attached.size).toBe(0);
  expect(library.opened).toBe(0);
  // One line of ASCII, whatever came.
  expect(stdout).toMatch(/^[ -~]{1,1000}\n$/);
  return JSON.parse(stdout);
}

describe('variables', () => {
  const GOOD = JSON.stringify(CONFIG);

  test.each<[name: string, env: Record<string, string | undefined>, message: string]>([
    ['no command', { CNI_COMMAND: undefined }, 'missing: CNI_COMMAND'],
    ['an empty command', { CNI_COMMAND: '' }, 'missing: CNI_COMMAND'],
    ['another command', { CNI_COMMAND: 'add' }, 'CNI_COMMAND "add": expected ADD, DEL, CHECK, GC, STATUS, VERSION'],
    ['a command of every object', { CNI_COMMAND: 'constructor' }, 'CNI_COMMAND "constructor"'],
    [
      'three missing',
      { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
      'variables missing: CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME',
    ],
    ['no namespace', { CNI_NETNS: '' }, 'variable missing: CNI_NETNS'],
    ['DEL without an id', { CNI_COMMAND: 'DEL', CNI_CONTAINERID: '' }, 'missing: CNI_CONTAINERID'],
    ['CHECK without a namespace', { CNI_COMMAND: 'CHECK', CNI_NETNS: undefined }, 'missing: CNI_NETNS'],
    ['an id of 257 characters', { CNI_CONTAINERID: 'x'.repeat(257) }, 'CNI_CONTAINERID is too long: 257 characters'],
    ['an id with a slash', { CNI_CONTAINERID: '../web' }, 'CNI_CONTAINERID "../web" has invalid characters'],
    ['an id with white space', { CNI_CONTAINERID: 'a b' }, 'CNI_CONTAINERID "a b"'],
    ['an id with a line', { CNI_CONTAINERID: 'a\n' }, 'CNI_CONTAINERID "a\\n"'],
    ['an id with a command for the terminal', { CNI_CONTAINERID: '\x1b[2J' }, 'CNI_CONTAINERID "\\u001b[2J"'],
    ['an id with another reading order', { CNI_CONTAINERID: 'a\u202eb' }, 'CNI_CONTAINERID "a\\u202eb"'],
    ['an id that starts with a dot', { CNI_CONTAINERID: '.web' }, 'CNI_CONTAINERID ".web"'],
    ['a namespace by name', { CNI_NETNS: 'c90' }, 'CNI_NETNS "c90": expected an absolute path'],
    ['a namespace by process', { CNI_NETNS: '1' }, 'CNI_NETNS "1"'],
    ['a namespace with a zero', { CNI_NETNS: '/run/\0' }, 'CNI_NETNS "/run/\\u0000"'],
    ['a long path', { CNI_NETNS: `/${'x'.repeat(4095)}` }, 'CNI_NETNS "/xxx'],
    [
      'a long interface',
      { CNI_IFNAME: 'x'.repeat(16) },
      'CNI_IFNAME "xxxxxxxxxxxxxxxx" is too long: 16 bytes, expected 15',
    ],
    ['the interface .', { CNI_IFNAME: '.' }, 'CNI_IFNAME is "."'],
    ['the interface ..', { CNI_IFNAME: '..' }, 'CNI_IFNAME is ".."'],
    ...['/', 'a/b', 'a:b', 'a b', 'a\tb', 'a\u00a0b', 'a\0', 'eth%d', '\u00e4'].map(
      (CNI_IFNAME): [string, Record<string, string>, string] => [
        `the interface ${JSON.stringify(CNI_IFNAME)}`,
        { CNI_IFNAME },
        'CNI_IFNAME "',
      ],
    ),
  ])('%s', (_, env, message) => {
    expect(errorOf(GOOD, env)).toMatchObject({ code: 4, msg: expect.stringContaining(message) });
  });

  test.each(['x', 'x'.repeat(256), 'A.b_c-9', '0'])('an id of the specification is taken: %s', (CNI_CONTAINERID) => {
    expect(runCni({ ...ENV, CNI_CONTAINERID }, GOOD, new FakeContainers()).code).toBe(0);
  });

  test.each(['e', 'x'.repeat(15), '...', 'a.b-c_9'])('an interface of the kernel is taken: %s', (CNI_IFNAME) => {
    expect(runCni({ ...ENV, CNI_IFNAME }, GOOD, new FakeContainers()).code).toBe(0);
  });
});

describe('standard input', () => {
  test.each<[name: string, config: string | Uint8Array, message: string]>([
    ['nothing', '', 'no network configuration'],
    ['no bytes', new Uint8Array(), 'no network configuration'],
    ['white space', ' \n', 'no JSON'],
    ['no JSON', 'hello', 'no JSON'],
    ['half of it', '{"name":"mesh"', 'no JSON'],
    ['two', '{}{}', 'no JSON'],
    ['a list', '[]', 'no JSON object: []'],
    ['nothing in JSON', 'null', 'no JSON object: null'],
    ['a number', '7', 'no JSON object: 7'],
    ['a text', '"\\u001b[2J\u202e"', 'no JSON object: "\\u001b[2J\\u202e"'],
    ['bytes that are no text', Uint8Array.of(0x7b, 0xff, 0x7d), 'no JSON'],
    ['a program', Uint8Array.from({ length: 4096 }, (_, i) => i), 'no JSON'],
    ['too much of it', `{"name":"${'x'.repeat(LONGEST)}"}`, `longer than ${LONGEST} bytes`],
    ['too many bytes', new Uint8Array(LONGEST + 1), `longer than ${LONGEST} bytes`],
    ['deep lists', '['.repeat(100_000) + ']'.repeat(100_000), 'deeper than 64 levels'],
    ['deep lists without end', '['.repeat(1_000_000), 'no JSON'],
    ['a version that is none', '{"cniVersion":"new","name":"mesh"}', 'cniVersion "new" is no version'],
    ['a version of another type', '{"cniVersion":1.1,"name":"mesh"}', 'cniVersion 1.1 is no version'],
  ])('%s cannot be decoded', (_, config, message) => {
    expect(errorOf(config)).toMatchObject({ code: 6, msg: expect.stringContaining(message) });
  });

  test.each(['dns', 'prevResult', 'typo'])('%s is not deeper than a result can be', (key) => {
    const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
    const config = (levels: number) => `{"cniVersion":"1.0.0","name":"mesh","${key}":${deep(levels)}}`;
    expect(errorOf(config(100_000)).code).toBe(6);
    expect(errorOf(config(64))).toMatchObject({ code: 6, msg: expect.stringContaining('deeper than 64 levels') });
    if (key !== 'typo') expect(runCni(ENV, config(63), new FakeContainers()).code).toBe(0);
  });

  test.each([undefined, '0.1.0', '0.2.0', '0.3.0', '1.2.0', '2.0.0'])('version %s is not spoken', (cniVersion) => {
    expect(errorOf(JSON.stringify({ cniVersion, name: 'mesh' }))).toEqual({
      cniVersion: '1.1.0',
      code: 1,
      msg: 'incompatible CNI versions',
      details: `the configuration is of "${cniVersion ?? '0.1.0'}", the plugin supports 0.3.1, 0.4.0, 1.0.0, 1.1.0`,
    });
  });

  test.each([
    ['CHECK', '0.3.1'],
    ['GC', '1.0.0'],
    ['STATUS', '0.4.0'],
  ])('%s is not there in version %s', (CNI_COMMAND, cniVersion) => {
    expect(errorOf(JSON.stringify({ cniVersion, name: 'mesh' }), { CNI_COMMAND })).toMatchObject({
      code: 1,
      cniVersion,
    });
  });
});

describe('network configuration', () => {
  test.each<[name: string, config: object, message: string]>([
    ['no name', { name: undefined }, 'missing network name'],
    ['an empty name', { name: '' }, 'missing network name'],
    ['a name with a slash', { name: 'a/b' }, 'network name "a/b"'],
    ['a name of another type', { name: ['mesh'] }, 'network name ["mesh"]'],
    ['a relative run directory', { runDir: 'run' }, 'runDir "run": expected an absolute path'],
    ['a run directory of another type', { runDir: 7 }, 'runDir 7'],
    ['half of a mapping', { overlay: '10.0.0.0/8' }, 'expected overlay and underlay'],
    ['mappings and a mapping', { overlay: 'x', mappings: [] }, 'either overlay and underlay, or mappings'],
    ['no mapping', { mappings: [] }, 'mappings []'],
    ['mappings of another type', { mappings: {} }, 'mappings {}'],
    ['a mapping of another type', { mappings: ['10.0.0.0/8'] }, '"10.0.0.0/8": expected overlay and underlay'],
    ['a cool-down of another type', { coolDown: '60' }, 'coolDown "60": expected a whole number'],
    ['a cool-down before now', { coolDown: -1 }, 'coolDown -1'],
    ['a container of another type', { container: '90' }, 'container "90"'],
    ['dns of another type', { dns: 'x' }, 'dns "x": expected an object'],
    ['runtimeConfig of another type', { runtimeConfig: [] }, 'runtimeConfig []: expected an object'],
    ['args of another type', { args: 'x' }, 'args "x": expected an object'],
    [
      'ips of another type',
      { runtimeConfig: { ips: '10.16.32.7' } },
      'runtimeConfig.ips "10.16.32.7": expected a list',
    ],
    ['two addresses', { runtimeConfig: { ips: ['10.16.32.7', '10.16.32.8'] } }, 'expected one address'],
    [
      'an address of another kind',
      { runtimeConfig: { ips: ['2001:db8::5'] } },
      'runtimeConfig.ips "2001:db8::5": expected an IPv4 address',
    ],
    ['an address with zeros', { args: { cni: { ips: ['010.16.32.7'] } } }, 'args.cni.ips "010.16.32.7"'],
    ['a prefix that is too long', { runtimeConfig: { ips: ['10.16.32.7/33'] } }, 'runtimeConfig.ips "10.16.32.7/33"'],
    ["another VM's address", { runtimeConfig: { ips: ['10.16.33.7'] } }, 'address 10.16.33.7 is not one of'],
    ["the VM's own address", { runtimeConfig: { ips: ['10.16.32.1'] } }, 'address 10.16.32.1 is not one of'],
    ['a link-layer address of a group', { runtimeConfig: { mac: '01:00:5e:00:00:01' } }, 'no interface can have'],
    ['no link-layer address', { mac: '00:00:00:00:00:00' }, 'no interface can have'],
    ['half a link-layer address', { runtimeConfig: { mac: '02:00' } }, 'runtimeConfig.mac "02:00": expected'],
    ['a link-layer address of another type', { runtimeConfig: { mac: 2 } }, 'runtimeConfig.mac 2'],
    ['prevResult of another type', { prevResult: 'x' }, 'prevResult "x": expected an object'],
    ['interfaces of another type', { prevResult: { interfaces: {} } }, 'prevResult.interfaces {}: expected a list'],
    ['an interface of another type', { prevResult: { interfaces: ['eth0'] } }, 'prevResult.interfaces ["eth0"]'],
  ])('%s', (_, config, message) => {
    expect(errorOf(JSON.stringify({ ...CONFIG, ...config }))).toMatchObject({
      cniVersion: '1.0.0',
      code: 7,
      msg: expect.stringContaining(message),
    });
  });

  test.each<[config: object, message: string]>([
    [{ rundir: '/x' }, 'rundir: "/x"'],
    [{ bridge: 'cni0' }, 'bridge: "cni0"'],
    [{ ['__proto__']: 1 }, '__proto__: 1'],
    [{ ipam: { type: 'host-local' } }, 'ipam: {"type":"host-local"}'],
    [{ ipMasq: true }, 'ipMasq: true'],
    [{ runtimeConfig: { PortMappings: [{ HostPort: 80 }] } }, 'runtimeConfig.portMappings: [{"HostPort":80}]'],
    [{ runtimeConfig: { bandwidth: { ingressRate: 1 } } }, 'runtimeConfig.bandwidth: {"ingressRate":1}'],
    [{ '\u001b[2J': 1 }, '\\u001b[2J: 1'],
  ])('an unsupported field is named with its value: %j', (config, message) => {
    expect(errorOf(JSON.stringify({ ...CONFIG, ...config }))).toMatchObject({
      code: 2,
      msg: `unsupported field in the network configuration: ${message}`,
    });
  });
});

test('whatever comes is answered in one line', () => {
  const text = fc.string({ unit: 'binary', maxLength: 40 });
  const env = fc.record({
    CNI_COMMAND: fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', 'X'),
    CNI_CONTAINERID: fc.oneof(text, fc.constant('web')),
    CNI_NETNS: fc.oneof(text, fc.constant('/run/netns/c90')),
    CNI_IFNAME: fc.oneof(text, fc.constant('eth0')),
    CNI_ARGS: fc.oneof(text, fc.constant('IgnoreUnknown=1')),
  });
  const keys = [
    'runDir',
    'overlay',
    'mappings',
    'coolDown',
    'container',
    'dns',
    'args',
    'runtimeConfig',
    'prevResult',
    'ipam',
    'cni.dev/valid-attachments',
  ];
  const config = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.uint8Array(),
    fc.json(),
    fc
      .dictionary(fc.constantFrom(...keys), fc.jsonValue(), { maxKeys: 4 })
      .map((more) => JSON.stringify({ cniVersion: '1.1.0', name: 'mesh', ...more })),
  );
  fc.assert(
    fc.property(env, config, (variables, input) => {
      const { code, stdout } = runCni(variables, input, new FakeContainers());
      expect([0, 1]).toContain(code);
      if (code === 1) {
        expect(stdout).toMatch(/^[ -~]{1,1000}\n$/);
        expect(JSON.parse(stdout)).toMatchObject({
          cniVersion: expect.any(String),
          code: expect.any(Number),
          msg: expect.stringMatching(/./),
        });
        expect(JSON.parse(stdout).code, stdout).not.toBe(999);
      }
    }),
  );
});

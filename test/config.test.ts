/** The configuration: what files and flags give, and the exact words for every kind of mistake. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type Flags, loadConfig } from '../src/config/config.ts';
import { InlayError } from '../src/errors.ts';
import { formatAddress, formatPrefix } from '../src/mesh/address.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function fileOf(text: string): string {
  const file = path.join(folder, `${files++}.yaml`);
  writeFileSync(file, text);
  return file;
}

/** The configuration in words, so that a table can hold it. */
function load(flags: Flags, text?: string) {
  const { mappings, local, ...rest } = loadConfig(flags, text === undefined ? undefined : fileOf(text));
  return {
    ...rest,
    local: local && formatAddress(local),
    mappings: mappings.map((m) => `${formatPrefix(m.overlay)} ${formatPrefix(m.underlay)}`),
  };
}

/** The error of bad input, the file's name in it as FILE. */
function errorOf(flags: Flags, file?: string) {
  try {
    loadConfig(flags, file);
  } catch (error) {
    if (!(error instanceof InlayError)) throw error;
    const { exitCode, hint } = error;
    return { exitCode, hint, message: file ? error.message.replaceAll(file, 'FILE') : error.message };
  }
  throw new Error('no error');
}

const PAIR = { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };
const YAML = 'overlay: 10.0.0.0/8\nunderlay: 192.168.0.0/16\n';
const DEFAULTS = {
  mappings: ['10.0.0.0/8 192.168.0.0/16'],
  ...{ local: undefined, device: 'inlay0', encapsulation: 'gre', key: undefined, core: 'wasm', engine: 'linux' },
  ...{ greSegmentation: 'auto', queues: 1, busyPoll: 0, dataplane: 'wasm' },
  ...{ runDir: '/run/inlay', idleTimeout: 60_000, logLevel: 'info' },
};
/** Every setting, none of them the default. */
const ALL = {
  ...{ overlay: '240.0.0.0/4', underlay: '172.16.0.0/17', local: '172.16.0.9', device: 'mesh-1', encapsulation: 'gre' },
  ...{
    key: '7',
    core: 'typescript',
    engine: 'portable',
    'run-dir': '/run/m',
    'idle-timeout': '5m',
    'log-level': 'warn',
  },
};
const YAML_ALL = Object.entries(ALL)
  .map(([key, value]) => `${key}: ${value} # a comment\n`)
  .join('');
const ALL_LOADED = {
  mappings: ['240.0.0.0/4 172.16.0.0/17'],
  ...{ local: '172.16.0.9', device: 'mesh-1', encapsulation: 'gre', key: 7, core: 'typescript', engine: 'portable' },
  ...{ runDir: '/run/m', idleTimeout: 300_000, logLevel: 'warn' },
};
const TWO = `mappings:
  - overlay: 10.0.0.0/8
    underlay: 192.168.0.0/16
  - { overlay: 240.0.0.0/8, underlay: 192.168.0.0/17 }
`;
const TWO_LOADED = ['10.0.0.0/8 192.168.0.0/16', '240.0.0.0/8 192.168.0.0/17'];
const pairs = (count: number) =>
  `mappings:\n${Array.from({ length: count }, (_, i) => `  - {overlay: ${20 + i}.0.0.0/8, underlay: 192.168.${i}.0/24}\n`).join('')}`;

describe('good', () => {
  test.each<[name: string, flags: Flags, text: string | undefined, expected: object]>([
    ['two flags, all else is default', PAIR, undefined, DEFAULTS],
    ['every flag', ALL, undefined, ALL_LOADED],
    ['YAML, two keys', {}, YAML, DEFAULTS],
    ['YAML, every key', {}, YAML_ALL, ALL_LOADED],
    ['JSON, every key', {}, JSON.stringify({ ...ALL, key: 7 }), ALL_LOADED],
    ['several mappings', {}, TWO, { ...DEFAULTS, mappings: TWO_LOADED }],
    ['sixteen mappings', {}, pairs(16), { mappings: { length: 16 } }],
    ['flags beside several mappings', { device: 'a' }, TWO, { ...DEFAULTS, device: 'a', mappings: TWO_LOADED }],
    ['flags override a pair', { overlay: '11.0.0.0/8' }, YAML, { mappings: ['11.0.0.0/8 192.168.0.0/16'] }],
    ['two flags override mappings', PAIR, TWO, DEFAULTS],
    ['a flag overrides a key, not its neighbour', { key: '1' }, `${YAML}key: 2\ndevice: b`, { key: 1, device: 'b' }],
    ['an empty file beside flags', PAIR, '', DEFAULTS],
    ['CRLF and a byte order mark', {}, `\ufeff${YAML.replaceAll('\n', '\r\n')}`, DEFAULTS],
  ])('%s', (_, flags, text, expected) => expect(load(flags, text)).toMatchObject(expected));

  test.each<[name: string, line: string, expected: object]>([
    ['key, least', 'key: 0', { key: 0 }],
    ['key, greatest', 'key: 4294967295', { key: 0xffffffff }],
    ['key, in hexadecimal', 'key: 0xffffffff', { key: 0xffffffff }],
    ['key, as text', 'key: "4294967295"', { key: 0xffffffff }],
    ['idle-timeout, least', 'idle-timeout: 100ms', { idleTimeout: 100 }],
    ['idle-timeout, greatest', 'idle-timeout: 168h', { idleTimeout: 604_800_000 }],
    ['idle-timeout, seconds', 'idle-timeout: 90s', { idleTimeout: 90_000 }],
    ['ttl, least', 'ttl: 1', { ttl: 1 }],
    ['ttl, greatest', 'ttl: 255', { ttl: 255 }],
    ['ttl, inherit', 'ttl: inherit', { ttl: 'inherit' }],
    ['dscp, greatest', 'dscp: 63', { dscp: 63 }],
    ['dscp, uniform', 'dscp: uniform', { dscp: 'uniform' }],
    ['ecn', 'ecn: compatibility', { ecn: 'compatibility' }],
    ['underlay-mtu, least', 'underlay-mtu: 600', { underlayMtu: 600 }],
    ['path-mtu-discovery', 'path-mtu-discovery: off', { pathMtuDiscovery: false }],
    ['clamp-mss', 'clamp-mss: on', { clampMss: true }],
    ['gre-checksum', 'gre-checksum: on', { greChecksum: true }],
    ['gre-sequence', 'gre-sequence: on', { greSequence: true }],
    ['busy-poll, least', 'busy-poll: 0ms', { busyPoll: 0 }],
    ['busy-poll, greatest', 'busy-poll: 1s', { busyPoll: 1000 }],
    ['busy-poll, microseconds', 'busy-poll: 50us', { busyPoll: 0.05 }],
    ['device, longest', 'device: abcdefghijklmno', { device: 'abcdefghijklmno' }],
    ['device, odd characters', 'device: "!$&.-9;~"', { device: '!$&.-9;~' }],
    [
      'container-access, text',
      'container-access: all,vm:53',
      { containerAccess: [{ to: 'all' }, { to: 'vm', port: 53 }] },
    ],
    [
      'container-access, list',
      'container-access: [vm, 192.168.0.2:53]',
      { containerAccess: [{ to: 'vm' }, { port: 53 }] },
    ],
    ['run-dir, longest', `run-dir: /${'d'.repeat(89)}`, { runDir: `/${'d'.repeat(89)}` }],
  ])('limits: %s', (_, line, expected) => expect(load({}, YAML + line)).toMatchObject(expected));
});

const PREFIX = 'expected an IPv4 prefix such as 10.0.0.0/8';
const ADDRESS = 'expected an IPv4 address such as 192.168.16.32';
const KEY = 'expected a number from 0 to 4294967295';
const DURATION = 'expected a duration such as 60s, 500ms or 5m';
const DEVICE = 'expected a device name of 1 to 15 ASCII characters without / : % and white space, not all or default';
const ACCESS = 'expected a list of ADDRESS[/LENGTH][:PORT], vm[:PORT] or all, such as 192.168.0.2:53,vm:53';
const OUTSIDE = 'expected an address inside the underlay 192.168.0.0/16';
const RUN_DIR = 'expected a directory, its path at most 90 bytes';

describe('bad values', () => {
  test.each<[line: string, place: string, message: string]>([
    ['local: 010.0.0.1', '3:8', `local "010.0.0.1": ${ADDRESS}`],
    ['local: 192.168.1', '3:8', `local "192.168.1": ${ADDRESS}`],
    ['local: 0xc0.168.0.1', '3:8', `local "0xc0.168.0.1": ${ADDRESS}`],
    ['local: fd00::1', '3:8', `local "fd00::1": ${ADDRESS}`],
    ['local: 5', '3:8', `local 5: ${ADDRESS}`],
    ['key: -1', '3:6', `key -1: ${KEY}`],
    ['key: 4294967296', '3:6', `key 4294967296: ${KEY}`],
    ['key: "99999999999999999999999"', '3:6', `key "99999999999999999999999": ${KEY}`],
    ['key: 1.5', '3:6', `key 1.5: ${KEY}`],
    ['key: .inf', '3:6', `key Infinity: ${KEY}`],
    ['key: ""', '3:6', `key "": ${KEY}`],
    ['key: secret', '3:6', `key "secret": ${KEY}`],
    ['key: true', '3:6', `key true: ${KEY}`],
    ['key:', '3:5', `key null: ${KEY}`],
    ['device: ""', '3:9', `device "": ${DEVICE}`],
    ['device: abcdefghijklmnop', '3:9', `device "abcdefghijklmnop": ${DEVICE}`],
    ['device: äöüäöüäö', '3:9', `device "äöüäöüäö": ${DEVICE}`], // 8 characters, 16 bytes
    ['device: a/b', '3:9', `device "a/b": ${DEVICE}`],
    ['device: a b', '3:9', `device "a b": ${DEVICE}`],
    ['device: "a\\0"', '3:9', `device "a\\u0000": ${DEVICE}`],
    ['device: mesh%d', '3:9', `device "mesh%d": ${DEVICE}`],
    ['device: ..', '3:9', `device "..": ${DEVICE}`],
    ['device: all', '3:9', `device "all": ${DEVICE}`],
    ['device: 5', '3:9', `device 5: ${DEVICE}`],
    ['idle-timeout: 99ms', '3:15', 'idle-timeout "99ms": expected at least 100ms'],
    ['idle-timeout: 169h', '3:15', 'idle-timeout "169h": expected at most 168h'],
    ['idle-timeout: 60', '3:15', `idle-timeout 60: ${DURATION}`],
    ['idle-timeout: 1 s', '3:15', `idle-timeout "1 s": ${DURATION}`],
    ['idle-timeout: -1s', '3:15', `idle-timeout "-1s": ${DURATION}`],
    ['idle-timeout: 1.5s', '3:15', `idle-timeout "1.5s": ${DURATION}`],
    ['idle-timeout: 1d', '3:15', `idle-timeout "1d": ${DURATION}`],
    ['busy-poll: 1001ms', '3:12', 'busy-poll "1001ms": expected at most 1s'],
    ['busy-poll: 50', '3:12', 'busy-poll 50: expected a duration such as 2ms or 500us'],
    ['ttl: 0', '3:6', 'ttl 0: expected a number from 1 to 255 or inherit'],
    ['ttl: outer', '3:6', 'ttl "outer": expected a number from 1 to 255 or inherit'],
    ['dscp: 64', '3:7', 'dscp 64: expected a number from 0 to 63 or uniform'],
    ['dscp: 1.5', '3:7', 'dscp 1.5: expected a number from 0 to 63 or uniform'],
    ['underlay-mtu: 599', '3:15', 'underlay-mtu 599: expected a number from 600 to 65535'],
    ['ecn: off', '3:6', 'ecn "off": expected normal or compatibility'],
    ['clamp-mss: yes', '3:12', 'clamp-mss "yes": expected on or off'],
    ['gre-checksum: true', '3:15', 'gre-checksum true: expected on or off'],
    ['encapsulation: geneve', '3:16', 'encapsulation "geneve": expected gre, gre-udp or vxlan'],
    ['queues: 0', '3:9', 'queues 0: expected a number from 1 to 64'],
    ['gre-segmentation: nic', '3:19', 'gre-segmentation "nic": expected auto, core or kernel'],
    ['core: WASM', '3:7', 'core "WASM": expected wasm or typescript'],
    ['engine: 5', '3:9', 'engine 5: expected linux or portable'],
    ['container-access: 5', '3:19', `container-access 5: ${ACCESS}`],
    ['container-access: vm:0', '3:19', `container-access "vm:0": ${ACCESS}`],
    ['container-access: 10.1.2.3', '3:1', `container-access 10.1.2.3: ${OUTSIDE}`],
    ['run-dir: ""', '3:10', `run-dir "": ${RUN_DIR}`],
    [`run-dir: /${'d'.repeat(90)}`, '3:10', `run-dir "/${'d'.repeat(78)}...: ${RUN_DIR}`],
    ['log-level: trace', '3:12', 'log-level "trace": expected debug, info, warn or error'],
    ['overlaay: 10.0.0.0/8', '3:1', 'unknown key "overlaay": did you mean "overlay"?'],
    ['idle_timeout: 1s', '3:1', 'unknown key "idle_timeout": did you mean "idle-timeout"?'],
    ['mtu: 1400', '3:1', 'unknown key "mtu": did you mean "underlay-mtu"?'],
    ['log: debug', '3:1', 'unknown key "log": did you mean "log-level"?'],
    ['constructor: 1', '3:1', 'unknown key "constructor": did you mean "core"?'],
    ['__proto__: {}', '3:1', 'unknown key "__proto__": did you mean "overlay"?'],
    ['5: x', '3:1', 'unknown key "5": did you mean "key"?'],
    ['overlay: 11.0.0.0/8', '3:1', 'Map keys must be unique'],
    ['mappings: []', '3:11', 'mappings []: expected at least one pair'],
    ['mappings: x', '3:11', 'mappings "x": expected a list of overlay and underlay pairs'],
    [
      'mappings: [{overlay: 11.0.0.0/8, underlay: 172.16.0.0/16}]',
      '3:1',
      'mappings and overlay or underlay exclude each other: expected one of them',
    ],
  ])('%s', (line, place, message) => {
    expect(errorOf({}, fileOf(YAML + line))).toMatchObject({ exitCode: 78, message: `FILE:${place}: ${message}` });
  });
});

const BEYOND = 'expected no bits beyond the prefix length';
const TWO_NEEDED = ': two prefixes are needed';
const HALF = ': expected an overlay and an underlay prefix';
const KEYS = ': expected keys and values such as overlay: 10.0.0.0/8';
/** The first item of a list of mappings, in a block and between braces. */
const FIRST = 'mappings:\n  - overlay: 10.0.0.0/8\n    ';
const BRACES = 'mappings:\n  - {overlay: 10.0.0.0/8, underlay: 192.168.0.0/16';
const LONG = `mappings [${JSON.stringify({ overlay: '20.0.0.0/8', underlay: '192.168.0.0/24' })},{"overlay":"21.0.0.0/8","u...`;

describe('bad files', () => {
  test.each<[name: string, text: string, message: string]>([
    ['empty', '', `1:1: no overlay prefix${TWO_NEEDED}`],
    ['only a comment', '# nothing\n', `1:1: no overlay prefix${TWO_NEEDED}`],
    ['no underlay', 'overlay: 10.0.0.0/8', `1:1: no underlay prefix${TWO_NEEDED}`],
    ['no overlay', 'underlay: 192.168.0.0/16', `1:1: no overlay prefix${TWO_NEEDED}`],
    ['a list', '- overlay: 10.0.0.0/8', `1:1: [{"overlay":"10.0.0.0/8"}]${KEYS}`],
    ['a word', 'hello', `1:1: "hello"${KEYS}`],
    ['two documents', `${YAML}---\n${YAML}`, '3:1: expected one YAML document'],
    [
      'an open list',
      'overlay: [1\n',
      '2:1: Flow sequence in block collection must be sufficiently indented and end with a ]',
    ],
    ['an open quote', 'overlay: "10', '1:13: Missing closing "quote'],
    ['an alias without its anchor', 'overlay: *x', ' Unresolved alias (the anchor must be set before the alias): x'],
    ['prefix: host bits', 'overlay: 10.0.0.1/8', `1:10: overlay "10.0.0.1/8": ${BEYOND}: 10.0.0.0/8`],
    ['prefix: a leading zero', 'overlay: 010.0.0.0/8', `1:10: overlay "010.0.0.0/8": ${PREFIX}`],
    ['prefix: a leading zero in the length', 'overlay: 10.0.0.0/08', `1:10: overlay "10.0.0.0/08": ${PREFIX}`],
    ['prefix: 33 bits', 'overlay: 10.0.0.0/33', `1:10: overlay "10.0.0.0/33": ${PREFIX}`],
    ['prefix: no length', '{\n "underlay": "192.168.0.0"}', `2:14: underlay "192.168.0.0": ${PREFIX}`],
    ['prefix: three parts', 'overlay: 10.0.0/8', `1:10: overlay "10.0.0/8": ${PREFIX}`],
    ['prefix: IPv6', 'overlay: fd00::/8', `1:10: overlay "fd00::/8": ${PREFIX}`],
    ['prefix: a number', 'overlay: 10', '1:10: overlay 10: expected a prefix such as 10.0.0.0/8'],
    ['prefix: nothing', 'overlay:\n', '1:9: overlay null: expected a prefix such as 10.0.0.0/8'],
    [
      'overlap',
      'overlay: 10.0.0.0/8\nunderlay: 10.1.0.0/16',
      '1:1: overlay 10.0.0.0/8 and underlay 10.1.0.0/16 overlap: expected two separate prefixes',
    ],
    [
      'mappings: unknown key',
      `${FIRST}undrlay: x\n    underlay: 192.168.0.0/16`,
      '3:5: unknown key "undrlay": did you mean "underlay"?',
    ],
    ['mappings: a top-level key', `${BRACES}, over: 1}`, '2:53: unknown key "over": did you mean "overlay"?'],
    [
      'mappings: a bad prefix',
      `${FIRST}underlay: 192.168.0.1/16`,
      `3:15: underlay "192.168.0.1/16": ${BEYOND}: 192.168.0.0/16`,
    ],
    ['mappings: half a pair', 'mappings:\n  - overlay: 10.0.0.0/8', `2:5: mappings[0] {"overlay":"10.0.0.0/8"}${HALF}`],
    ['mappings: no pair', 'mappings: [10.0.0.0/8]', `1:12: mappings[0] "10.0.0.0/8"${HALF}`],
    [
      'mappings: no room',
      'mappings:\n  - {overlay: 10.0.0.0/8, underlay: 172.16.0.0/16}\n  - {overlay: 11.0.0.0/8, underlay: 192.0.0.0/8}',
      '3:5: overlay 11.0.0.0/8 has no room for underlay 192.0.0.0/8: 0 container bits, expected at least 2',
    ],
    [
      'mappings: overlapping overlays',
      `${BRACES}}\n  - {overlay: 10.1.0.0/16, underlay: 172.16.0.0/24}`,
      '1:1: mappings overlap: 10.0.0.0/8 and 10.1.0.0/16',
    ],
    [
      'mappings: an overlay over the other underlay',
      `${BRACES}}\n  - {overlay: 192.168.0.0/17, underlay: 172.16.0.0/24}`,
      '1:1: mappings overlap: 192.168.0.0/16 and 192.168.0.0/17',
    ],
    ['mappings: seventeen', pairs(17), `2:3: ${LONG}: expected at most 16 pairs`],
  ])('%s', (_, text, message) =>
    expect(errorOf({}, fileOf(text))).toMatchObject({ exitCode: 78, message: `FILE:${message}` }),
  );

  test.each([
    ['missing', 'nowhere.yaml', 'ENOENT'],
    ['a directory', '.', 'EISDIR'],
  ])('%s', (_, name, code) => {
    const message = `FILE: cannot be read (${code})`;
    expect(errorOf({}, path.join(folder, name))).toMatchObject({ exitCode: 78, message });
  });
});

describe('bad flags', () => {
  const hint = '--overlay 10.0.0.0/8 --underlay 192.168.0.0/16, or the same keys in a file for --config';
  test.each<[flags: Flags, message: string, hint?: string]>([
    [{}, 'no overlay prefix: two prefixes are needed', hint],
    [{ overlay: '10.0.0.0/8' }, 'no underlay prefix: two prefixes are needed', hint],
    [{ overlay: '' }, `--overlay "": ${PREFIX}`],
    [{ overlay: '10.0.0.1/8' }, '--overlay "10.0.0.1/8": expected no bits beyond the prefix length: 10.0.0.0/8'],
    [{ local: '010.0.0.1' }, `--local "010.0.0.1": ${ADDRESS}`],
    [{ key: '1e3' }, `--key "1e3": ${KEY}`],
    [{ key: '' }, `--key "": ${KEY}`],
    [{ 'idle-timeout': '1' }, `--idle-timeout "1": ${DURATION}`],
    [{ ...PAIR, 'container-access': '192.168.0.0/8' }, `--container-access "192.168.0.0/8": ${ACCESS}`],
    [{ ...PAIR, 'container-access': '192.0.0.0/8' }, `container-access 192.0.0.0/8: ${OUTSIDE}`],
    [{ core: 'rust' }, '--core "rust": expected wasm or typescript'],
    [
      { ...PAIR, underlay: '10.0.0.0/16' },
      'overlay 10.0.0.0/8 and underlay 10.0.0.0/16 overlap: expected two separate prefixes',
      expect.stringMatching(
        /^keep the underlay, and take one of these overlays: 10\.128\.0\.0\/9 \(125 containers per VM\), /,
      ),
    ],
    [{ ...PAIR, engine: 'portable', queues: '2' }, 'queues 2: expected 1 with engine portable, which has one thread'],
    [
      { ...PAIR, engine: 'portable', 'busy-poll': '1ms' },
      'busy-poll: expected none with engine portable, whose event loop sleeps',
    ],
    [
      { ...PAIR, encapsulation: 'gre-udp', 'gre-segmentation': 'kernel' },
      'gre-segmentation kernel: expected engine linux and encapsulation gre with it',
    ],
    [
      { ...PAIR, 'gre-checksum': 'on', 'gre-segmentation': 'kernel' },
      'gre-segmentation kernel: expected neither gre-checksum nor gre-sequence with it',
    ],
    [
      { ...PAIR, dataplane: 'kernel', encapsulation: 'vxlan', 'fast-path': 'on' },
      'fast-path on: expected encapsulation gre or gre-udp with it',
    ],
    [
      { ...PAIR, 'gre-checksum': 'on', 'fast-path': 'on' },
      'fast-path on: expected neither gre-checksum nor gre-sequence with it',
    ],
    [
      { ...PAIR, 'path-mtu-discovery': 'off', 'fast-path': 'on' },
      'fast-path on: expected path-mtu-discovery on with it',
    ],
    [
      { ...PAIR, 'gre-sequence': 'on', queues: '2' },
      'gre-sequence: expected 1 queue with it, not 2, so that packets stay in order',
    ],
    [
      { ...PAIR, engine: 'portable', encapsulation: 'gre-udp', ttl: 'inherit' },
      'ttl inherit: expected engine linux with it, or encapsulation gre',
    ],
    [
      { ...PAIR, engine: 'portable', encapsulation: 'gre-udp', dscp: '8' },
      'dscp 8: expected engine linux with it, or encapsulation gre',
    ],
    [
      { ...PAIR, engine: 'portable', encapsulation: 'gre-udp', 'path-mtu-discovery': 'off' },
      'path-mtu-discovery off: expected engine linux with it, or encapsulation gre',
    ],
    [
      { ...PAIR, engine: 'portable', dscp: 'uniform' },
      'dscp uniform: expected engine linux with it, which sees the DSCP of gre-udp',
    ],
    [{ ...PAIR, encapsulation: 'vxlan' }, 'encapsulation vxlan: expected dataplane kernel with it'],
    ...Object.entries({
      engine: 'portable',
      core: 'typescript',
      queues: '2',
      'busy-poll': '1ms',
      'gre-segmentation': 'kernel',
      'clamp-mss': 'on',
      'gre-sequence': 'on',
      ecn: 'compatibility',
      dscp: 'uniform',
    }).map(([key, value]): [Flags, string] => [
      { ...PAIR, dataplane: 'kernel', [key]: value },
      `${key}${key === 'busy-poll' ? '' : ` ${value}`}: expected dataplane wasm with it`,
    ]),
    [
      { ...PAIR, dataplane: 'kernel', encapsulation: 'vxlan', 'gre-checksum': 'on' },
      'encapsulation vxlan: expected no gre-checksum with it',
    ],
    [
      { ...PAIR, dataplane: 'kernel', encapsulation: 'vxlan', key: '16777216' },
      'key 16777216: expected at most 16777215 with encapsulation vxlan',
    ],
    [
      { ...PAIR, queues: '2', 'path-mtu-discovery': 'off' },
      'path-mtu-discovery off: expected 1 queue with it, not 2, so that identifications are unique',
    ],
  ])('%o', (flags, message, hint) => expect(errorOf(flags)).toEqual({ exitCode: 78, message, hint }));

  test('a flag that takes half of a pair away from mappings', () => {
    expect(errorOf({ overlay: '11.0.0.0/8' }, fileOf(TWO)).message).toBe('no underlay prefix: two prefixes are needed');
  });

  test('a bad file is told even if flags override the bad value', () => {
    expect(errorOf(PAIR, fileOf('overlay: x')).message).toBe(`FILE:1:10: overlay "x": ${PREFIX}`);
  });
});

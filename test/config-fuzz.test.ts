/** Whatever file and flags bring, loading the configuration ends soon, with a configuration or with one line that says what is wrong. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { type Flags, loadConfig } from '../src/config/config.ts';
import { type SettingName, settings } from '../src/config/settings.ts';
import { InlayError } from '../src/errors.ts';
import { runs } from './runs.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-fuzz-'));
const file = path.join(folder, 'config.yaml');
afterAll(() => rmSync(folder, { recursive: true }));

const RUNS = runs(400);
const MAX_SIZE = 64 << 10;
/** Characters of an error. */
const MAX_MESSAGE = 400;
/** ms of the processor: by far more than any of them takes, by far less than what grows with a power of the size. */
const SOON = 5000;

/** Throws unless the result is as it has to be; answers the error's message, or nothing. */
function check(flags: Flags, text?: string | Uint8Array): string {
  if (text !== undefined) writeFileSync(file, text);
  const start = process.cpuUsage();
  let message = '';
  try {
    const { mappings, device } = loadConfig(flags, text === undefined ? undefined : file);
    expect(mappings.length).toBeGreaterThan(0);
    expect(device).toMatch(/^\S{1,15}$/);
  } catch (error) {
    if (!(error instanceof InlayError) || error.code !== 'ERR_CONFIG') throw error;
    message = error.message.replaceAll(file, 'FILE');
    expect(message).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u); // They would do things to a terminal.
    expect(message.length).toBeLessThan(MAX_MESSAGE);
  }
  expect(process.cpuUsage(start).user / 1000).toBeLessThan(SOON);
  return message;
}

const YAML = `overlay: 10.0.0.0/8
underlay: 192.168.0.0/16
local: 192.168.16.32
device: inlay0
key: 7
queues: 2
idle-timeout: 60s
run-dir: /run/inlay
log-level: info
`;
const PIECES = [
  ...['&a ', '*a', '<<: *a', '- ', '? ', ': ', '| ', '>-\n', '!!binary ', '!!set ', '!!omap ', '!!timestamp ', '!x '],
  ...['%YAML 1.1\n---\n', '%TAG ! x\n', '---\n', '...\n', '{', '}', '[', ']', ',', '"', "'", '#', '\\', '\t', '\n  '],
  ...[
    '__proto__: ',
    'constructor: ',
    'toString: ',
    'mappings: ',
    'overlay: ',
    '10.0.0.0/8',
    '1e400',
    '0x',
    '-0',
    '.nan',
  ],
  ...[
    '2026-01-01',
    '~',
    'null',
    '\0',
    '\x1b[2J',
    '\u2028',
    '\ud800',
    '\ufeff',
    '😀',
    '9'.repeat(400),
    'x'.repeat(5000),
  ],
];
const edit = fc.record({ at: fc.nat(), cut: fc.nat(12), put: fc.oneof(fc.constantFrom(...PIECES), fc.string()) });
const changed = fc.array(edit, { minLength: 1, maxLength: 8 }).map((edits) =>
  edits.reduce((text, { at, cut, put }) => {
    const i = at % (text.length + 1);
    return text.slice(0, i) + put + text.slice(i + cut);
  }, YAML),
);
const made = fc
  .array(fc.oneof(fc.constantFrom(...PIECES), fc.string()), { maxLength: 30 })
  .map((list) => list.join(''));
const value = fc.oneof(fc.constantFrom('10.0.0.0/8', '1', '5m', 'gre', ...PIECES), fc.string({ unit: 'binary' }));
const flags = fc.dictionary(fc.constantFrom(...(Object.keys(settings) as SettingName[])), value) as fc.Arbitrary<Flags>;

describe('seeded', () => {
  test('a file that was changed', () =>
    fc.assert(
      fc.property(changed, flags, (text, f) => void check(f, text)),
      { numRuns: RUNS },
    ));
  test('a file of pieces', () =>
    fc.assert(
      fc.property(made, (text) => void check({}, text)),
      { numRuns: RUNS },
    ));
  test('JSON', () =>
    fc.assert(
      fc.property(fc.json(), (text) => void check({}, text)),
      { numRuns: RUNS / 4 },
    ));
  test('bytes', () =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void check({}, bytes)),
      { numRuns: RUNS / 4 },
    ));
  test('flags', () =>
    fc.assert(
      fc.property(flags, (f) => void check(f)),
      { numRuns: RUNS },
    ));
});

/** Nine levels of nine aliases each. */
const bomb = [
  'a: &a x',
  ...[...'bcdefghij'].map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefghi'[i]}`).join(', ')}]`),
].join('\n');

const DEEP = 'lists and maps are nested too deeply';
const LARGE = 'expected at most 65536 bytes';

describe('what grows', () => {
  test.each<[name: string, text: string, says: string]>([
    ['lists in lists', '['.repeat(30_000), DEEP],
    ['lists in lists, closed', '['.repeat(30_000) + ']'.repeat(30_000), DEEP],
    ['maps in maps', '{a: '.repeat(15_000), DEEP],
    ['maps in maps, closed', `${'{a: '.repeat(10_000)}x${'}'.repeat(10_000)}`, DEEP],
    ['items in items', '- '.repeat(30_000), DEEP],
    ['keys of keys', '? '.repeat(30_000), DEEP],
    ['deeper and deeper', Array.from({ length: 300 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), DEEP],
    ['aliases of aliases', bomb, 'Excessive alias count'],
    ['an alias of itself', 'overlay: &a [*a]', 'overlay a value that holds itself: expected a prefix'],
    ['a map that holds itself', '&a {overlay: *a}', 'overlay a value that holds itself: expected a prefix'],
    ['many keys', Array.from({ length: 6000 }, (_, i) => `k${i}: 1`).join('\n'), 'unknown key "k0"'],
    ['many equal keys', 'overlay: 1\n'.repeat(5000), 'Map keys must be unique'],
    ['many anchors', Array.from({ length: 4000 }, (_, i) => `- &a${i} x`).join('\n'), 'expected keys and values'],
    ['many documents', '---\n'.repeat(15_000), 'expected one YAML document'],
    ['many quotes', '"'.repeat(60_000), ''],
    ['many tabs', '\t'.repeat(60_000), ''],
    ['a long key', `${'k'.repeat(60_000)}: 1`, ''],
    ['a key as long as may be', `"${'k'.repeat(1000)}": 1`, 'kkk..."'],
    ['a long number', `key: ${'9'.repeat(60_000)}`, 'key Infinity: expected a number'],
    ['a long value', `overlay: ${'1'.repeat(60_000)}/8`, '111...: expected an IPv4 prefix'],
    [
      'many mappings',
      `mappings:\n${'- {overlay: 1.0.0.0/8, underlay: 2.0.0.0/16}\n'.repeat(1000)}`,
      'at most 16 pairs',
    ],
    ['a large file', `${YAML}${'#'.repeat(MAX_SIZE - YAML.length)}#`, LARGE],
  ])('%s', (_, text, says) => {
    expect(check({}, text)).toContain(says);
  });

  test('a file as large as may be', () => {
    expect(check({}, `${YAML}${'#'.repeat(MAX_SIZE - YAML.length)}`)).toBe('');
  });

  test('a list as deep as may be', () => {
    expect(check({}, `overlay: ${'['.repeat(40)}${']'.repeat(40)}`)).toContain('expected a prefix');
  });

  test.each([
    ['/dev/zero', LARGE],
    ['/proc/self/mem', 'cannot be read (EIO)'],
    ['/dev/null', 'no overlay prefix'],
  ])('%s', (name, says) => {
    expect(() => loadConfig({}, name)).toThrow(says);
  });
});

/** The documents say what the code does, lead somewhere, and can be read. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { settingsTable } from '../src/config/settings.ts';
import { reasonsTable } from '../src/containers/reasons.ts';
import { blocksOf, DOCUMENTS, proseOf, read } from './documents.ts';

const COLUMNS = 100;

test('docs/configuration.md has the table of settings', () => {
  expect(read('docs/configuration.md')).toContain(settingsTable());
});

test.each([
  'plan',
  'explain',
  'up',
  'down',
  'status',
  'tunnels',
  'attach',
  'detach',
  'containers',
  'demo',
  'playground',
])('docs/configuration.md explains %s', (command) => {
  expect(read('docs/configuration.md')).toContain(`| \`${command}`);
});

test('docs/containers.md has the table of reasons', () => {
  expect(read('docs/containers.md')).toContain(reasonsTable());
});

/** Those of the guide are one program, with a test of its own: test/embedding.test.ts. */
const programs = DOCUMENTS.filter((file) => file !== 'docs/embedding.md').flatMap((file) => {
  const blocks = blocksOf(file).filter(({ words }) => words.join(' ') === 'js tested');
  return blocks.map(({ text }) => ({ file, text }));
});

test.each(programs)('the program in $file runs, and its packet is forwarded', ({ text }) => {
  const [args, cwd] = [['--input-type=module', '-e', text], fileURLToPath(new URL('..', import.meta.url))];
  // An outer IPv4 header of protocol 47 to 192.168.16.33, GRE, and the packet that was put in.
  expect(execFileSync(process.execPath, args, { cwd, encoding: 'utf8' })).toMatch(
    /^forward\n4500002c.{10}2f.{4}c0a81020c0a8102100000800450000140{8}4001/,
  );
});

test('README is short', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThan(150);
});

describe.each(DOCUMENTS)('%s', (file) => {
  test(`has lines of at most ${COLUMNS} columns, but for tables, drawings and links`, () => {
    const isFree = (text: string) => /^( *\|| {4}|!\[)/.test(text) || !text.trim().includes(' ');
    const long = proseOf(file).filter(({ text }) => text.length > COLUMNS && !isFree(text));
    expect(long).toEqual([]);
  });

  test('leads only to what is there', () => {
    const links = proseOf(file).flatMap(({ text }) => [...text.matchAll(/\]\(([^)]+)\)/g)].map((m) => m[1] as string));
    const broken = links.filter((link) => !/^https?:/.test(link) && !leads(file, link));
    expect(broken).toEqual([]);
  });

  test('says of each block of commands whether a test runs it', () => {
    const unmarked = blocksOf(file).filter(({ words: [language = '', mark = ''] }) => {
      return ['sh', 'js'].includes(language) && !['tested', 'yours'].includes(mark);
    });
    expect(unmarked).toEqual([]);
  });
});

/** Whether a link of a document has a file, and its anchor a heading there. */
function leads(from: string, link: string): boolean {
  const [target = '', anchor] = link.split('#');
  const file = target === '' ? from : path.join(path.dirname(from), target);
  if (!existsSync(new URL(`../${file}`, import.meta.url))) return false;
  if (anchor === undefined) return true;
  return proseOf(file).some(({ text }) => /^#+ /.test(text) && anchorOf(text) === anchor);
}

/** As GitHub makes it: lower case, spaces become hyphens, of other characters only letters, digits, _ and - stay. */
function anchorOf(heading: string): string {
  return heading
    .replace(/^#+ /, '')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, '')
    .replaceAll(' ', '-');
}

test('the table of SECURITY.md has a row for each attack that npm run attack makes', async () => {
  const { ATTACKS } = await import('./attack/attacks.mjs');
  const [, table = ''] = /<!-- attacks -->\n([\s\S]*?)<!-- \/attacks -->/.exec(read('SECURITY.md')) ?? [];
  const rows = table.split('\n').flatMap((line) => /^\| ([TVUL]) \| (.*?) \|/.exec(line)?.slice(1).join(' ') ?? []);
  expect(rows).toEqual(ATTACKS.map(({ who, title }) => `${who} ${title}`));
});

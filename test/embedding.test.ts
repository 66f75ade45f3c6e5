/** docs/embedding.md is a program that runs, prints what stands there, and draws the bytes that the core makes. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { rowsOf } from './abi-document.ts';
import { cores } from './core.ts';
import { blocksOf, read } from './documents.ts';
import { drawings } from './drawings.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** Printed behind each block, and by none of them. */
const END = '\u0001\n';

const blocks = blocksOf('docs/embedding.md');

/** Each block of code, with what the document says that it prints: the block behind it. */
const snippets = blocks.flatMap(({ words, text }, i) => {
  if (words.join(' ') !== 'js tested') return [];
  const next = blocks[i + 1];
  return [{ code: text, prints: next?.words.join(' ') === 'text printed' ? next.text : '' }];
});

describe('docs/embedding.md', () => {
  test('has blocks of code, and every one of them is run', () => {
    expect(snippets.length).toBeGreaterThan(8);
    const others = blocks.filter(({ words }) => words[0] === 'js' && words[1] !== 'tested');
    expect(others).toEqual([]);
  });

  test('prints what stands there', () => {
    const program = snippets.map(({ code }) => `${code}\nconsole.log(${JSON.stringify(END.trim())});\n`).join('');
    const args = ['--input-type=module', '-e', program];
    const printed = execFileSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' }).split(END).slice(0, -1);
    expect(printed).toEqual(snippets.map(({ prints }) => prints));
  });

  const core = cores[0]?.make();
  test.each([
    ['core.', core],
    ['core.messages.', core?.messages],
    ['core.tunnels.', core?.tunnels],
  ])('lists all that %s has, and nothing else', (prefix, object) => {
    const inherited = Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
      (name) => name !== 'constructor',
    );
    const cells = rowsOf(read('docs/embedding.md'), `| \`${prefix}\` | what |`).map(([members = '']) => members);
    const documented = cells.flatMap((cell) => [...cell.matchAll(/`(\w+)[^`]*`/g)].map((m) => m[1] as string));
    expect(documented.sort()).toEqual([...inherited, ...Object.keys(object as object)].sort());
  });

  const drawn = drawings();

  test('has each drawing once', () => {
    const names = blocks.filter(({ words }) => words[1] === 'drawn').map(({ words }) => words[2]);
    expect(names).toEqual(Object.keys(drawn));
  });

  test.each(Object.keys(drawn))('draws the bytes of %s that the core makes', (name) => {
    expect(blocks.find(({ words }) => words.join(' ') === `text drawn ${name}`)?.text).toBe(drawn[name]);
  });
});

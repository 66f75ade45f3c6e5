/** docs/embedding.md is a program that runs, prints what stands there, and draws the bytes that the core makes. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import * as exported from '../src/core/index.ts';
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

/** The names in the first column of the table with this head. */
function namesOf(head: string): string[] {
  const cells = rowsOf(read('docs/embedding.md'), `| \`${head}\` | what |`).map(([names = '']) => names);
  return cells.flatMap((cell) => [...cell.matchAll(/`(\w+)[^`]*`/g)].map((m) => m[1] as string)).sort();
}

/** The fields of an interface as its table has them; `value` is the cell of the default, '' if there is none. */
function fieldsOf(name: string) {
  return rowsOf(read('docs/embedding.md'), `| \`${name}\` | default | what |`).map(([field = '', value = '']) => ({
    field: field.replaceAll('`', ''),
    value,
  }));
}

/** The defaults that stand there as they would be given. */
function defaultsOf(name: string): object {
  const entries = fieldsOf(name).map(
    ({ field, value }) => [field, /^`(.*)`$/.exec(value)?.[1] ?? 'undefined'] as const,
  );
  const given = entries.filter(([, code]) => code !== 'undefined');
  return Object.fromEntries(given.map(([field, code]) => [field, JSON.parse(code.replaceAll("'", '"'))]));
}

/** The fields as src/core/config.ts has them, with those of what the interface extends. */
function fieldsInSource(name: string): { field: string; isOptional: boolean }[] {
  const declaration = new RegExp(`^export interface ${name}(?: extends (\\w+))? \\{\n([\\s\\S]*?)^\\}`, 'm');
  const [, base, body = ''] = declaration.exec(read('src/core/config.ts')) ?? [];
  const own = [...body.matchAll(/^ {2}(\w+)(\??): /gm)].map(([, field = '', mark]) => ({
    field,
    isOptional: mark === '?',
  }));
  return [...(base ? fieldsInSource(base) : []), ...own];
}

const byField = (a: { field: string }, b: { field: string }) => a.field.localeCompare(b.field);

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
    expect(namesOf(prefix)).toEqual([...inherited, ...Object.keys(object as object)].sort());
  });

  test('lists all that inlay/core exports, and nothing else', () => {
    expect(namesOf('inlay/core')).toEqual(Object.keys(exported).sort());
  });

  test.each(['CoreConfig', 'CoreDevices'])('lists the fields of %s, and which of them have a default', (name) => {
    const documented = fieldsOf(name).map(({ field, value }) => ({ field, isOptional: value !== '' }));
    expect(documented.sort(byField)).toEqual(fieldsInSource(name).sort(byField));
  });

  test.each([{}, { encapsulation: 'gre-udp', key: 7, greSequence: true } as const])(
    'has the defaults that the core has: %o',
    (given) => {
      const needed = { local: 0xc0a81020, mappings: [exported.mapping('10.0.0.0/8', '192.168.0.0/16')], ...given };
      const [bare, told] = [cores[0]?.make(), cores[0]?.make()] as [exported.PacketCore, exported.PacketCore];
      bare.configure(needed);
      const mtu = 1500 - exported.overhead('encapsulation' in given ? given.encapsulation : 'gre', given);
      told.configure({ ...defaultsOf('CoreConfig'), mtu, ...needed });
      told.attach(defaultsOf('CoreDevices'));
      expect(Buffer.compare(bare.bytes, told.bytes)).toBe(0);
    },
  );

  test('says in words what the MTU is unless given', () => {
    expect(fieldsOf('CoreConfig').find(({ field }) => field === 'mtu')?.value).toBe('1,500 less the `overhead`');
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

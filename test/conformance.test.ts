/** docs/conformance.md is what scripts/conformance.mjs makes, and every requirement has a test or says that it is for later. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

interface Item {
  id: string;
  /** All of it, or what of it is missing. */
  later?: true | string;
}

const read = (file: string) => readFileSync(new URL(file, import.meta.url), 'utf8');
const areas = JSON.parse(read('conformance/items.json')) as { items: Item[] }[];
const script = fileURLToPath(new URL('../scripts/conformance.mjs', import.meta.url));
const made = execFileSync(process.execPath, [script, '--print'], { encoding: 'utf8' });

test('docs/conformance.md is up to date: node scripts/conformance.mjs', () => {
  expect(read('../docs/conformance.md')).toBe(made);
});

test.each(areas.flatMap(({ items }) => items))('$id has tests, unless all of it is for later', ({ id, later }) => {
  const cells = made
    .split('\n')
    .find((line) => line.startsWith(`| ${id} |`))
    ?.split(/ *(?<!\\)\| */);
  // Once there are some, it is not for later any more, or only what the item says is.
  if (later === true) expect(cells?.[4]).toBe('');
  else expect(cells?.[4]).toMatch(/^\[test/);
});

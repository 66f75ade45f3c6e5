/** `inlay playground --out DIR` writes over what it wrote itself, and over nothing else. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { writePlayground } from '../../src/commands/playground-folder.ts';

const LIST = 'inlay-playground.json';
const base = mkdtempSync(path.join(os.tmpdir(), 'inlay-folder-'));
const [from, to] = [`${base}/from`, `${base}/a/to`];
afterAll(() => rmSync(base, { recursive: true }));
beforeEach(() => {
  rmSync(base, { recursive: true });
  for (const folder of [from, to]) mkdirSync(folder, { recursive: true });
  writeFileSync(`${from}/index.html`, 'the page');
  writeFileSync(`${from}/core.wasm`, '\0asm');
});

const write = () => writePlayground(from, to);
const contents = () =>
  Object.fromEntries(
    readdirSync(to)
      .filter((name) => name !== LIST)
      .map((name) => [name, readFileSync(`${to}/${name}`, 'utf8')]),
  );

/** That it refuses, names these, and leaves everything as it is. */
function expectRefusal(...names: string[]): void {
  const before = readdirSync(to);
  expect(write).toThrow(
    expect.objectContaining({
      code: 'ERR_FAILED',
      message: `${to} has ${names.join(', ')} already, not as inlay playground wrote it`,
      hint: 'choose an empty folder, or move away what is in the way',
    }),
  );
  expect(readdirSync(to)).toEqual(before);
}

test('files of other names stay, and a newer version is written over the one before', () => {
  writeFileSync(`${to}/mine.html`, 'mine');
  write();
  expect(contents()).toEqual({ 'index.html': 'the page', 'core.wasm': '\0asm', 'mine.html': 'mine' });
  writeFileSync(`${from}/index.html`, 'the new page');
  write();
  expect(contents()).toMatchObject({ 'index.html': 'the new page', 'mine.html': 'mine' });
});

test("somebody else's file is refused, whichever it is", () => {
  writeFileSync(`${to}/index.html`, 'mine');
  expectRefusal('index.html');
  expect(contents()).toEqual({ 'index.html': 'mine' });
  writeFileSync(`${to}/core.wasm`, 'mine');
  expectRefusal('core.wasm', 'index.html');
});

test('so is a file of ours that was changed, and written it is once that is gone', () => {
  write();
  writeFileSync(`${to}/index.html`, 'the page, changed');
  expectRefusal('index.html');
  unlinkSync(`${to}/index.html`);
  write();
  expect(contents()).toMatchObject({ 'index.html': 'the page' });
});

test('without a list, what is just the same is written again', () => {
  write();
  unlinkSync(`${to}/${LIST}`);
  write();
  expect(readdirSync(to)).toContain(LIST);
});

test('a folder or a link in the place of a file is refused', () => {
  mkdirSync(`${to}/core.wasm`);
  writeFileSync(`${base}/elsewhere`, 'the page');
  symlinkSync(`${base}/elsewhere`, `${to}/index.html`);
  expectRefusal('core.wasm', 'index.html');
  expect(readFileSync(`${base}/elsewhere`, 'utf8')).toBe('the page');
});

test.each(['{', 'null', '[1]', '"text"', '{"index.html":"false"}', '{"index.html":false}'])(
  'something else in the place of the list is refused: %s',
  (text) => {
    writeFileSync(`${to}/${LIST}`, text);
    expectRefusal(LIST);
    mkdirSync(`${to}/index.html`);
    expectRefusal('index.html', LIST);
    expect(readFileSync(`${to}/${LIST}`, 'utf8')).toBe(text);
  },
);

test('a list that is a folder is refused', () => {
  mkdirSync(`${to}/${LIST}`);
  expectRefusal(LIST);
});

test('where no folder can be, the reason is said', () => {
  expect(() => writePlayground(from, `${from}/index.html`)).toThrow(
    `cannot write the playground to ${from}/index.html: EEXIST`,
  );
});

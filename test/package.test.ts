/** The package as it is published: what it holds, and that its core needs nothing else, installed or bundled. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { build } from 'rolldown';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FIVE_LINES } from './five-lines.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-package-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Where a project has the package installed, and nothing else. */
const project = `${folder}/project`;
const installed = `${project}/node_modules/inlay`;
let tarball = '';
let files: string[] = [];

/** Bytes, minified, of all that `inlay/core` has in JavaScript. */
const BUDGET = 16384;

function run(command: string, args: string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (error) throw error;
  expect({ status, said: stderr + (status === 0 ? '' : stdout) }).toEqual({ status: 0, said: '' });
  return stdout;
}

beforeAll(() => {
  // It is built: without --ignore-scripts, npm would build it again, under the other tests.
  const said = run('npm', ['pack', '--json', '--silent', '--ignore-scripts', '--pack-destination', folder], ROOT);
  const [pack] = JSON.parse(said);
  tarball = `${folder}/${pack.filename}`;
  files = pack.files.map((file: { path: string }) => file.path);
  mkdirSync(installed, { recursive: true });
  run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'], folder);
  writeFileSync(`${project}/package.json`, '{ "type": "module", "private": true }\n');
});

test('holds what is built, its sources, the documents and the vectors, and nothing else', () => {
  const folders = new Set(files.map((file) => file.split('/')[0] as string));
  expect([...folders].sort()).toEqual(
    [
      ...['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md', 'asconfig.json', 'package.json'],
      ...['assembly', 'build', 'dist', 'docs', 'examples', 'packaging', 'scripts', 'src', 'test'],
    ].sort(),
  );
  const named = (start: string) => files.filter((file) => file.startsWith(start));
  expect(named('build/').sort()).toEqual(['build/core-scalar.wasm', 'build/core.wasm']);
  expect(named('test/').filter((file) => !/^test\/vectors\/([\w-]+\.json|README\.md)$/.test(file))).toEqual([]);
  expect(named('examples/').filter((file) => /\/(build|target|venv|node_modules|__pycache__)\//.test(file))).toEqual(
    [],
  );
  expect(files).toEqual(expect.arrayContaining(['docs/abi.md', 'test/vectors/README.md', 'dist/core/index.d.ts']));
});

test('publint has nothing to say', async () => {
  const { messages, pkg } = await publint({ pkgDir: installed, strict: true, pack: false });
  expect(messages.map((message) => formatMessage(message, pkg as Record<string, unknown>))).toEqual([]);
});

test('types are found by every resolver that knows ESM', () => {
  // Ends with 1 where there is a problem.
  expect(run('npm', ['run', '--silent', 'attw', '--', tarball], ROOT)).toContain('inlay/core');
});

test('the core runs with nothing else installed', () => {
  expect(readdirSync(`${project}/node_modules`)).toEqual(['inlay']);
  writeFileSync(`${project}/five-lines.js`, `${FIVE_LINES}console.log(lengths);\n`);
  expect(run(process.execPath, ['five-lines.js'], project)).toBe('44\n');
});

test('its types need neither those of Node nor anything else', () => {
  writeFileSync(`${project}/five-lines.ts`, FIVE_LINES);
  symlinkSync(`${ROOT}node_modules/typescript`, `${project}/node_modules/typescript`);
  const options = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext'];
  const libraries = ['--lib', 'es2022,dom', '--types', '', '--moduleResolution', 'bundler'];
  run(process.execPath, [`${ROOT}node_modules/.bin/tsc`, ...options, ...libraries, 'five-lines.ts'], project);
});

test('a bundle for browsers imports nothing and is small', async () => {
  const { output } = await build({
    input: `${installed}/dist/core/index.js`,
    ...{ platform: 'browser', write: false },
    output: { format: 'esm', minify: true },
  });
  const [bundle, ...others] = output;
  expect([bundle.imports, bundle.dynamicImports, others]).toEqual([[], [], []]);
  expect(bundle.code.length).toBeGreaterThan(4096);
  expect(bundle.code.length).toBeLessThan(BUDGET);
});

test('the whole is no burden: less than 8 MiB unpacked', () => {
  const size = files.reduce((sum, file) => sum + statSync(`${installed}/${file}`).size, 0);
  expect(size).toBeLessThan(8 * 2 ** 20);
});

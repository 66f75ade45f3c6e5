/** An installation that lacks something says what, and what to type. What is built is copied, and parts of it are left out. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { rawSocketMissing } from '../src/dataplane/wasm/portable/load-raw-socket.ts';
import { requireNode } from '../src/installation.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-installation-'));
afterAll(() => rmSync(folder, { recursive: true }));

const root = `${folder}/inlay`;
for (const each of ['dist', 'package.json']) cpSync(ROOT + each, `${root}/${each}`, { recursive: true });

/** Leaves one package out of the copy. */
function installWithout(missing: string): void {
  rmSync(`${root}/node_modules`, { recursive: true, force: true });
  mkdirSync(`${root}/node_modules`);
  for (const each of readdirSync(`${ROOT}node_modules`))
    if (each !== missing) symlinkSync(`${ROOT}node_modules/${each}`, `${root}/node_modules/${each}`);
}

function run(file: string, ...words: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...words], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

describe('a package that is missing', () => {
  test.each([
    { missing: 'commander', words: ['--version'] },
    { missing: 'yaml', words: ['plan', '--config', '/dev/null'] },
    { missing: 'koffi', words: ['up', '--dry-run', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'] },
    { missing: 'koffi', words: ['down', '--run-dir', '/proc/nothing'] },
    {
      missing: 'pino',
      words: ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', '--run-dir', '/proc/x'],
    },
  ])('$missing: $words', ({ missing, words }) => {
    installWithout(missing);
    expect(run(`${root}/dist/cli.js`, ...words)).toEqual({
      status: 1,
      stdout: '',
      stderr: `inlay: the package ${missing} is not installed, or not for this kind of machine\nhint: install the packages: cd ${root}/ && npm ci\n`,
    });
  });

  test('what needs none of it works without koffi', () => {
    installWithout('koffi');
    const words = ['explain', '10.16.32.91', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
    expect(run(`${root}/dist/cli.js`, ...words)).toMatchObject({ status: 0, stderr: '' });
  });
});

describe('Node', () => {
  const { engines } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
  const least = engines.node.replace('>=', '');

  test.each(['14.21.3', '18.20.8', '20.10.0', '20.18.3', '9.99.9'])('%s is too old', (version) => {
    expect(() => requireNode(version)).toThrow(`this is Node ${version}: Inlay needs ${least} or newer`);
  });

  test.each(['20.19.0', '20.20.2', '22.0.0', '26.1.0', '100.0.0', process.versions.node])('%s will do', (version) => {
    expect(requireNode(version)).toBeUndefined();
  });
});

describe('the build', () => {
  const builder = () => {
    const clone = mkdtempSync(`${folder}/build-`);
    cpSync(`${ROOT}scripts/build.mjs`, `${clone}/scripts/build.mjs`);
    return clone;
  };

  test('without its tools, as after npm ci --omit=dev, says what to type', () => {
    const { status, stderr } = run(`${builder()}/scripts/build.mjs`);
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(
        /^build: Inlay is not built, and what would build it \(asc, tsc, rolldown\) .* npm ci --omit=dev\nhint: npm ci && npm prune --omit=dev; .*\n$/,
      ),
    ]);
  });

  test('without its tools leaves what is built as it is', () => {
    const clone = builder();
    for (const name of ['dist/cli.js', 'build/core.wasm']) {
      mkdirSync(path.dirname(`${clone}/${name}`));
      writeFileSync(`${clone}/${name}`, 'built');
    }
    expect(run(`${clone}/scripts/build.mjs`)).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(readFileSync(`${clone}/dist/cli.js`, 'utf8')).toBe('built');
  });
});

describe('raw-socket', () => {
  const versions = { node: '22.23.3', modules: '127' };
  const error = (code: string, message: string) => Object.assign(new Error(message), { code });
  // The words of Node 20 and 22.
  const otherNode = `The module '/x/raw.node'\nwas compiled against a different Node.js version using\nNODE_MODULE_VERSION 115. This version of Node.js requires\nNODE_MODULE_VERSION 127. Please try re-compiling or re-installing\nthe module (for instance, using \`npm rebuild\` or \`npm install\`).`;

  test.each([
    [
      'was built for another Node: this is 22.23.3 (modules version 127)',
      ': npm rebuild raw-socket; or',
      error('ERR_DLOPEN_FAILED', otherNode),
    ],
    [
      'is not installed',
      'npm install raw-socket; or',
      error('ERR_MODULE_NOT_FOUND', "Cannot find package 'raw-socket' imported from /x/load-raw-socket.js"),
    ],
    [
      'did not build here',
      'python3, then npm rebuild raw-socket; or',
      error('MODULE_NOT_FOUND', "Cannot find module './build/Release/raw.node'"),
    ],
  ])('%s', (why, how, cause) => {
    expect(rawSocketMissing(cause, versions)).toMatchObject({
      message: `the portable engine needs the package raw-socket, which ${why}`,
      hint: expect.stringContaining(how),
      exitCode: 1,
    });
  });
});

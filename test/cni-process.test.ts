/** The plugin's process: what it is started with, and what its answer goes to. */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process';
import { closeSync, cpSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { VERSIONS } from '../src/containers/cni/versions.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PLUGIN = `${ROOT}dist/cni.cjs`;

function run(env: Record<string, string>, options: SpawnSyncOptions = {}, words = [PLUGIN]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, words, { env, ...options });
  return { code: status, stdout: String(stdout), stderr: String(stderr) };
}

const VERSION = { CNI_COMMAND: 'VERSION' };
const versions = (cniVersion: string) => `${JSON.stringify({ cniVersion, supportedVersions: VERSIONS })}\n`;

test('VERSION needs nothing but its name', () => {
  expect(run(VERSION, { input: '{"cniVersion":"1.0.0"}' })).toEqual({ code: 0, stdout: versions('1.0.0'), stderr: '' });
  expect(run(VERSION, { stdio: ['ignore', 'pipe', 'pipe'] })).toEqual({
    code: 0,
    stdout: versions('1.1.0'),
    stderr: '',
  });
});

test('an error is on standard output, and is the answer also where nothing can be read', () => {
  const folder = openSync('/', 'r');
  const { code, stdout } = run({ CNI_COMMAND: 'GC' }, { stdio: [folder, 'pipe', 'pipe'] });
  closeSync(folder);
  expect(code).toBe(1);
  expect(JSON.parse(stdout)).toEqual({ cniVersion: '1.1.0', code: 5, msg: 'cannot read standard input: EISDIR' });
});

test('without a command, a person is told what this is', () => {
  const { code, stdout, stderr } = run({}, { input: '' });
  expect(code).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({ code: 4, msg: expect.stringContaining('CNI_COMMAND') });
  expect(stderr).toContain('inlay cni install');
});

test('pipes that do not wait are waited for', () => {
  // Python, whose pipe is made so, writes in two parts.
  const script = `
import json, os, subprocess, sys, time
r, w = os.pipe()
os.set_blocking(r, False)
p = subprocess.Popen(sys.argv[1:], stdin=r, stdout=subprocess.PIPE)
time.sleep(0.3)
os.write(w, b'{"cniVersion":')
time.sleep(0.1)
os.write(w, b'"0.4.0"}')
os.close(w)
sys.stdout.write(p.communicate()[0].decode())
sys.exit(p.returncode)`;
  const { status, stdout } = spawnSync('python3', ['-c', script, process.execPath, PLUGIN], {
    env: { ...process.env, ...VERSION },
  });
  expect([status, String(stdout)]).toEqual([0, versions('0.4.0')]);
});

test('nobody who reads the answer is an error', () => {
  const { status, stderr } = spawnSync('sh', ['-c', '"$@" >/dev/full', 'sh', process.execPath, PLUGIN], {
    env: { ...process.env, ...VERSION },
    input: '',
  });
  expect([status, String(stderr)]).toEqual([1, 'inlay-cni: cannot write standard output: ENOSPC\n']);
});

test('a package that is missing is told to the runtime', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-cni-'));
  try {
    mkdirSync(`${folder}/dist`);
    for (const file of ['package.json', 'dist/cni.cjs', 'dist/cni-library.cjs'])
      cpSync(`${ROOT}${file}`, `${folder}/${file}`);
    const input = '{"cniVersion":"1.1.0","name":"mesh"}';
    const { code, stdout, stderr } = run({ CNI_COMMAND: 'STATUS' }, { input }, [`${folder}/dist/cni.cjs`]);
    expect([code, stderr]).toEqual([1, '']);
    expect(JSON.parse(stdout)).toEqual({
      cniVersion: '1.1.0',
      code: 999,
      msg: 'the package koffi is not installed, or not for this kind of machine',
      details: `install the packages: cd ${folder}/ && npm ci`,
    });
    expect(run(VERSION, { input: '' }, [`${folder}/dist/cni.cjs`]).code).toBe(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what starts for each container is two files and koffi', () => {
  const required = (file: string) =>
    [...readFileSync(`${ROOT}dist/${file}`, 'utf8').matchAll(/\b(?:require|import)\(["']([^"']+)/g)].map(
      ([, name = '']) => name.replace(/^node:/, ''),
    );
  const names = [...required('cni.cjs'), ...required('cni-library.cjs')];
  const [own, builtin] = [names.filter((name) => !isBuiltin(name)), names.filter(isBuiltin)];
  expect([...new Set(own)].sort()).toEqual(['./cni-library.cjs', './cni.cjs', 'koffi']);
  // node:net and node:tty load streams; only where a person types is it known whether to wait.
  expect([...new Set(builtin)].sort()).toEqual(['crypto', 'fs', 'os', 'path', 'tty', 'url']);
});

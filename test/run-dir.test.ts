/** The run directory by itself: what stays in it, what is made anew, and whom it is shared with. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Mesh, readMesh, removeMesh, writeMesh } from '../src/containers/mesh.ts';
import { ask } from '../src/daemon/control.ts';
import { ControlServer } from '../src/daemon/control-server.ts';
import { harmless } from '../src/daemon/harmless.ts';
import { lockRunDir } from '../src/daemon/lock.ts';
import { RunDir, removeIfDone } from '../src/daemon/run-dir.ts';
import { DAEMON, Journal } from '../src/machine/journal.ts';
import type { Thing } from '../src/machine/state.ts';
import { type Address, formatAddress, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';

const route: Thing = { kind: 'route', to: '10.0.0.0/8', metric: 1, protocol: 75 };
const local = parseAddress('192.168.16.32') as Address;
const mapping = new Mapping(parsePrefix('10.0.0.0/8') as Prefix, parsePrefix('192.168.0.0/16') as Prefix);
const mesh: Mesh = { mappings: [mapping], local, mtu: 1476, coolDown: 60 };
const routes = { status: async () => ({ pid: process.pid }) };

let folder: string;
let dir: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-run-dir-'));
  dir = path.join(folder, 'inlay');
});
afterEach(() => rmSync(folder, { recursive: true }));

test('all in it is for its user alone, but the socket, which is for the group, too', async () => {
  const umask = process.umask(0);
  const runDir = await RunDir.open(dir, routes);
  runDir.leaveMesh(mesh);
  process.umask(umask);
  const modes = readdirSync(dir).map((name) => [name, (statSync(path.join(dir, name)).mode & 0o777).toString(8)]);
  const files = { 'journal.jsonl': '600', lock: '600', 'mesh.json': '600' };
  expect(Object.fromEntries(modes)).toEqual({ 'control.sock': '660', ...files });
  expect((statSync(dir).mode & 0o777).toString(8)).toBe('755');
  await runDir.close();
  expect(readdirSync(folder)).toEqual([]);
});

test('one daemon has it, and of the next only what is noted stays', async () => {
  const first = await RunDir.open(dir, routes);
  await expect(RunDir.open(dir, routes)).rejects.toThrow(
    `a daemon runs already with run directory ${dir} (process ${process.pid})`,
  );
  first.journal.add(DAEMON, route);
  first.leaveMesh(mesh);
  await first.close();
  expect(readdirSync(dir).sort()).toEqual(['journal.jsonl', 'mesh.json']);
  const second = await RunDir.open(dir, routes);
  expect(second.lastVm && formatAddress(second.lastVm)).toBe('192.168.16.32');
  expect(second.journal.has(DAEMON, route)).toBe(true);
  writeFileSync(path.join(dir, 'mesh.json'), '{"vm":"192.168.16.32"}');
  expect(second.lastVm).toBeUndefined();
  second.journal.drop(DAEMON, route);
  await second.close();
  expect(readdirSync(folder)).toEqual([]);
});

describe('a directory of a process that was killed as it made or removed it', () => {
  const modeOf = () => (statSync(dir).mode & 0o7777).toString(8);
  beforeEach(() => {
    mkdirSync(dir);
    chmodSync(dir, 0o1700);
  });

  test('goes with the next daemon', async () => {
    const runDir = await RunDir.open(dir, routes);
    expect(modeOf()).toBe('755');
    await runDir.close();
    expect(readdirSync(folder)).toEqual([]);
  });

  test('goes with `down`', async () => {
    writeFileSync(path.join(dir, 'journal.jsonl'), '', { mode: 0o600 });
    expect(removeIfDone({ path: dir, isPassing: true }, new Journal(dir), await lockRunDir(dir, ''))).toBe(true);
    expect(readdirSync(folder)).toEqual([]);
  });

  test('stays where others have put something there', async () => {
    const runDir = await RunDir.open(dir, routes);
    writeFileSync(path.join(dir, 'note'), '');
    await runDir.close();
    expect([modeOf(), readdirSync(dir)]).toEqual(['755', ['note']]);
  });
});

test('what is swept away comes back: the lock, the mesh, a socket, or all', async () => {
  const runDir = await RunDir.open(dir, routes, { echo: async (body) => body });
  expect(await runDir.keep()).toBeUndefined();
  runDir.leaveMesh(mesh);
  expect(await runDir.keep()).toBeUndefined();
  const other = { ...mesh, mappings: [new Mapping(mapping.overlay, parsePrefix('192.168.0.0/17') as Prefix)] };
  const spoils = [() => removeMesh(dir), () => writeMesh(dir, other), () => rmSync(path.join(dir, 'attach.sock'))];
  for (const spoil of spoils) {
    spoil();
    expect(await runDir.keep()).toContain('was swept away');
    expect(readMesh(dir)).toEqual(mesh);
    expect(statSync(path.join(dir, 'attach.sock')).mode & 0o777).toBe(0o600);
  }
  rmSync(path.join(dir, 'lock'));
  expect(await runDir.keep()).toContain('was swept away');
  await expect(RunDir.open(dir, routes)).rejects.toThrow('a daemon runs already');
  rmSync(dir, { recursive: true });
  expect(await runDir.keep()).toContain('was swept away');
  expect(readdirSync(dir).sort()).toEqual(['attach.sock', 'control.sock', 'journal.jsonl', 'lock', 'mesh.json']);
  expect(await ask(dir, 'status')).toEqual({ pid: process.pid });
  await runDir.close();
});

describe('of the version before', () => {
  test('a daemon that runs is found, though it has locked the directory and no file', async () => {
    mkdirSync(dir);
    const before = await ControlServer.listen(dir, routes);
    await expect(RunDir.open(dir, routes)).rejects.toThrow('a daemon runs already');
    expect(await ask(dir, 'status')).toEqual({ pid: process.pid });
    expect(readdirSync(dir)).toEqual(['control.sock']);
    await before.close();
  });

  test('what it noted goes on, with the directory that it named otherwise', async () => {
    symlinkSync('.', path.join(folder, 'link'));
    mkdirSync(dir);
    const line = (thing: Thing) => `${JSON.stringify({ v: 1, op: 'add', owner: 'daemon', thing })}\n`;
    const named: Thing = { kind: 'directory', path: path.join(folder, 'link/inlay') };
    writeFileSync(path.join(dir, 'journal.jsonl'), line(named) + line(route));
    writeFileSync(path.join(dir, 'vm'), '192.168.16.32\n', { mode: 0o644 });
    const runDir = await RunDir.open(path.join(folder, 'link/inlay'), routes);
    expect(runDir.lastVm && formatAddress(runDir.lastVm)).toBe('192.168.16.32');
    runDir.journal.drop(DAEMON, route);
    await runDir.close();
    expect(readdirSync(folder)).toEqual(['link']);
  });
});

test('a journal without a directory reads nothing and makes nothing', () => {
  const journal = new Journal(undefined);
  expect([journal.size, journal.isMissing, journal.isDamaged, journal.entries(DAEMON)]).toEqual([0, true, false, []]);
});

test('a journal that is a link is not followed', async () => {
  const runDir = await RunDir.open(dir, routes);
  runDir.journal.add(DAEMON, route);
  await runDir.close();
  const target = path.join(folder, 'elsewhere');
  writeFileSync(target, 'x');
  rmSync(path.join(dir, 'journal.jsonl'));
  symlinkSync(target, path.join(dir, 'journal.jsonl'));
  expect(() => new Journal(dir)).toThrow('journal.jsonl cannot be read: ELOOP');
  expect(readFileSync(target, 'utf8')).toBe('x');
});

test('what comes over a socket is shown, and not obeyed', () => {
  const wild = { 'a\u001b': ['\u009b31m', 'x\ny', '\u202eabc', 1, null, true] };
  expect(harmless(wild)).toEqual({ 'a\\u001b': ['\\u009b31m', 'x\\u000ay', '\\u202eabc', 1, null, true] });
});

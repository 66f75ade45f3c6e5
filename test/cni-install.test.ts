/** inlay cni install and uninstall, and the shim that they write, before a daemon that only repeats what it is asked. */
import { execFile, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readForm } from '../src/containers/cni/form.ts';
import { type InstallOptions, install, remarks, uninstall } from '../src/containers/cni/install.ts';
import { shimOf } from '../src/containers/cni/shim.ts';
import { InlayError } from '../src/errors.ts';
import { CLI } from './net/mesh.ts';
import { missingCommands, skip } from './net/require.ts';

let folder: string;
let options: InstallOptions;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-cni-'));
  const of = (name: string) => path.join(folder, name);
  options = { binDir: of('bin'), confDir: of('net.d'), name: 'mesh', runDir: '/run/inlay', chain: [] };
});
afterEach(() => rmSync(folder, { recursive: true }));

const shim = () => path.join(options.binDir, 'inlay-cni');
const conflist = () => path.join(options.confDir, '10-inlay.conflist');
const states = (changes: { state: string }[]) => changes.map(({ state }) => state);
/** A plugin that says it speaks these versions. */
function plugin(name: string, versions: readonly string[]): void {
  mkdirSync(options.binDir, { recursive: true });
  const answer = JSON.stringify({ cniVersion: '1.0.0', supportedVersions: versions });
  writeFileSync(path.join(options.binDir, name), `#!/bin/sh\necho '${answer}'\n`, { mode: 0o755 });
}

describe('install', () => {
  test('writes the plugin and a network, once', () => {
    expect(states(install(options, false))).toEqual(['written', 'written']);
    expect(statSync(shim()).mode & 0o777).toBe(0o755);
    expect(statSync(conflist()).mode & 0o777).toBe(0o644);
    expect(JSON.parse(readFileSync(conflist(), 'utf8'))).toEqual({
      cniVersion: '1.0.0',
      cniVersions: ['1.0.0', '1.1.0'],
      name: 'mesh',
      plugins: [{ type: 'inlay-cni', capabilities: { ips: true, mac: true } }],
      signature: expect.stringMatching(/^inlay cni install made this: [\da-f]{32}$/),
    });
    expect(spawnSync('sh', ['-n', shim()]).status).toBe(0);
    expect(states(install(options, false))).toEqual(['there already', 'there already']);
    expect(states(install({ ...options, runDir: '/run/inlay-2' }, false))).toEqual(['replaced', 'replaced']);
    expect(JSON.parse(readFileSync(conflist(), 'utf8')).plugins[0].runDir).toBe('/run/inlay-2');
    expect(readdirSync(folder, { recursive: true }).sort()).toEqual([
      'bin',
      'bin/inlay-cni',
      'net.d',
      'net.d/10-inlay.conflist',
    ]);
  });

  test('chains plugins, and offers only versions that they speak', () => {
    plugin('portmap', ['0.4.0', '1.0.0']);
    install({ ...options, chain: ['portmap'] }, false);
    const content = JSON.parse(readFileSync(conflist(), 'utf8'));
    expect(content.cniVersions).toEqual(['1.0.0']);
    expect(content.plugins.slice(1)).toEqual([{ type: 'portmap', capabilities: { portMappings: true } }]);
    plugin('portmap', ['0.4.0', '1.0.0', '1.1.0']);
    plugin('mine', ['1.1.0']);
    install({ ...options, chain: ['portmap', 'mine'] }, false);
    expect(JSON.parse(readFileSync(conflist(), 'utf8'))).toMatchObject({
      cniVersions: ['1.0.0', '1.1.0'],
      plugins: [{}, {}, { type: 'mine' }],
    });
  });

  test('says what would keep runtimes from using it', () => {
    expect(remarks(options)).toEqual([]);
    mkdirSync(options.confDir);
    for (const name of ['05-other.conflist', '05-readme', '20-later.conf'])
      writeFileSync(path.join(options.confDir, name), '{}');
    expect(remarks({ ...options, chain: ['no-such-plugin'] })).toEqual([
      expect.stringContaining('no-such-plugin is in none of'),
      expect.stringContaining('05-other.conflist comes first'),
    ]);
  });

  test('writes nothing in a dry run', () => {
    const changes = install(options, true);
    expect(changes.map(({ file }) => file)).toEqual([shim(), conflist()]);
    expect(changes[0]?.content).toMatch(/^#!\/bin\/sh\n/);
    expect(readdirSync(folder)).toEqual([]);
  });

  test.each<[name: string, prepare: () => void, message: RegExp]>([
    ["another's plugin", () => plugin('inlay-cni', []), /bin\/inlay-cni is there, and Inlay did not make it/],
    [
      'a link',
      () => {
        mkdirSync(options.binDir);
        symlinkSync('/etc/passwd', shim());
      },
      /inlay-cni is there, and Inlay did not/,
    ],
    ['a folder', () => mkdirSync(conflist(), { recursive: true }), /conflist is there, and Inlay did not/],
    [
      'a plugin that was changed',
      () => {
        install(options, false);
        rmSync(conflist());
        writeFileSync(shim(), `${readFileSync(shim(), 'utf8')}\n`);
      },
      /was changed since Inlay made it/,
    ],
    ['a folder that is none', () => writeFileSync(options.confDir, ''), /cannot be written: (ENOTDIR|EEXIST)/],
  ])('does not overwrite %s', (_, prepare, message) => {
    prepare();
    const before = snapshot();
    expect(() => install(options, false)).toThrow(message);
    if (!existsSync(options.confDir) || statSync(options.confDir).isDirectory()) expect(snapshot()).toEqual(before);
    try {
      install(options, false);
    } catch (error) {
      expect((error as InlayError).hint).toContain('--bin-dir');
      expect(error).toBeInstanceOf(InlayError);
    }
  });
});

test('a network that others have changed stays as it is, and the plugin is written', () => {
  install(options, false);
  rmSync(shim());
  const changed = readFileSync(conflist(), 'utf8').replace('"plugins": [', '"plugins": [{"type":"istio-cni"},');
  writeFileSync(conflist(), changed);
  expect(states(install(options, false))).toEqual(['written', 'left alone, changed since']);
  expect([existsSync(shim()), readFileSync(conflist(), 'utf8')]).toEqual([true, changed]);
});

describe('uninstall', () => {
  test('removes what install wrote, and only that', () => {
    install(options, false);
    writeFileSync(path.join(options.confDir, '87-podman.conflist'), '{}');
    expect(states(uninstall(options, true))).toEqual(['removed', 'removed']);
    expect(existsSync(shim())).toBe(true);
    expect(states(uninstall(options, false))).toEqual(['removed', 'removed']);
    expect(readdirSync(folder, { recursive: true }).sort()).toEqual(['bin', 'net.d', 'net.d/87-podman.conflist']);
    expect(uninstall(options, false)).toEqual([]);
  });

  test('leaves alone what others made or changed', () => {
    install(options, false);
    chmodSync(conflist(), 0o600);
    writeFileSync(conflist(), `${readFileSync(conflist(), 'utf8')}\n`);
    writeFileSync(shim(), '#!/bin/sh\n');
    const before = snapshot();
    expect(states(uninstall(options, false))).toEqual(['left alone, changed since', 'left alone, made by others']);
    expect(snapshot()).toEqual(before);
  });
});

function snapshot(): unknown {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .map((each) => [each.name, each.isFile() ? readFileSync(path.join(each.parentPath, each.name), 'utf8') : ''])
    .sort();
}

describe.skipIf(skip('test/cni-install, the shim', missingCommands('curl')))('the shim', () => {
  const ENV = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'web',
    CNI_NETNS: '/run/netns/c90',
    CNI_IFNAME: 'eth0',
    CNI_ARGS: '',
  };
  let server: http.Server | undefined;
  let forms: ReturnType<typeof readForm>[];

  beforeEach(() => {
    forms = [];
    // Node, as far as the shim is concerned: prints what it gets.
    writeFileSync(path.join(folder, 'node'), `#!/bin/sh\necho "node $1 $CNI_COMMAND <$(cat)>"\nexit 3\n`, {
      mode: 0o755,
    });
    writeFileSync(path.join(folder, 'cni.js'), '');
    const places = { runDir: folder, node: path.join(folder, 'node'), plugin: path.join(folder, 'cni.js') };
    writeFileSync(path.join(folder, 'shim'), shimOf(places, ''), { mode: 0o755 });
    commands('sh', 'cat', 'sed', 'curl');
  });

  /** Makes these the only commands there are. */
  function commands(...names: string[]): void {
    rmSync(path.join(folder, 'commands'), { recursive: true, force: true });
    mkdirSync(path.join(folder, 'commands'));
    for (const name of names) {
      const { stdout } = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' });
      symlinkSync(stdout.trim(), path.join(folder, 'commands', name));
    }
  }

  afterEach(() => server?.closeAllConnections());
  afterEach(() => server?.close());

  async function serve(status: number, answer: string): Promise<void> {
    server = http.createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      expect([request.method, request.url]).toEqual(['POST', '/cni']);
      forms.push(readForm(Buffer.concat(chunks).toString()));
      if (status === 0) request.socket.destroy();
      else response.writeHead(status).end(answer);
    });
    await new Promise<void>((resolve) => server?.listen(path.join(folder, 'attach.sock'), resolve));
  }

  function run(
    config: string,
    env: Record<string, string> = {},
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      const variables = { PATH: path.join(folder, 'commands'), ...ENV, ...env };
      const child = execFile(path.join(folder, 'shim'), { env: variables }, (error, stdout, stderr) => {
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
      });
      child.stdin?.on('error', () => {}); // The shim may end without reading it.
      child.stdin?.end(config);
    });
  }

  const NODE = { code: 3, stdout: `node ${'FOLDER'}/cni.js ADD <{"a":1}>\n` };
  const ofNode = () => ({ ...NODE, stdout: NODE.stdout.replace('FOLDER', folder) });

  test('hands on variables and configuration as they are', async () => {
    await serve(200, '{"cniVersion":"1.0.0"}\n');
    const odd = `@"'\`$(id)&=;\\%\n\t <>äöü${'\u202e'}`;
    const env = { CNI_CONTAINERID: odd, CNI_NETNS: `@${odd}`, CNI_IFNAME: '', CNI_ARGS: 'A=B;C=D&config=x' };
    const config = `{"name":"${odd}","percent":"%41+%0a","long":"${'x'.repeat(300_000)}"}`;
    expect(await run(config, env)).toEqual({ code: 0, stdout: '{"cniVersion":"1.0.0"}\n', stderr: '' });
    // But for the end of its last line.
    expect(forms).toEqual([{ env: { ...ENV, ...env }, config: `${config}\n` }]);
  });

  test('prints nothing where the daemon has nothing to say', async () => {
    await serve(200, '');
    expect(await run('{}', { CNI_COMMAND: 'DEL' })).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test.each([400, 503])('an error of the daemon is the answer: status %i', async (status) => {
    const error = '{"cniVersion":"1.0.0","code":104,"msg":"100 % \\\\n"}\n';
    await serve(status, error);
    expect(await run('{}')).toMatchObject({ code: 1, stdout: error });
  });

  test.each([404, 413])('Node does what the daemon does not: status %i', async (status) => {
    await serve(status, '{"error":"x"}\n');
    expect(await run('{"a":1}')).toMatchObject(ofNode());
  });

  test('Node does it where no daemon is', async () => {
    expect(await run('{"a":1}')).toMatchObject(ofNode());
  });

  test('Node does it where a daemon was killed', async () => {
    await serve(200, '');
    // What a killed process leaves: the name of a socket that nobody listens at.
    const gone = spawnSync(process.execPath, [
      '-e',
      `const s = require('net').createServer(); s.listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`,
      path.join(folder, 'dead'),
    ]);
    expect(gone.signal).toBe('SIGKILL');
    server?.close();
    spawnSync('mv', [path.join(folder, 'dead'), path.join(folder, 'attach.sock')]);
    expect(await run('{"a":1}')).toEqual({ ...ofNode(), stderr: '' });
  });

  test('Node does it where curl is missing', async () => {
    await serve(200, '');
    commands('sh', 'cat', 'sed');
    expect(await run('{"a":1}')).toMatchObject(ofNode());
    expect(forms).toEqual([]);
  });

  test('Node does it where the daemon ends before it has answered', async () => {
    await serve(0, '');
    expect(await run('{"a":1}')).toMatchObject(ofNode());
    expect(forms).toHaveLength(1);
  });

  test('another status is an error to try again', async () => {
    await serve(500, '<html>');
    const { code, stdout } = await run('{}');
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      cniVersion: '1.0.0',
      code: 11,
      msg: expect.stringContaining('did not answer'),
    });
  });

  test.each([
    ['ADD', 11],
    ['DEL', 11],
    ['STATUS', 50],
  ])('without daemon and Node, %s is error %i', async (CNI_COMMAND, expected) => {
    rmSync(path.join(folder, 'node'));
    const { code, stdout } = await run('{}', { CNI_COMMAND });
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      code: expected,
      msg: expect.stringContaining('no daemon attaches containers'),
    });
  });

  test.each([
    ['{"cniVersion":"1.1.0","name":"mesh"}', '1.1.0'],
    ['{"name": "mesh",\n  "cniVersion" : "0.4.0",\n "prevResult": {}}\n', '0.4.0'],
    ['{"args":{},"cniVersion":"0.4.0","prevResult":{"cniVersion":"0.4.0"}}', '0.4.0'],
    ['{"cniVersion":7}', '1.0.0'],
    ['{"cniVersion":"\\"}', '1.0.0'],
    ['', '1.0.0'],
  ])('its own errors are in the version of the configuration %j', async (config, cniVersion) => {
    await serve(500, '');
    const { stdout, stderr } = await run(config);
    expect([JSON.parse(stdout), stderr]).toEqual([expect.objectContaining({ cniVersion, code: 11 }), '']);
    rmSync(path.join(folder, 'attach.sock'));
    rmSync(path.join(folder, 'node'));
    expect(JSON.parse((await run(config)).stdout)).toMatchObject({ cniVersion, code: 11 });
  });

  test('is not misled by proxies and settings', async () => {
    await serve(200, '{"ok":1}\n');
    writeFileSync(path.join(folder, '.curlrc'), 'url = http://127.0.0.1:1/\nfail\n');
    const env = {
      ...{ HOME: folder, http_proxy: 'http://127.0.0.1:1', ALL_PROXY: 'socks5://127.0.0.1:1' },
    };
    expect(await run('{}', env)).toEqual({ code: 0, stdout: '{"ok":1}\n', stderr: '' });
  });
});

describe('the command line', () => {
  const inlay = (...words: string[]) => spawnSync(process.execPath, [CLI, 'cni', ...words], { encoding: 'utf8' });
  const folders = () => ['--bin-dir', options.binDir, '--conf-dir', options.confDir];

  test('a dry run prints what install would write', () => {
    const { status, stdout, stderr } = inlay('install', ...folders(), '--name', 'net', '--dry-run');
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/inlay-cni +to be written\n/);
    expect(stdout).toContain('"name": "net"');
    expect(readdirSync(folder)).toEqual([]);
  });

  test('install, and uninstall twice', () => {
    expect(inlay('install', ...folders(), '--chain', 'no-such-plugin').stderr).toMatch(
      /^warning: the plugin no-such-plugin is in none of/,
    );
    expect(inlay('install', ...folders()).stdout).toMatch(/10-inlay\.conflist +replaced\n/);
    expect(inlay('uninstall', ...folders(), '--dry-run').stdout).toMatch(/10-inlay\.conflist +to be removed\n/);
    expect(inlay('uninstall', ...folders()).stdout).toMatch(/10-inlay\.conflist +removed\n.*inlay-cni +removed\n/);
    expect(inlay('uninstall', ...folders()).stdout).toBe('nothing to remove\n');
  });

  test.each([
    [['--name', 'a/b'], 'expected a letter or digit'],
    [['--chain', 'portmap,,x'], 'expected names of plugins'],
    [['--chain', '../x'], 'expected names of plugins'],
  ])('%j is wrong usage', (words, message) => {
    expect(inlay('install', ...folders(), ...words)).toMatchObject({
      status: 2,
      stderr: expect.stringContaining(message),
    });
  });
});

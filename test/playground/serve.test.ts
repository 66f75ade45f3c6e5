/** `inlay playground`: served to this machine alone, nothing but its files, with a policy that lets nothing else in; or written to a folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FileServer } from '../../src/commands/file-server.ts';
import { PLAYGROUND } from '../../src/installation.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-playground-'));
mkdirSync(`${folder}/site/inner`, { recursive: true });
writeFileSync(`${folder}/secret.txt`, 'secret');
writeFileSync(`${folder}/site/inner/deep.txt`, 'deep');
for (const [name, text] of Object.entries({
  'index.html': '<p>hello',
  'a.js': '1',
  'a.css': 'p{}',
  'a.wasm': '\0asm',
  'a.svg': '<svg/>',
})) {
  writeFileSync(`${folder}/site/${name}`, text);
}

let server: FileServer;
beforeAll(async () => {
  server = await FileServer.open(`${folder}/site`, 0);
});
afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

interface Answer {
  status: number | undefined;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** A request whose path is sent as it is: fetch would put it right. */
function ask(target: string, method = 'GET'): Promise<Answer> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    const request = http.request({ hostname, port, path: target, method }, async (response) => {
      const { statusCode: status, headers } = response;
      resolve({ status, headers, body: Buffer.concat(await response.toArray()).toString() });
    });
    request.on('error', reject).end();
  });
}

test.each([
  ['/', 'text/html; charset=utf-8', '<p>hello'],
  ['/?query', 'text/html; charset=utf-8', '<p>hello'],
  ['/index.html', 'text/html; charset=utf-8', '<p>hello'],
  ['/a.js', 'text/javascript; charset=utf-8', '1'],
  ['/a.css', 'text/css; charset=utf-8', 'p{}'],
  ['/a.wasm', 'application/wasm', '\0asm'],
  ['/a.svg', 'image/svg+xml', '<svg/>'],
])('%s is served as %s', async (target, type, body) => {
  const { status, headers, body: found } = await ask(target);
  expect([status, headers['content-type'], found]).toEqual([200, type, body]);
  expect(headers['x-content-type-options']).toBe('nosniff');
  const { headers: head, body: none } = await ask(target, 'HEAD');
  expect([head['content-length'], none]).toEqual([String(body.length), '']);
});

test('a page may load and ask nothing but what is here, and be in no other page', async () => {
  const policy = (await ask('/')).headers['content-security-policy'];
  expect(String(policy).split('; ')).toEqual([
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    ...["style-src 'self'", "img-src 'self'", "connect-src 'self'"],
    ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
  ]);
});

test.each([
  ...['/../secret.txt', '/..%2fsecret.txt', '/%2e%2e/secret.txt', '/..\\secret.txt', '//etc/passwd', '/inner/deep.txt'],
  ...[
    '/inner',
    '/site/../a.js/../../secret.txt',
    '/a.js/',
    '/__proto__',
    '/constructor',
    '*',
    '/%00',
    'http://other/secret.txt',
  ],
])('%s is not there', async (target) => {
  const { status, headers, body } = await ask(target);
  expect([status, body]).toEqual([404, 'There is no such file.\n']);
  expect(headers['content-type']).toBe('text/plain; charset=utf-8');
});

test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE'])('%s is refused', async (method) => {
  const { status, headers } = await ask('/', method);
  expect([status, headers['allow']]).toEqual([405, 'GET, HEAD']);
});

test('it listens at 127.0.0.1 alone', async () => {
  expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
  const { port } = new URL(server.url);
  const refused = await new Promise((resolve) => {
    const socket = net.connect(Number(port), '127.0.0.2');
    socket
      .on('error', (error) => resolve('code' in error ? error.code : error))
      .on('connect', () => resolve('connected'));
  });
  expect(refused).toBe('ECONNREFUSED');
});

test('a port that is taken, and a folder that is not there, are said', async () => {
  const taken = Number(new URL(server.url).port);
  await expect(FileServer.open(`${folder}/site`, taken)).rejects.toMatchObject({
    code: 'ERR_FAILED',
    message: `cannot listen at 127.0.0.1:${taken}: EADDRINUSE`,
  });
  await expect(FileServer.open(`${folder}/nothing`, 0)).rejects.toMatchObject({
    message: `cannot read ${folder}/nothing: ENOENT`,
  });
});

describe('the command', () => {
  const start = (...words: string[]) => spawn(process.execPath, [CLI, 'playground', ...words]);
  const ended = (child: ChildProcess) =>
    new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)));

  test.each(['SIGTERM', 'SIGINT'] as const)('prints the address, serves, and ends with %s', async (signal) => {
    const child = start();
    const end = ended(child);
    const url = await new Promise<string>((resolve) =>
      child.stdout.once('data', (text) => resolve(String(text).trim())),
    );
    const page = await (await fetch(url)).text();
    expect(page).toBe(readFileSync(`${PLAYGROUND}/index.html`, 'utf8'));
    // With a connection that stays open, too.
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1');
    await new Promise((resolve) => socket.once('connect', resolve));
    socket.on('error', () => {});
    child.kill(signal);
    expect(await end).toBe(0);
  });

  test('writes files that need nothing else', async () => {
    const child = start('--out', `${folder}/new/out`);
    expect(await ended(child)).toBe(0);
    const files = readdirSync(`${folder}/new/out`);
    expect(files.filter((name) => name !== 'inlay-playground.json')).toEqual(readdirSync(PLAYGROUND));
    const page = readFileSync(`${folder}/new/out/index.html`, 'utf8');
    const wanted = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, name]) => name as string);
    expect(wanted.length).toBeGreaterThan(5);
    expect(wanted.filter((name) => !files.includes(name))).toEqual([]);
    for (const name of ['core.wasm', 'core-scalar.wasm']) {
      expect(readFileSync(`${folder}/new/out/${name}`)).toEqual(
        readFileSync(new URL(`../../build/${name}`, import.meta.url)),
      );
    }
  });

  test('says what is wrong with a port or a folder', async () => {
    expect(await ended(start('--port', '70000'))).toBe(2);
    const child = start('--out', `${folder}/secret.txt`);
    let text = '';
    child.stderr.on('data', (chunk) => {
      text += chunk;
    });
    expect(await ended(child)).toBe(1);
    expect(text).toContain(`cannot write the playground to ${folder}/secret.txt: EEXIST`);
    expect(existsSync(`${folder}/secret.txt`)).toBe(true);
  });
});

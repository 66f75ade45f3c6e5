/** The package from its tarball by npm, in a project of somebody else: the core alone, in Node and bundled for a browser. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, preview } from 'vite';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { launchChromium, missingChromium } from '../chromium.ts';
import { FIVE_LINES } from '../five-lines.ts';
import { skip } from '../net/require.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const project = mkdtempSync(path.join(os.tmpdir(), 'inlay-installed-'));
afterAll(() => rmSync(project, { recursive: true }));

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: project, encoding: 'utf8' });
  if (error) throw error;
  expect({ status, said: status === 0 ? '' : stderr + stdout }).toEqual({ status: 0, said: '' });
  return stdout;
}

beforeAll(() => {
  const said = run('npm', 'pack', ROOT, '--json', '--silent', '--ignore-scripts', '--pack-destination', project);
  writeFileSync(`${project}/package.json`, '{ "type": "module", "private": true }\n');
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
  run('npm', 'install', '--ignore-scripts', '--omit=optional', ...quiet, `./${JSON.parse(said)[0].filename}`);
});

test('whoever wants the core alone gets nothing native', () => {
  const packages = readdirSync(`${project}/node_modules`);
  expect(packages).toContain('inlay');
  expect(packages.filter((name) => ['koffi', '@koromix', 'raw-socket', 'nan', 'tuntap2'].includes(name))).toEqual([]);
  writeFileSync(`${project}/five-lines.js`, `${FIVE_LINES}console.log(lengths);\n`);
  expect(run(process.execPath, 'five-lines.js')).toBe('44\n');
});

test('the commands that need no kernel work without koffi, the others say what is missing', () => {
  const inlay = (...args: string[]) => spawnSync(`${project}/node_modules/.bin/inlay`, args, { encoding: 'utf8' });
  expect(inlay('plan', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16')).toMatchObject({ status: 0 });
  const { status, stderr } = inlay('up', '--dry-run', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16');
  expect([status, stderr]).toEqual([
    1,
    expect.stringContaining('hint: install Inlay again with npm, without --omit=optional'),
  ]);
});

test.skipIf(skip('a bundle in a browser', missingChromium()))(
  'a bundle runs in a browser, without a request to anywhere else',
  async () => {
    writeFileSync(`${project}/index.html`, '<!doctype html><script type="module" src="./page.js"></script>\n');
    writeFileSync(`${project}/page.js`, `${FIVE_LINES}document.title = lengths;\n`);
    await build({ root: project, logLevel: 'error', build: { target: 'esnext' } });
    const assets = readdirSync(`${project}/dist/assets`);
    expect(assets.filter((name) => name.endsWith('.wasm')).length).toBe(2);
    const server = await preview({ root: project, logLevel: 'error', preview: { host: '127.0.0.1', port: 0 } });
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      const wrong: string[] = [];
      page.on('pageerror', (error) => wrong.push(error.message));
      page.on('requestfailed', (request) => wrong.push(request.url()));
      const address = server.resolvedUrls?.local[0] as string;
      page.on('request', (request) => request.url().startsWith(address) || wrong.push(request.url()));
      await page.goto(address);
      await page.waitForFunction("document.title !== ''");
      expect([await page.title(), wrong]).toEqual(['44', []]);
    } finally {
      await browser.close();
      await server.close();
    }
  },
);

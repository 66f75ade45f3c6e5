/**
 * Browsers as hosts: a page asks a server on the loopback for one mode after the other, and answers. So nothing of a browser is
 * driven but its start, and each browser is as good as any other.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as setTimer } from 'node:timers/promises';
import { ask, PATIENCE } from './command.mjs';
import { PageServer } from './page-server.mjs';

/** ms, for a browser to open the page, or to end. */
const START = 60_000;

/** How each is started without a window, with a profile of its own, and without a word to anybody but the loopback. */
const BROWSERS = {
  chromium: (profile, url) => [
    'chromium',
    ...['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
    ...['--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'],
    `--user-data-dir=${profile}`,
    url,
  ],
  'firefox-esr': (profile, url) => {
    // A proxy that is not there: Firefox asks it for everything that is not on the loopback.
    const preferences = {
      'network.proxy.type': 1,
      'network.proxy.http': '127.0.0.1',
      'network.proxy.http_port': 9,
      'network.proxy.ssl': '127.0.0.1',
      'network.proxy.ssl_port': 9,
      'app.normandy.enabled': false,
      'datareporting.policy.dataSubmissionEnabled': false,
      'browser.shell.checkDefaultBrowser': false,
    };
    const lines = Object.entries(preferences).map(
      ([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`,
    );
    writeFileSync(path.join(profile, 'user.js'), lines.join(''));
    return ['firefox-esr', '--headless', '--no-remote', '--profile', profile, url];
  },
};

/** With the last that a browser said, but for what it says wherever there is no desktop. */
function fail(problem, stderr) {
  const lines = stderr
    .trim()
    .split('\n')
    .filter((line) => !/dbus/i.test(line));
  throw new Error([problem, ...lines.slice(-3)].join('\n'));
}

/** Starts a browser, one of the above. Throws Missing if it is not there. */
export async function openBrowser(name) {
  const version = (await ask([name, '--version'])).match(/[\d.]+/)?.[0];
  const server = new PageServer();
  const profile = mkdtempSync(path.join(os.tmpdir(), 'inlay-browser-'));
  const url = await server.listen();
  const [command, ...args] = BROWSERS[name](profile, `${url}test/hosts/page.html`);
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr = (stderr + text).slice(-2000);
  });
  const ended = new Promise((resolve) => {
    child.on('error', resolve);
    child.on('close', resolve);
  });
  const close = async () => {
    child.kill();
    const kill = setTimeout(() => child.kill('SIGKILL'), START);
    // It has ended when none of its processes holds the other end of standard error.
    await ended;
    clearTimeout(kill);
    server.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  const ends = ended.then(() => fail('has ended', stderr));
  const fails = Promise.race([ends, server.missing]);
  fails.catch(() => {});
  const late = setTimer(START, undefined, { ref: false }).then(() => fail('has not opened the page', stderr));
  late.catch(() => {});
  try {
    await Promise.race([server.asked, fails, late]);
  } catch (error) {
    await close();
    throw new Error(`${name}: ${error.message}`);
  }
  const hangs = () => setTimer(PATIENCE, { code: -1, stdout: '', stderr: 'the page does not answer' }, { ref: false });
  return { version, run: (words) => Promise.race([server.run(words), fails, hangs()]), close };
}

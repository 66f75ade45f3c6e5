/** Daemons in the scene's namespaces, what they say, and TCP between those namespaces. Runs in User-mode Linux. */
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { OVERLAY, start } from './namespaces.mjs';

export const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const TCP = fileURLToPath(new URL('tcp.mjs', import.meta.url));
/** What SECURITY.md says that the kernel data plane needs, to check sources too. */
export const LEAST = ['setpriv', '--bounding-set=-all,+net_admin,+bpf'];
export const PREFIXES = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];

/** Asks a daemon's control socket itself: starting Node once more takes seconds here. */
export function ask(runDir, what) {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath: `${runDir}/control.sock`, path: `/${what}` }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(JSON.parse(text)));
    });
    request.on('error', reject);
  });
}

/** The daemon's status once it is ready; the machine's own time limit ends a wait in vain. `hasEnded` says that there is none to wait for. */
export async function ready(runDir, hasEnded = () => false) {
  while (!hasEnded()) {
    const found = await ask(runDir, 'status').catch(() => undefined);
    if (found?.state === 'running') return found;
    await setTimeout(100);
  }
  throw new Error(`the daemon of ${runDir} has ended`);
}

/** A daemon in a namespace, whose run directory is named after it, once it is ready. */
export async function up(namespace, ...flags) {
  const runDir = `/run/${namespace}`;
  const wrapper = flags.includes('--dataplane') ? LEAST : [];
  const { child, done } = start(namespace, ...wrapper, 'node', CLI, 'up', ...PREFIXES, '--run-dir', runDir, ...flags);
  let ended = false;
  child.once('close', () => {
    ended = true;
  });
  await ready(runDir, () => ended);
  return {
    status: () => ask(runDir, 'status'),
    tunnels: () => ask(runDir, 'tunnels'),
    signal: (name) => child.kill(name),
    /** Resolves to its exit status, and its log as objects. */
    end: async (signal = 'SIGTERM') => {
      child.kill(signal);
      const { status, stderr } = await done;
      return { exitStatus: status, log: stderr.split('\n').flatMap((line) => (line ? [JSON.parse(line)] : [])) };
    },
  };
}

/** One connection, both directions at once. The transfer counts as failed if it has no end. */
export async function transfer(from, to, bytes) {
  const listener = start(to, 'node', TCP, 'listen', OVERLAY[to], String(bytes));
  await Promise.race([once(listener.child.stderr, 'data'), listener.done]);
  const connector = start(from, 'timeout', '60', 'node', TCP, 'connect', OVERLAY[to], String(bytes));
  const { status, stdout } = await connector.done;
  if (status !== 0) listener.child.kill();
  const other = await listener.done;
  return { from, to, client: parse(stdout), server: parse(other.stdout) };
}

function parse(text) {
  return text === '' ? null : JSON.parse(text);
}

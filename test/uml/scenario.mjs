/**
 * What happens when `inlay up` meets the kernel's own GRE: node scenario.mjs RUNS BYTES. RUNS is a JSON list of { core, key, otherKey, end, connection },
 * one for each daemon; the key null is none, `connection` is who connects to whom. Each TCP transfer carries BYTES each way. Prints one JSON document with what was seen and judges
 * nothing. Runs in User-mode Linux, as root.
 */

import { once } from 'node:events';
import http from 'node:http';
import { release } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as scene from './namespaces.mjs';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const TCP = fileURLToPath(new URL('tcp.mjs', import.meta.url));
const PINGS = 20;
/** Where nothing is to come back, less will do. */
const LOST_PINGS = 5;
const TRANSFER = Number(process.argv[3]);
/** Both ways between the VMs, and between one VM and a container of the other. */
const WAYS = [
  ['kernel', 'inlay'],
  ['inlay', 'kernel'],
  ['kernel', 'container'],
  ['container', 'kernel'],
];

async function pings(ways, count) {
  const found = [];
  for (const [from, to] of ways) found.push(await scene.ping(from, to, count));
  return found;
}

/** One connection, both directions at once. The transfer counts as failed if it has no end. */
async function transfer(from, to) {
  const listener = scene.start(to, 'node', TCP, 'listen', scene.OVERLAY[to], String(TRANSFER));
  await Promise.race([once(listener.child.stderr, 'data'), listener.done]);
  const connector = scene.start(from, 'timeout', '60', 'node', TCP, 'connect', scene.OVERLAY[to], String(TRANSFER));
  const { status, stdout } = await connector.done;
  if (status !== 0) listener.child.kill();
  const other = await listener.done;
  return { from, to, client: parse(stdout), server: parse(other.stdout) };
}

function parse(text) {
  return text === '' ? null : JSON.parse(text);
}

const inlay = (...words) => scene.run('inlay', 'node', CLI, ...words);

/** Asks the daemon's control socket itself: starting Node once more takes seconds here. */
function ask() {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath: '/run/inlay/control.sock', path: '/status' }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(JSON.parse(text)));
    });
    request.on('error', reject);
  });
}

/** The daemon's status once it is ready; the machine's own time limit ends a wait in vain. */
async function status() {
  for (;;) {
    const found = await ask().catch(() => undefined);
    if (found?.state === 'running') return found;
    await setTimeout(100);
  }
}

/** The state of gre0 that `up` has to do with. */
function gre0(lines) {
  const link = lines.find((line) => line.includes(': gre0')) ?? '';
  return {
    up: /<[^>]*\bUP\b/.test(link),
    addresses: lines.filter((line) => /^\d+: gre0 .*\binet6? /.test(line)),
  };
}

async function oneDaemon({ core, key, otherKey, end, connection }) {
  const before = await scene.snapshot();
  const flags = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', '--core', core];
  if (key !== null) flags.push('--key', String(key));
  const daemon = scene.start('inlay', 'node', CLI, 'up', ...flags);
  await status();
  const during = await scene.snapshot();
  const unreachablesBefore = await scene.unreachables();

  const tunnels = [];
  for (const shape of ['point-to-point', 'multipoint']) {
    await scene.makeKernelTunnel(shape, key);
    tunnels.push({ shape, pings: await pings(WAYS, PINGS) });
  }
  const transferred = await transfer(...connection);
  const { drops } = (await status()).inbound;

  // Nothing has the daemon's key now.
  await scene.makeKernelTunnel('point-to-point', otherKey);
  const lost = { pings: await pings(WAYS.slice(0, 2), LOST_PINGS), drops: (await status()).inbound.drops };
  const unreachables = (await scene.unreachables()) - unreachablesBefore;

  daemon.child.kill(end);
  const ended = await daemon.done;
  const down = end === 'SIGKILL' ? await inlay('down') : null;
  const after = await scene.snapshot();
  return {
    ...{ core, key, otherKey, end, tunnels, transfer: transferred, drops, lost, unreachables },
    ...{ gre0: gre0(during), exitStatus: ended.status, down },
    left: [...after.filter((line) => !before.includes(line)), ...before.filter((line) => !after.includes(line))],
  };
}

/** That the kernel does answer with ICMP errors as long as nothing stops it, and that this scene sees them. */
async function withoutDaemon() {
  const before = await scene.unreachables();
  await scene.makeKernelTunnel('point-to-point', null);
  const found = await scene.ping('kernel', 'inlay', LOST_PINGS);
  return { ping: found, unreachables: (await scene.unreachables()) - before };
}

await scene.makeNamespaces();
const control = await withoutDaemon();
const daemons = [];
for (const run of JSON.parse(process.argv[2])) daemons.push(await oneDaemon(run));
process.stdout.write(`${JSON.stringify({ kernel: release(), control, daemons })}\n`);

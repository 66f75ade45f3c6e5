/**
 * What happens when `inlay up` meets the kernel's own GRE: node scenario.mjs RUNS BYTES. RUNS is a JSON list of { core, key, otherKey, end, connection },
 * one for each daemon; the key null is none, `connection` is who connects to whom. Each TCP transfer carries BYTES each way. Prints one JSON document with what was seen and judges
 * nothing. Runs in User-mode Linux, as root.
 */

import { release } from 'node:os';
import { CLI, ready, transfer } from './daemons.mjs';
import * as scene from './namespaces.mjs';

const RUN_DIR = '/run/inlay';
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

const inlay = (...words) => scene.run('inlay', 'node', CLI, ...words);
const status = () => ready(RUN_DIR);

/** The ICMP errors "destination unreachable" that `inlay` has sent. */
const sentUnreachables = () => scene.icmpCounter('inlay', 'OutDestUnreachs');

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
  const unreachablesBefore = await sentUnreachables();

  const tunnels = [];
  for (const shape of ['point-to-point', 'multipoint']) {
    await scene.makeKernelTunnel(shape, key);
    tunnels.push({ shape, pings: await pings(WAYS, PINGS) });
  }
  const transferred = await transfer(...connection, TRANSFER);
  const { drops } = (await status()).inbound;

  // Nothing has the daemon's key now.
  await scene.makeKernelTunnel('point-to-point', otherKey);
  const lost = { pings: await pings(WAYS.slice(0, 2), LOST_PINGS), drops: (await status()).inbound.drops };
  const unreachables = (await sentUnreachables()) - unreachablesBefore;

  daemon.child.kill(end);
  const ended = await daemon.done;
  const stayed = scene.difference(before, await scene.snapshot());
  const down = await inlay('down');
  const after = await scene.snapshot();
  return {
    ...{ core, key, otherKey, end, tunnels, transfer: transferred, drops, lost, unreachables },
    ...{ gre0: gre0(during), exitStatus: ended.status, stayed, down },
    left: scene.difference(before, after),
  };
}

/** That the kernel does answer with ICMP errors as long as nothing stops it, and that this scene sees them. */
async function withoutDaemon() {
  const before = await sentUnreachables();
  await scene.makeKernelTunnel('point-to-point', null);
  const found = await scene.ping('kernel', 'inlay', LOST_PINGS);
  return { ping: found, unreachables: (await sentUnreachables()) - before };
}

await scene.makeNamespaces();
const control = await withoutDaemon();
const daemons = [];
for (const run of JSON.parse(process.argv[2])) daemons.push(await oneDaemon(run));
process.stdout.write(`${JSON.stringify({ kernel: release(), control, daemons })}\n`);

/**
 * The neighbour daemon: first packets to new VMs, all VMs of a /16 at once, requests for nonsense, others' changes, and coming back. Everything happens in
 * namespaces of its own, which are gone afterwards.
 */
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { requireCommands } from '../dist/demo/lab.js';
import { kernelMemory, LOCAL, World } from './neighbours/world.mjs';
import { median, quantile } from './statistics.mjs';

const { encapsulation, vms } = new Command('bench:neighbours')
  .description('Measures the neighbour daemon of the kernel data plane.')
  .addOption(new Option('--encapsulation <format>', 'the device').choices(['vxlan', 'gre']).default('vxlan'))
  .option('--vms <number>', 'all VMs, at most 65534', Number, 65_534)
  .parse()
  .opts();

const FIRST = Math.min(10_000, vms);
const RATE = 1000;
const CONTAINER = 91;

/** The VMs of a /16, this one and the network's own addresses apart, in an order that is the same each time. */
const others = Array.from({ length: 65_536 }, (_, k) => (k * 40_503) & 0xffff)
  .filter((k) => k !== (LOCAL & 0xffff) && k !== 0 && k !== 0xffff && k !== 0xfffe)
  .slice(0, vms);
const containers = others.map((k) => ((10 << 24) | (k << 8) | CONTAINER) >>> 0);
/** Outside the overlay, and led to its device all the same: each of them is asked for again and again. */
const strangers = Array.from({ length: 131_072 }, (_, i) => ((172 << 24) | (16 << 16)) + i).map((n) => n >>> 0);

const rows = [];
function tell(what, value) {
  rows.push([what, value]);
  process.stderr.write(`${what}: ${value}\n`);
}

async function withWorld(work) {
  const world = await World.make(encapsulation);
  try {
    await world.startDaemon();
    await work(world);
  } finally {
    await world.close();
  }
}

/** Sends to each address; answers how many packets came, and their times in ms. */
async function deliver(world, addresses, rate) {
  const { seconds, errors } = await world.sender('send', { addresses, rate });
  await sleep(1500);
  const times = await world.receiver('collect');
  return { sent: addresses.length, lost: addresses.length - times.length, seconds, errors, times };
}

const ms = (value) => `${value.toFixed(3)} ms`;
const times = ({ times }) => `median ${ms(median(times))}, 99 % ${ms(quantile(times, 0.99))}`;

async function installRest(world) {
  const before = { kernel: kernelMemory(), daemon: await world.memory() };
  const rest = await deliver(world, containers.slice(FIRST), 5000);
  const { tunnels } = await world.status();
  tell(`${tunnels} VMs installed`, `${rest.lost} of ${rest.sent} first packets lost at 5,000 a second`);
  const count = Math.max(tunnels - FIRST, 1);
  const bytes = (now, then) => `${Math.round((now - then) / count)} bytes a VM`;
  tell(
    'memory',
    `kernel ${bytes(kernelMemory(), before.kernel)}, daemon ${bytes(await world.memory(), before.daemon)}`,
  );
}

await requireCommands('ip', 'unshare', 'nsenter');

await withWorld(async (world) => {
  const first = await deliver(world, containers.slice(0, FIRST), RATE);
  tell(`first packets to ${FIRST} VMs, ${RATE} a second`, `${first.lost} lost, ${times(first)}`);
  const again = await deliver(world, containers.slice(0, FIRST), RATE);
  tell('the same again, VMs known', `${again.lost} lost, ${times(again)}`);

  if (containers.length > FIRST) await installRest(world);

  const one = await deliver(
    world,
    Array.from({ length: 100_000 }, () => containers[7]),
    0,
  );
  const all = await deliver(
    world,
    Array.from({ length: 100_000 }, (_, i) => containers[(i * 7919) % containers.length]),
    0,
  );
  tell(
    'sending to all VMs in turn / to one',
    `${(one.seconds / all.seconds).toFixed(2)} of the rate (${Math.round(100 / one.seconds)} kpps)`,
  );

  await world.killDaemon();
  const { ms: ready, compared } = await world.startDaemon();
  tell(
    'after kill -9',
    `ready in ${Math.round(ready)} ms; ${compared.vms} VMs compared in ${compared.ms} ms, ${compared.repaired} repaired`,
  );
});

await withWorld(async (world) => {
  const before = await world.status();
  await world.leadToDevice('172.16.0.0/12');
  const { seconds } = await world.sender('send', { addresses: strangers, rate: 0 });
  await sleep(2000);
  const after = await world.status();
  const refused = after.neighbours.refused - before.neighbours.refused;
  tell(
    'requests for addresses of nobody',
    `${Math.round(refused / seconds)} refused a second (${Math.round(strangers.length / seconds)} packets sent)`,
  );
});

await withWorld(async (world) => {
  const other = await world.agent('vm');
  const churning = other('churn', { device: 'other0', ms: 6000 });
  const first = await deliver(world, containers.slice(0, 5000), RATE);
  const changes = await churning;
  const { neighbours, tunnels } = await world.status();
  const told = `${first.lost} lost, ${times(first)}; ${tunnels} VMs, ${neighbours.resyncs - 1} comparisons`;
  tell(`first packets to 5000 VMs beside ${Math.round(changes / 6)} foreign changes a second`, told);
});

const width = Math.max(...rows.map(([what]) => what.length));
process.stdout.write(
  `${encapsulation}, one machine of ${os.cpus().length} cores; ${new Date().toISOString().slice(0, 10)}, Linux ${os.release()}, Node ${process.version}\n\n`,
);
for (const [what, value] of rows) process.stdout.write(`${what.padEnd(width)}  ${value}\n`);

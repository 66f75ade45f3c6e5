/**
 * Makes each fault of test/net/faults/table.mjs many times, at random moments, under traffic. Tells how long the repairs take, how many packets left in plain, and
 * how many foreign objects changed. Everything happens in namespaces of its own, which are gone afterwards.
 */
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { requireCommands } from '../dist/demo/lab.js';
import { Rig } from '../test/net/faults/rig.mjs';
import { FAULTS } from '../test/net/faults/table.mjs';
import { PLANES } from '../test/net/planes.mjs';
import { seeded } from '../test/net/seeded.mjs';
import { median, table } from './statistics.mjs';

/** A fault that takes longer counts as not put right, in ms. */
const LIMIT = 5000;
/** Longest pause before a fault, in ms. */
const CALM = 100;

function positive(text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a number, 1 or more');
  return value;
}

function planeNames(text) {
  const names = text.split(',');
  const unknown = names.find((name) => !Object.hasOwn(PLANES, name));
  if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}": expected some of ${Object.keys(PLANES)}`);
  return names;
}

const { rounds, minutes, plane, only, seed } = new Command('bench:faults')
  .description('Measures how long faults of the network take to be put right.')
  .option('--rounds <number>', 'how often each fault is made', positive, 100)
  .option('--minutes <number>', 'of all together: fewer rounds if they take longer', positive, 15)
  .option('--plane <names>', `some of ${Object.keys(PLANES)} (default: all)`, planeNames, Object.keys(PLANES))
  .option('--only <text>', 'faults with this in their name', '')
  .option('--seed <number>', 'of the moments', positive, Date.now() % 1_000_000)
  .parse()
  .opts();

requireCommands('ip', 'unshare', 'nsenter', 'tc', 'nft');
const random = seeded(seed);

/** Makes one fault, and adds to its row what came of it. False if the VM is beyond repair. */
async function makeFault(rig, name, fault, row) {
  await sleep(random() * CALM);
  row.made++;
  try {
    row.times.push(...(await rig.inject(fault, LIMIT)));
  } catch (error) {
    row.failed++;
    if (row.failed === 1) process.stderr.write(`${name}: ${error.message.split('\n').slice(0, 4).join('\n  ')}\n`);
    try {
      await rig.reset();
    } catch (cause) {
      process.stderr.write(`${name}: given up after "${fault.name}": ${cause.message}\n`);
      return false;
    }
  }
  row.plain += await rig.newPlain();
  return true;
}

/** All rounds of one data plane until `deadline`: the times of each fault by its name, and totals. */
async function measure(name, deadline) {
  const rig = await Rig.open(name, minutes + 1);
  const faults = FAULTS.filter((fault) => fault.planes.includes(name) && fault.name.includes(only));
  const rows = new Map(faults.map((fault) => [fault.name, { made: 0, times: [], failed: 0, plain: 0 }]));
  const changed = new Set();
  let done = 0;
  try {
    await rig.start();
    await rig.newPlain();
    let goesOn = true;
    for (; goesOn && done < rounds; done++) {
      for (const fault of faults) {
        goesOn &&= performance.now() < deadline && (await makeFault(rig, name, fault, rows.get(fault.name)));
      }
      for (const line of await rig.changed()) changed.add(line);
      process.stderr.write(`[${done + 1}/${rounds}] ${name}\n`);
    }
    const status = await rig.status().catch(() => undefined);
    const errors = rig.logged('error').length;
    return { name, rows, done, changed, repaired: status?.repaired, foreign: rig.foreign.length, errors };
  } finally {
    await rig.close();
  }
}

const ms = (value) => (value === undefined ? '-' : value.toFixed(0));
const worst = (values) => (values.length > 0 ? Math.max(...values) : undefined);
const middle = (values) => (values.length > 0 ? median(values) : undefined);

function tell({ name, rows, done, changed, repaired, foreign, errors }) {
  const head = [
    name,
    'made',
    'median ms',
    'worst ms',
    'traffic, median ms',
    'worst ms',
    'lost',
    'not put right',
    'plain',
  ];
  const lines = [...rows].map(([fault, { made, times, failed, plain }]) => {
    const [states, traffic] = [times.map(({ state }) => state), times.map((each) => each.traffic)];
    const lost = middle(times.map((each) => each.lost));
    const figures = [made, middle(states), worst(states), middle(traffic), worst(traffic), lost];
    return [fault, ...figures.map(ms), String(failed), String(plain)];
  });
  process.stdout.write(`${table([head, ...lines])}\n`);
  const total = [...rows.values()].reduce((sum, { plain }) => sum + plain, 0);
  process.stdout.write(
    `${name}: ${done} rounds, ${total} packets in plain, ${changed.size} of ${foreign} foreign objects changed, ${repaired} repaired, ${errors} errors logged\n\n`,
  );
  for (const line of changed) process.stderr.write(`changed: ${line.slice(0, 200)}\n`);
}

process.stdout.write(
  `one machine of ${os.cpus().length} cores; ${new Date().toISOString().slice(0, 10)}, Linux ${os.release()}, Node ${process.version}; seed ${seed}\n\n`,
);
const end = performance.now() + minutes * 60_000;
for (const [i, name] of plane.entries()) {
  const now = performance.now();
  tell(await measure(name, now + (end - now) / (plane.length - i)));
}

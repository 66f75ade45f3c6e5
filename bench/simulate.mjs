/**
 * Meshes far larger than this machine: VMs with memory devices between them take turns on one core (simulate/simulation.mjs says how). Traffic between random containers,
 * over a network that loses, copies, delays and narrows; VMs that vanish; spoofers. Ends with 1 if an invariant does not hold. What happens follows from the seed alone.
 */
import { fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { chart } from './simulate/chart.mjs';
import { MOST_CONTAINERS, MOST_VMS } from './simulate/mesh.mjs';
import { report } from './simulate/report.mjs';

function whole(least, most) {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`expected a whole number, ${least} to ${most}`);
  };
}

function percent(text) {
  const value = Number(text);
  if (text !== '' && value >= 0 && value <= 100) return value;
  throw new InvalidArgumentError('expected per cent, 0 to 100');
}

const sizes = (text) => text.split(',').map(whole(1, MOST_VMS));

const { chart: file, ...options } = new Command('simulate')
  .description('Simulates meshes of many VMs, and checks what became of every packet.')
  .option('--vms <numbers>', `one mesh after the other, 1 to ${MOST_VMS} VMs`, sizes, [1, 1000, MOST_VMS])
  .option('--packets <number>', 'that containers send in each', whole(1, 100e6), 1_000_000)
  .option('--containers <number>', 'on each VM', whole(1, MOST_CONTAINERS), 16)
  .option('--seed <number>', 'from which all else follows', whole(0, 2 ** 32 - 1), 1)
  .option('--loss <percent>', 'of packets that the network loses', percent, 0.5)
  .option('--copy <percent>', 'of packets that it brings twice', percent, 0.1)
  .option('--reorder <percent>', 'of packets that it brings late or early', percent, 1)
  .option('--narrow <percent>', 'of paths that take less than 1,500 bytes, now and then', percent, 5)
  .option('--vanish <percent>', 'of VMs that vanish in each eighth of the time, and come back empty', percent, 2)
  .option('--spoofers <percent>', 'of VMs that forge packets', percent, 1)
  .addOption(new Option('--core <name>', 'of all VMs').choices(['wasm', 'scalar', 'typescript']).default('wasm'))
  .option('--chart <file>', 'writes a chart of what a packet costs as VMs grow, as SVG')
  .parse()
  .opts();

/** Runs one mesh in a process of its own, so that its memory is its own. */
function simulate(vms) {
  const child = fork(new URL('./simulate/process.mjs', import.meta.url), { serialization: 'advanced' });
  child.send({ ...options, vms });
  return new Promise((resolve, reject) => {
    child.on('message', (run) => {
      process.stderr.write(`${vms} VMs: ${run.seconds.toFixed(1)} s\n`);
      resolve(run);
    });
    child.on('error', reject);
    child.on('exit', (code, signal) => reject(new Error(`the simulation of ${vms} VMs ended with ${signal ?? code}`)));
  });
}

try {
  const runs = [];
  for (const vms of options.vms) runs.push(await simulate(vms));
  const cores = os.cpus();
  const machine = `Node ${process.version}, ${cores[0]?.model.trim() ?? 'unknown CPU'}, ${cores.length} cores`;
  const { text, failures } = report(runs, options, machine);
  process.stdout.write(text);
  if (file) writeFileSync(file, chart(runs, options, `${machine}. ${new Date().toISOString().slice(0, 10)}`));
  for (const failure of failures) process.stderr.write(`${failure}\n`);
  process.exitCode = failures.length > 0 ? 1 : 0;
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}

/**
 * One VM full of containers: what attaching and detaching take beside the kernel alone, as their number grows;
 * whether all can be reached; what they cost in memory, throughput and the daemon's start; and containers that
 * come and go. Everything that it made is gone afterwards.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { requireCommands } from '../dist/demo/lab.js';
import { chart } from './density/chart.mjs';
import { measure } from './density/measure.mjs';
import { report } from './density/report.mjs';
import { openLab, World } from './density/world.mjs';

function wholeFrom(least, most = Number.MAX_SAFE_INTEGER) {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`expected a number, ${least} or more${most < 1e9 ? `, ${most} at most` : ''}`);
  };
}

const { json, from, ...options } = new Command('bench:density')
  .description('Measures a VM with very many containers.')
  .option('--containers <number>', 'on one VM', wholeFrom(100, World.capacity), 1000)
  .option('--rounds <number>', 'attaches at each number, of us and of the kernel alone', wholeFrom(31), 100)
  .option('--seconds <number>', 'of each test of throughput', wholeFrom(1), 3)
  .option('--churn <seconds>', 'containers come and go for so long', wholeFrom(0), 0)
  .option('--rate <number>', 'of them a second', wholeFrom(1), 50)
  .option('--present <number>', 'that stay meanwhile', wholeFrom(1), 4000)
  .addOption(new Option('--dataplane <name>', 'of all VMs').choices(['wasm', 'kernel']).default('wasm'))
  .option('--json <file>', 'writes what was measured')
  .option('--chart <file>', 'writes a chart of attaching, as SVG')
  .option('--from <file>', 'measures nothing: reads what --json wrote')
  .parse()
  .opts();

/** What is measured goes on in a lab, which ends with us: also by a signal. */
async function measured() {
  process.env.PATH += ':/usr/sbin:/sbin';
  requireCommands('ip', 'unshare', 'nsenter', 'iperf3', 'timeout');
  const lab = await openLab();
  for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }))
    process.once(signal, () => void lab.close().then(() => process.exit(code)));
  try {
    const result = await measure(lab, options, (line) => process.stderr.write(`${line}\n`));
    return {
      ...{ date: new Date().toISOString(), kernel: os.release(), node: process.version },
      ...{ cpu: os.cpus()[0]?.model.trim() ?? 'unknown CPU', cores: os.cpus().length },
      ...{ options, ...result },
    };
  } finally {
    await lab.close();
  }
}

try {
  const result = from ? JSON.parse(readFileSync(from, 'utf8')) : await measured();
  if (json) writeFileSync(json, `${JSON.stringify(result)}\n`);
  if (options.chart) writeFileSync(options.chart, chart(result));
  const { text, failures } = report(result);
  process.stdout.write(text);
  for (const failure of failures) process.stderr.write(`${failure}\n`);
  process.exit(failures.length > 0 ? 1 : 0);
} catch (error) {
  process.stderr.write(`${error.stack}\n${error.hint ? `  ${error.hint}\n` : ''}`);
  process.exit(1);
}

/**
 * The whole overlay beside the kernel's vxlan: two VMs in namespaces of their own, joined by a veth; TCP, small UDP packets, round
 * trips and the daemons' CPU time. Peers take turns, each in a fresh lab, so that a busy minute hits all of them; the ratios are what
 * to quote. Everything that it made is gone afterwards.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { requireCommands } from '../dist/demo/lab.js';
import { closeOnSignals, inLab } from './lab.mjs';
import { QUIET } from './machine.mjs';
import { chart } from './overlay/chart.mjs';
import { measure } from './overlay/measure.mjs';
import { PEERS, peersFor } from './overlay/peers.mjs';
import { conditions, overlayTable } from './overlay/report.mjs';
import { joinVms } from './overlay/vms.mjs';
import { namesOf } from './rows.mjs';

function positive(text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a number, 1 or more');
  return value;
}

function peerNames(text) {
  const names = text.split(',');
  const unknown = names.find((name) => !Object.hasOwn(PEERS, name));
  if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}": expected some of ${Object.keys(PEERS)}`);
  return names;
}

const { rounds, seconds, nic, json, from, ...options } = new Command('bench:overlay')
  .description('Measures Inlay beside kernel vxlan, between two VMs in namespaces of their own.')
  .option('--peers <names>', `some of ${Object.keys(PEERS)} (default: all)`, peerNames)
  .option('--rounds <number>', 'how often each peer is measured', positive, 3)
  .option('--seconds <number>', 'of each TCP test; UDP takes half of it a step', positive, 4)
  .addOption(
    new Option('--nic <kind>', 'whole: super-packets cross the veth; cut: in software before it, merged behind it')
      .choices(['whole', 'cut'])
      .default('whole'),
  )
  .option('--json <file>', 'writes what was measured')
  .option('--chart <file>', 'writes a bar chart, as SVG')
  .option('--from <file>', 'measures nothing: reads what --json wrote')
  .parse()
  .opts();

async function measureOnce(round, name) {
  const row = await inLab(async (lab) => measure(lab, await joinVms(lab, PEERS[name], nic), seconds));
  return { round, peer: name, ...row };
}

async function measureAll() {
  // Where an ordinary user's shell does not look for ethtool.
  process.env.PATH += ':/usr/sbin:/sbin';
  requireCommands('ip', 'unshare', 'nsenter', 'ping', 'iperf3', 'ethtool', 'timeout');
  closeOnSignals();
  const rows = [];
  for (let round = 1; round <= rounds; round++) {
    for (const name of options.peers ?? peersFor(nic)) {
      const row = await measureOnce(round, name);
      rows.push(row);
      process.stderr.write(`[${round}/${rounds}] ${PEERS[name].label}: ${progress(row)}\n`);
    }
  }
  return {
    date: new Date().toISOString(),
    kernel: os.release(),
    node: process.version,
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown CPU',
    ...{ cores: os.cpus().length, nic, rounds, seconds, rows },
  };
}

function progress({ error, tcp1, tcp4, udp, rtt }) {
  if (error) return `failed: ${error}`;
  return `TCP ${tcp1.toFixed(2)} and ${tcp4.toFixed(2)} Gbit/s, UDP ${udp.toFixed(0)} kpps, RTT ${rtt.toFixed(0)} us`;
}

try {
  const result = from ? JSON.parse(readFileSync(from, 'utf8')) : await measureAll();
  if (json) writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
  if (options.chart) writeFileSync(options.chart, chart(result));
  process.stdout.write(`${conditions(result)}\n\n${overlayTable(result)}`);
  const busy = Math.max(0, ...result.rows.map(({ background }) => background ?? 0));
  if (busy > QUIET) process.stderr.write(`something else used up to ${busy.toFixed(1)} cores: measure again\n`);
  const failed = result.rows.filter(({ error }) => error);
  if (failed.length > 0) {
    process.stderr.write(`failed at least once: ${namesOf(failed)}\n`);
    process.exitCode = 1;
  }
} catch (error) {
  process.stderr.write(`${error.message}\n${error.hint ? `  ${error.hint}\n` : ''}`);
  process.exitCode = 1;
}

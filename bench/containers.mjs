/**
 * Container to container: over two VMs in namespaces of their own, and on one VM; beside kernel vxlan and beside routing without
 * any overlay. Then a VM that sends to 65,533 others, and one that has 8,189 containers. Peers take turns with each test; the ratios
 * are what to quote. Everything that it made is gone afterwards.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { requireCommands } from '../dist/demo/lab.js';
import { chart } from './containers/chart.mjs';
import { joinContainers } from './containers/join.mjs';
import { manyContainers } from './containers/many-containers.mjs';
import { manyVms } from './containers/many-vms.mjs';
import { takeTurns } from './containers/measure.mjs';
import { CONTAINERS, LOCAL_PEERS, NEIGHBOURS, PEERS, possible } from './containers/peers.mjs';
import { report } from './containers/report.mjs';
import { buildTraffic } from './containers/traffic.mjs';
import { closeOnSignals, inLab, inLabs } from './lab.mjs';
import { QUIET } from './machine.mjs';

const DOCUMENT = fileURLToPath(new URL('../docs/performance.md', import.meta.url));
const CHART = fileURLToPath(new URL('../docs/containers.svg', import.meta.url));
const MARKERS = /(<!-- containers -->\n).*(<!-- \/containers -->)/s;
/** What is measured: over two VMs with super-packets whole and cut; on one VM; with very many VMs; with very many containers. */
const PARTS = ['whole', 'cut', 'local', 'vms', 'containers'];

function positive(text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a number, 1 or more');
  return value;
}

function someOf(all) {
  return (text) => {
    const names = text.split(',');
    const unknown = names.find((name) => !all.includes(name));
    if (unknown !== undefined) throw new InvalidArgumentError(`"${unknown}": expected some of ${all}`);
    return names;
  };
}

const { rounds, seconds, nic, only, peers, json, write, from } = new Command('bench:containers')
  .description('Measures packets from container to container, beside kernel vxlan and plain routing.')
  .option('--rounds <number>', 'how often each is measured', positive, 5)
  .option('--seconds <number>', 'of each test', positive, 1)
  .addOption(
    new Option(
      '--nic <kind>',
      'whole: super-packets cross the veth; cut: in software before it, merged behind it; both',
    )
      .choices(['whole', 'cut', 'both'])
      .default('both'),
  )
  .option('--only <parts>', `some of ${PARTS} (default: all)`, someOf(PARTS))
  .option('--peers <names>', `over two VMs, some of ${Object.keys(PEERS)} (default: all)`, someOf(Object.keys(PEERS)))
  .option('--json <file>', 'writes what was measured')
  .option('--write', 'writes the tables into docs/performance.md, and docs/containers.svg')
  .option('--from <file>', 'measures nothing: reads what --json wrote')
  .parse()
  .opts();

function say(line) {
  process.stderr.write(`${line}\n`);
}

/** Rows of peers that are made by `join`, each in a lab of its own. */
function compare(what, table, names, join) {
  const peers = names.map((name) => ({ name, ...table[name] }));
  const tell = ({ round, peer, ...row }) => say(`${what} [${round}/${rounds}] ${table[peer].label}: ${progress(row)}`);
  return inLabs(names.length, (labs) => takeTurns({ labs, peers, join, rounds, seconds, tell }));
}

function progress({ error, tcp1, tcp4, udp, rtt, exchanges, cpu }) {
  if (error) return `failed: ${error}`;
  return (
    `TCP ${tcp1.toFixed(1)} and ${tcp4.toFixed(1)} Gbit/s, UDP ${udp.toFixed(0)} kpps, RTT ${rtt.toFixed(1)} us, ` +
    `${exchanges.toFixed(1)} k requests/s, ${cpu.toFixed(2)} s/GB`
  );
}

async function measureAll() {
  const start = performance.now();
  // Where an ordinary user's shell does not look for ethtool.
  process.env.PATH += ':/usr/sbin:/sbin';
  requireCommands('ip', 'unshare', 'nsenter', 'ping', 'iperf3', 'ethtool', 'timeout', 'sysctl', 'nft', 'gcc');
  closeOnSignals();
  buildTraffic();
  const parts = (only ?? PARTS).filter((part) => nic === 'both' || !['whole', 'cut'].includes(part) || part === nic);
  const result = { date: new Date().toISOString(), kernel: os.release(), node: process.version };
  Object.assign(result, { cpu: os.cpus()[0]?.model.trim() ?? 'unknown CPU', cores: os.cpus().length, rounds, seconds });
  const isOverVms = parts.some((part) => ['whole', 'cut'].includes(part));
  const { names, skipped } = await inLab((lab) => possible(lab, isOverVms ? (peers ?? Object.keys(PEERS)) : []));
  result.skipped = skipped;
  for (const { peer, why } of skipped) say(`${PEERS[peer].label}: skipped: ${why}`);
  const here = LOCAL_PEERS;
  const measured = {
    whole: () => compare('whole', PEERS, names, (lab, peer) => joinContainers(lab, peer, CONTAINERS, 'whole')),
    cut: () => compare('cut', PEERS, names, (lab, peer) => joinContainers(lab, peer, CONTAINERS, 'cut')),
    local: () =>
      compare('one VM', here, Object.keys(here), (lab, peer) => joinContainers(lab, peer, NEIGHBOURS, 'whole')),
    vms: () => inLab((lab) => manyVms(lab, { rounds, seconds }, say)),
    containers: () => inLab((lab) => manyContainers(lab, { rounds, seconds }, say)),
  };
  for (const part of parts) result[part] = await measured[part]();
  say(`${((performance.now() - start) / 60_000).toFixed(1)} min`);
  return result;
}

try {
  const result = from ? JSON.parse(readFileSync(from, 'utf8')) : await measureAll();
  if (json) writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`);
  const { text, failures, background } = report(result);
  process.stdout.write(text);
  if (background > QUIET) say(`something else used up to ${background.toFixed(1)} cores: measure again`);
  for (const failure of failures) say(failure);
  if (failures.length > 0) process.exitCode = 1;
  if (write) {
    const before = readFileSync(DOCUMENT, 'utf8');
    writeFileSync(
      DOCUMENT,
      before.replace(MARKERS, (_, begin, end) => `${begin}${text}${end}`),
    );
    if (result.whole ?? result.cut) writeFileSync(CHART, chart(result));
  }
} catch (error) {
  process.stderr.write(`${error.message}\n${error.hint ? `  ${error.hint}\n` : ''}`);
  process.exitCode = 1;
}

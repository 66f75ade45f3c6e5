/**
 * The CNI plugin as a runtime runs it: what ADD and DEL take with Node alone, and through a daemon that
 * attaches, in turns. Beside them stands cat(1): what starting any process takes.
 */
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { Lab, requireCommands } from '../dist/demo/lab.js';
import { Mesh } from '../dist/demo/mesh.js';
import { parsePrefix } from '../dist/mesh/address.js';
import { Mapping } from '../dist/mesh/mapping.js';
import { told } from '../test/net/faults/told.mjs';
import { busyCores } from './density/world.mjs';
import { median, quantile, table } from './statistics.mjs';

const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const PLUGIN = fileURLToPath(new URL('../dist/cni.cjs', import.meta.url));
const RUNTIME = fileURLToPath(new URL('cni/runtime.mjs', import.meta.url));
const MAPPING = new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'));
/** Runs before anything counts. */
const WARM_UP = 5;

const { rounds } = new Command('bench:cni')
  .description('Measures the CNI plugin, which a container runtime starts for each container.')
  .option('--rounds <number>', 'of each way', wholeNumber, 50)
  .parse()
  .opts();

function wholeNumber(text) {
  if (/^[1-9]\d{0,4}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('expected a number, 1 or more');
}

async function measure(lab) {
  const plan = { mapping: MAPPING, vms: 1, containersPerVm: 0, flags: ['--attach', 'on', '--address-cool-down', '0s'] };
  const [vm] = (await Mesh.start(lab, plan)).vms;
  const folder = `${vm.runDir}.cni`;
  const install = ['cni', 'install', '--run-dir', vm.runDir, '--bin-dir', folder, '--conf-dir', folder];
  await lab.must(vm.name, [process.execPath, CLI, ...install]);
  await lab.ip(undefined, ['netns add container']);
  const runtime = await told(lab, vm.name, RUNTIME);
  const config = JSON.stringify({ cniVersion: '1.1.0', name: 'mesh', type: 'inlay-cni', runDir: vm.runDir });
  const ways = {
    'Node alone': [process.execPath, PLUGIN],
    'through the daemon': [`${folder}/inlay-cni`],
    'cat, which does nothing else': ['/bin/cat'],
  };
  const taken = Object.fromEntries(Object.keys(ways).map((way) => [way, { ADD: [], DEL: [] }]));
  for (let i = 0; i < WARM_UP + rounds; i++) {
    for (const [way, plugin] of Object.entries(ways)) {
      for (const command of ['ADD', 'DEL']) {
        const asked = { plugin, config, command, id: 'web', netns: '/run/netns/container' };
        const { result, error } = await runtime('run', asked);
        if (error) throw new Error(error);
        if (i >= WARM_UP) taken[way][command].push(result);
      }
    }
  }
  return taken;
}

process.env.PATH += ':/usr/sbin:/sbin';
requireCommands('ip', 'unshare', 'nsenter', 'curl');
const background = await busyCores(2000);
const lab = await Lab.open();
for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }))
  process.once(signal, () => void lab.close().then(() => process.exit(code)));
try {
  const taken = await measure(lab);
  const figures = (all) => [0.5, 0.95].map((part) => quantile(all, part).toFixed(1)).join(' / ');
  const rows = Object.entries(taken).map(([way, { ADD, DEL }]) => [way, figures(ADD), figures(DEL)]);
  const { ADD: alone } = taken['Node alone'];
  const { ADD: asked } = taken['through the daemon'];
  process.stdout.write(
    `The CNI plugin, ${rounds} times each way; ${os.cpus().length} cores, Linux ${os.release()}, Node ${process.version}. ` +
      `Before the start, other programs used ${background.toFixed(2)} cores.\n\n` +
      table([['p50 / p95 in ms', 'ADD', 'DEL'], ...rows]) +
      `\nADD through the daemon takes ${(median(asked) / median(alone)).toFixed(2)} of what Node alone takes.\n`,
  );
} finally {
  await lab.close();
}
process.exit(0);

/**
 * What a stranger left in a run directory before it was root's: for each name of ours, each kind of file. A daemon's
 * start and end, and `down`, are tried with each. Standard output tells what became of the stranger's targets, and
 * of steps that took too long. DIRECTORY holds all, and is not there yet.
 */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { removeLeftovers } from '../../dist/daemon/down.js';
import { RunDir } from '../../dist/daemon/run-dir.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const [, , directory] = process.argv;
const USER = 65534;
const SECRET = 'root:x:0:0\n';
const NAMES = [
  'lock',
  'control.sock',
  'attach.sock',
  'journal.jsonl',
  'journal.jsonl.new',
  'journal.damaged',
  'journal.damaged.new',
  'vm',
  'vm.new',
  'mesh.json',
  'mesh.json.new',
];
const MAPPINGS = [new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'))];
const LINE = JSON.stringify({
  ...{ v: 1, op: 'add', owner: 'daemon', before: '0' },
  thing: { kind: 'sysctl', name: 'net/ipv4/conf/lo/forwarding', value: '1', device: 'lo', others: true },
});
const KINDS = {
  link: (name, target) => symlinkSync(target, name),
  'link to nothing': (name, target) => symlinkSync(`${target}.new`, name),
  'hard link': (name, target) => linkSync(target, name),
  fifo: (name) => execFileSync('mkfifo', [name]),
  directory: (name) => mkdirSync(name),
  file: (name) => {
    writeFileSync(name, `${LINE}\n`);
    chownSync(name, USER, USER);
  },
};

mkdirSync(directory);
const target = path.join(directory, 'shadow');
writeFileSync(target, SECRET, { mode: 0o640 });
const before = lstatSync(target);

const wrong = [];
const outcomes = {};
const steps = {
  async up(runDir) {
    const opened = await RunDir.open(runDir, { status: async () => ({}) });
    opened.leaveMesh({ mappings: MAPPINGS, local: parseAddress('192.168.16.32'), mtu: 1476, coolDown: 60 });
    opened.journal.add('daemon', { kind: 'route', to: '10.0.0.0/8', metric: 1, protocol: 75 });
    opened.journal.rewrite();
    await opened.keep().catch(() => {});
    await opened.close();
  },
  down: removeLeftovers,
};
const late = Symbol();
for (const name of NAMES)
  for (const [kind, plant] of Object.entries(KINDS))
    for (const [step, work] of Object.entries(steps)) {
      const runDir = path.join(directory, 'run');
      mkdirSync(runDir);
      plant(path.join(runDir, name), target);
      const timer = new Promise((resolve) => setTimeout(resolve, 10_000, late).unref());
      const outcome = await Promise.race([
        work(runDir).then(
          () => 'done',
          (error) => error.code,
        ),
        timer,
      ]);
      if (outcome === late) wrong.push(`${step} with a ${kind} at ${name} takes too long`);
      outcomes[String(outcome)] = (outcomes[String(outcome)] ?? 0) + 1;
      const now = lstatSync(target);
      if (readFileSync(target, 'utf8') !== SECRET || now.mode !== before.mode || now.uid !== 0)
        wrong.push(`${step} with a ${kind} at ${name} changes a file elsewhere`);
      if (lstatSync(`${target}.new`, { throwIfNoEntry: false }))
        wrong.push(`${step} with a ${kind} at ${name} makes a file elsewhere`);
      rmSync(`${target}.new`, { force: true });
      writeFileSync(target, SECRET);
      chmodSync(target, 0o640);
      rmSync(runDir, { recursive: true });
    }
process.stdout.write(JSON.stringify({ wrong, outcomes }));
process.exit();

/**
 * Brings things about in the network namespace that it runs in. Standard input has steps as JSON, with bytes as in ask.mjs; standard output gets what became of
 * each. `program:NAME` is the descriptor of a program of that name, loaded once.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { exit, set } from '../../dist/linux/bpf/assembler.js';
import { loadProgram } from '../../dist/linux/bpf/program.js';
import { Journal } from '../../dist/machine/journal.js';
import { Machine } from '../../dist/machine/machine.js';
import { remains } from '../../dist/machine/remains.js';
import { network, parsePrefix } from '../../dist/mesh/address.js';

const TC_ACT_UNSPEC = -1;
const programs = new Map();
function programOf(name) {
  if (!programs.has(name)) programs.set(name, loadProgram([set(0, TC_ACT_UNSPEC), exit], name));
  return programs.get(name);
}

function revive(_, value) {
  if (typeof value !== 'string') return value;
  if (value.startsWith('hex:')) return Uint8Array.from(Buffer.from(value.slice(4), 'hex'));
  return value.startsWith('program:') ? programOf(value) : value;
}

const runDir = mkdtempSync(path.join(os.tmpdir(), 'inlay-machine-'));
let journal = new Journal(runDir);
let machine = new Machine(journal);
/** Of the overlay's table; what is there first is read before the first thing. */
const load = () => machine.table.load([network(parsePrefix('10.0.0.0/8'), 8)], []);

const verbs = {
  ensure: (things) => machine.ensure(things),
  keepOnly: (things) => machine.keepOnly(things),
  undo: () => machine.undo(),
  /** What the machine tells without a journal, and the same taken back. */
  remains: () => remains(machine.netlink).flatMap((thing) => (machine.takeBack(thing) ? [thing.kind] : [])),
  /** Others do something. */
  sh: (command) => execFileSync('sh', ['-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
  noted: () => journal.entries('daemon').map(({ thing, before }) => ({ thing, before })),
  note: ({ thing, before }) => journal.add('daemon', thing, before),
  /** Another process goes on with what the journal says. */
  restart() {
    machine.close();
    journal = new Journal(runDir);
    machine = new Machine(journal);
    load();
  },
};

load();
const results = JSON.parse(readFileSync(0, 'utf8'), revive).map(([verb, value]) => {
  try {
    return verbs[verb](value) ?? null;
  } catch ({ name, code, message, hint }) {
    return { name, code, message, hint };
  }
});
rmSync(runDir, { recursive: true });
process.stdout.write(JSON.stringify(results));

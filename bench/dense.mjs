/**
 * `up`, a repair and `down` on a VM full of links, with containers that come and go, beside an empty one. They take turns; the ratios are what to quote.
 * Everything happens in namespaces of its own, which are gone afterwards.
 */
import { once } from 'node:events';
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError } from 'commander';
import { ask } from '../dist/daemon/control.js';
import { Lab, requireCommands } from '../dist/demo/lab.js';
import { told } from '../test/net/faults/told.mjs';
import { PLANES } from '../test/net/planes.mjs';
import { median, table } from './statistics.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const CLI = file('../dist/cli.js');
const RUN_DIR = '/run/inlay';
const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', '--run-dir', RUN_DIR];
/** Pairs that one `ip -batch` makes. */
const BATCH = 500;
/** ms that a start and a repair may take. */
const [READY, LIMIT] = [60_000, 3000];
/** ms between two questions whether it is ready. */
const PAUSE = 5;
/** s that containers come and go, at most. */
const LONGEST = 1800;

function positive(text) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a number, 1 or more');
  return value;
}

const { pairs, changes, rounds } = new Command('bench:dense')
  .description('Measures starts, repairs and ends on a VM full of links.')
  .option('--pairs <number>', 'veth pairs on the full VM: two links each', positive, 4000)
  .option('--changes <number>', 'containers that come or go a second there', positive, 50)
  .option('--rounds <number>', 'how often each is measured', positive, 7)
  .parse()
  .opts();

requireCommands('ip', 'unshare', 'nsenter');

class Vm {
  #lab;
  #agent;

  static async make(count) {
    const vm = new Vm();
    const lab = await Lab.open();
    vm.#lab = lab;
    await lab.ip(undefined, ['netns add vm', 'link add port type veth peer name eth0 netns vm', 'link set port up']);
    await lab.ip('vm', ['link set lo up', 'address add 192.168.16.32/16 dev eth0', 'link set eth0 up']);
    for (let i = 0; i < count; i += BATCH) {
      const numbers = Array.from({ length: Math.min(BATCH, count - i) }, (_, k) => i + k);
      await lab.ip(
        'vm',
        numbers.map((number) => `link add full${number} type veth peer name peer${number}`),
      );
    }
    vm.#agent = await told(lab, 'vm', file('../test/net/faults/agent.mjs'));
    return vm;
  }

  churn() {
    const words = [process.execPath, file('../test/net/links.mjs'), String(changes), String(LONGEST)];
    // It ends with this process, or with the lab.
    this.#lab.start('vm', words, { stdio: ['pipe', 'ignore', 'ignore'] }).unref();
  }

  /** ms of a start, a repair and `down`; undefined where it failed. */
  async measure(plane) {
    const start = performance.now();
    const child = this.#lab.start('vm', [process.execPath, CLI, ...UP, ...PLANES[plane]], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr.on('data', (chunk) => {
      log += chunk;
    });
    const ended = once(child, 'exit');
    const pid = await this.#ready(child);
    const up = pid && performance.now() - start;
    const repair = pid && (await this.#repair());
    if (pid) await this.#lab.must(undefined, ['kill', '-KILL', String(pid)]);
    else process.stderr.write(`${plane} is not ready: ${log.trim().split('\n').at(-1)}\n`);
    if (!pid) child.kill('SIGKILL');
    await ended;
    const command = [process.execPath, CLI, 'down', '--run-dir', RUN_DIR].map((word) => `'${word}'`).join(' ');
    const { ms, code } = await this.#agent('time', { command });
    return { up, repair, down: code === 0 ? ms : undefined };
  }

  async #ready(child) {
    for (const deadline = performance.now() + READY; performance.now() < deadline; await sleep(PAUSE)) {
      const status = await ask(this.#lab.path(RUN_DIR), 'status').catch(() => undefined);
      if (status?.state === 'running') return status.pid;
      if (child.exitCode !== null) return undefined;
    }
    return undefined;
  }

  async #repair() {
    const command = 'ip route del 10.0.0.0/8 dev inlay0';
    const script = 'ip route get 10.16.33.91 2>/dev/null | grep -c "dev inlay0"';
    const { end, right } = await this.#agent('inject', { command, script, expected: '1\n', limit: LIMIT });
    return right && right - end;
  }

  close() {
    return this.#lab.close();
  }
}

const planes = ['wasm', 'kernel'];
const kinds = ['empty', 'full'];
const measured = new Map(planes.flatMap((plane) => kinds.map((kind) => [`${plane} ${kind}`, []])));
const vms = {};
try {
  vms.empty = await Vm.make(0);
  process.stderr.write(`making ${2 * pairs} links\n`);
  vms.full = await Vm.make(pairs);
  vms.full.churn();
  for (let round = 1; round <= rounds; round++) {
    for (const plane of planes)
      for (const kind of round % 2 ? kinds : kinds.toReversed())
        measured.get(`${plane} ${kind}`).push(await vms[kind].measure(plane));
    process.stderr.write(`[${round}/${rounds}]\n`);
  }
} finally {
  for (const vm of Object.values(vms)) await vm.close();
}

const values = (rows, what) => rows.map((row) => row[what]).filter((value) => value !== undefined);
const ms = (rows, what) =>
  values(rows, what).length === rows.length
    ? median(values(rows, what)).toFixed(0)
    : `${rows.length - values(rows, what).length} of ${rows.length} failed`;

const lines = planes.flatMap((plane) =>
  ['up', 'repair', 'down'].map((what) => {
    const [empty, full] = kinds.map((kind) => measured.get(`${plane} ${kind}`));
    const [less, more] = [empty, full].map((rows) => values(rows, what));
    const ratio = less.length > 0 && more.length > 0 ? (median(more) / median(less)).toFixed(2) : '-';
    return [`${plane}, ${what}`, ms(empty, what), ms(full, what), ratio];
  }),
);
process.stdout.write(
  `one machine of ${os.cpus().length} cores; ${new Date().toISOString().slice(0, 10)}, Linux ${os.release()}, Node ${process.version}\n` +
    `${2 * pairs} links and ${changes} changes a second beside none; medians of ${rounds} rounds\n\n`,
);
process.stdout.write(table([['', 'empty, ms', 'full, ms', 'ratio'], ...lines]));
process.exit();

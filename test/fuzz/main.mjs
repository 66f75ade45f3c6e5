/**
 * Fuzzes the packet core: both twins get the same mutated packets and have to do the same. Ends with 1 if they do not, or if a run of
 * more than three million packets never meets something that there is. A seed brings a run back.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { makeTwins } from './cores.mjs';
import { Judge } from './judge.mjs';
import { newMet } from './met.mjs';
import { minimise } from './minimise.mjs';
import { ProgramJudge, whyNoPrograms } from './programs.mjs';
import { caseOf, replay, runRound, seedOf } from './rounds.mjs';

const FOUND = fileURLToPath(new URL('../vectors/found/', import.meta.url));
/** A run of more packets has to meet everything. */
const MANY = 3_000_000;
/** Without the end of a round for so long, ms, a core does not come back from a call. */
const PATIENCE = 600_000;
const WORKERS = availableParallelism();

const number = (value) => value.toLocaleString('en');

/** Runs rounds as long as there are some left, and reports each. */
function work({ seed, shared }) {
  const missing = whyNoPrograms();
  const AnyJudge = missing === undefined ? ProgramJudge : Judge;
  parentPort.postMessage({ missing });
  const judges = [false, true].map((scalar) => new AnyJudge(...makeTwins(scalar)));
  for (;;) {
    const round = Atomics.add(shared, 0, 1);
    if (Atomics.load(shared, 1) !== 0) break;
    const judge = judges[round % 2];
    const { packets, wrong, verdicts } = runRound(judge, seedOf(seed, round));
    parentPort.postMessage({ packets, verdicts, met: judge.met, found: wrong && look(round, wrong) });
    judge.met = newMet();
    if (wrong) break;
  }

  function look(round, { n, difference }) {
    const make = (careful) => new AnyJudge(...makeTwins(round % 2 === 1), careful);
    const careful = make(true);
    const name = `seed ${seed}, round ${round}, batch ${n}: ${difference}`;
    const found = caseOf(make(false), seedOf(seed, round));
    const least = minimise(found, (candidate) => replay(careful, candidate));
    return { name, ...(least ?? { difference: `${difference} (but not again)`, steps: found.steps.slice(-1) }) };
  }
}

async function run({ seed, packets, seconds }) {
  /** The next round, and whether it is time to end. */
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const end = () => Atomics.store(shared, 1, 1);
  const totals = { packets: 0, rounds: 0, met: new Map(), found: [], missing: undefined };
  const started = performance.now();
  const timer = setTimeout(end, seconds * 1000);
  const watch = setTimeout(() => {
    console.log(`one of the rounds up to ${shared[0] - 1} does not end`);
    process.exit(1);
  }, PATIENCE);
  const workers = Array.from({ length: WORKERS }, async () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { seed, shared } });
    worker.on('message', (report) => {
      if ('missing' in report) {
        totals.missing = report.missing;
        return;
      }
      watch.refresh();
      totals.packets += report.packets;
      totals.rounds++;
      for (const [name, times] of [...Object.entries(report.verdicts), ...Object.entries(report.met)]) {
        totals.met.set(name, (totals.met.get(name) ?? 0) + times);
      }
      if (report.found) totals.found.push(report.found);
      if (report.found || totals.packets >= packets) end();
    });
    await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
  });
  await Promise.all(workers);
  clearTimeout(timer);
  clearTimeout(watch);
  return { ...totals, seconds: (performance.now() - started) / 1000 };
}

function report(seed, { packets, rounds, seconds, met, found, missing }) {
  const rate = number(Math.round(packets / seconds));
  console.log(`seed ${seed}: ${number(packets)} packets in ${rounds} rounds, ${seconds.toFixed(1)} s`);
  console.log(`${rate} packets/s with ${WORKERS} workers; on the wire, and what else was met:`);
  for (const [name, times] of met) if (times > 0) console.log(`${number(times).padStart(13)} ${name}`);
  if (missing) console.log(`the fast path's programs were not run: ${missing}`);
  for (const { name, difference, steps } of found) {
    const file = `${FOUND}${name.replace(/:.*/s, '').replace(/\W+/g, '-')}.json`;
    mkdirSync(FOUND, { recursive: true });
    writeFileSync(file, `${JSON.stringify({ name, difference, steps }, null, 1)}\n`);
    console.log(`\n${name}\nin its least form: ${difference}\n${JSON.stringify(steps, null, 1)}\nwritten to ${file}`);
  }
  const missed = packets > MANY ? [...met.keys()].filter((name) => met.get(name) === 0) : [];
  if (missed.length > 0) console.log(`never met: ${missed.join(', ')}`);
  return found.length > 0 || missed.length > 0 ? 1 : 0;
}

/** A whole number, or an error that says which option is meant. */
function numberOf(name, value) {
  const number = Number(value);
  if (!(Number.isInteger(number) && number >= 0)) throw new RangeError(`--${name} "${value}": expected a whole number`);
  return number;
}

if (isMainThread) {
  const { values } = parseArgs({
    options: { seconds: { type: 'string' }, packets: { type: 'string' }, seed: { type: 'string' } },
  });
  const given = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, numberOf(name, value)]));
  const seed = (given.seed ?? Math.random() * 2 ** 32) >>> 0;
  console.log(`seed ${seed}`);
  const packets = given.packets ?? Number.POSITIVE_INFINITY;
  const seconds = given.seconds ?? (given.packets === undefined ? 60 : 2_000_000);
  process.exitCode = report(seed, await run({ seed, packets, seconds }));
} else {
  work(workerData);
}

/**
 * The packet core: WebAssembly with SIMD, WebAssembly without, TypeScript, and plain C, side by side in one process.
 *
 * Each figure is in ns, the median of several rounds in which cases, cores and the two libraries that measure take turns; the ratios, taken
 * within a round, are what to quote. Uses the built package by its own name, as an embedder would. Before anything is measured, each core runs
 * each case once; the program ends with 1 if one does not forward what it is given, or leaves other bytes in its memory than the others.
 * CASES is a pattern that chooses cases by name; ROUNDS is how many rounds: with 0, nothing is measured.
 */
import os from 'node:os';
import { CASES } from './core/cases.mjs';
import { loadCores } from './core/cores.mjs';
import { isSame, measure, runOnce } from './core/measure.mjs';
import { TIMERS } from './core/timers.mjs';
import { median, spread, table } from './statistics.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 11);
if (!(Number.isInteger(ROUNDS) && ROUNDS >= 0))
  throw new RangeError(`ROUNDS "${process.env.ROUNDS}": expected 0 or more`);
/** From which factor on the two libraries disagree. */
const DISAGREEMENT = 1.2;

const cores = await loadCores();
const cases = CASES.filter(({ name }) => new RegExp(process.env.CASES ?? '').test(name));

const coresOf = ({ direction }) => cores.filter(({ isOutbound }) => !isOutbound || direction === 'outbound');

/** Calls `work` for a case on a core; an error says which. */
async function on(benchCase, core, work) {
  try {
    return await work(benchCase, core);
  } catch (error) {
    throw new Error(`${benchCase.name} (${core.name}): ${error.message}`, { cause: error });
  }
}

for (const benchCase of cases) {
  const [first, ...others] = coresOf(benchCase);
  await on(benchCase, first, runOnce);
  for (const other of others) {
    await on(benchCase, other, runOnce);
    if (!isSame(first.core, other.core))
      throw new Error(`${benchCase.name}: ${other.name} leaves other bytes than ${first.name}`);
  }
}
process.stdout.write(`${cores.map(({ name }) => name).join(', ')}: the same bytes in ${cases.length} cases\n\n`);
if (ROUNDS === 0) process.exit();

/** Seconds by timer, case, core and round. */
const times = Object.fromEntries(
  Object.keys(TIMERS).map((timer) => [
    timer,
    Object.fromEntries(cases.map((c) => [c.name, Object.fromEntries(coresOf(c).map(({ name }) => [name, []]))])),
  ]),
);
for (let round = 1; round <= ROUNDS; round++) {
  for (const [i, benchCase] of cases.entries()) {
    if (process.stderr.isTTY) process.stderr.write(`round ${round} of ${ROUNDS}, case ${i + 1} of ${cases.length} \r`);
    for (const core of coresOf(benchCase)) {
      for (const [timer, secondsOf] of Object.entries(TIMERS)) {
        times[timer][benchCase.name][core.name].push(await on(benchCase, core, (c, of) => measure(c, of, secondsOf)));
      }
    }
  }
}

const NAMES = cores.map(({ name }) => name);
const ratio = (values, base, digits) =>
  values && base ? median(values.map((value, round) => value / base[round])).toFixed(digits) : '';

/** A row of a timer's times of a case: each core's in ns of one part in `count`, and the ratios. */
function rowOf(timer, name, unit, count) {
  const byCore = times[timer][name];
  const figures = NAMES.map((core) => (byCore[core] ? ((median(byCore[core]) * 1e9) / count).toFixed(1) : ''));
  if (Object.values(byCore).some((values) => !(median(values) > 0))) throw new Error(`${name}: it took no time`);
  const share = ratio(byCore['native C'], byCore.wasm, 2);
  return [name + unit, ...figures, ratio(byCore.typescript, byCore.wasm, 1), share, spread(byCore.wasm).toFixed(0)];
}

function comparisonOf({ name, comparedTo }) {
  const [byCore, base] = [times.benchmark[name], times.benchmark[comparedTo]];
  const cells = NAMES.map((core) => ratio(byCore[core], base?.[core], 2));
  return [`${name} / 1 tunnel`, ...cells, '', '', ''];
}

/** Where the libraries disagree. */
function disagreements() {
  const found = cases.flatMap(({ name }) =>
    NAMES.filter((core) => times.mitata[name][core]).flatMap((core) => {
      const factor = Number(ratio(times.mitata[name][core], times.benchmark[name][core], 2));
      return Math.max(factor, 1 / factor) < DISAGREEMENT ? [] : [`${name} (${core}): ${factor}`];
    }),
  );
  if (found.length === 0) return `mitata and benchmark agree within a factor of ${DISAGREEMENT}.\n`;
  return `mitata's time / benchmark's, where they disagree by a factor of ${DISAGREEMENT} or more: ${found.join('; ')}.\n`;
}

const head = [...NAMES, 'typescript / wasm', 'C / wasm', 'spread of wasm, %'];
const rows = cases.flatMap(({ name, per }) =>
  Object.entries(per).map(([unit, count]) => rowOf('benchmark', name, unit, count)),
);
const comparisons = cases.filter(({ comparedTo }) => comparedTo).map(comparisonOf);
const checks = cases.map(({ name, per }) => rowOf('mitata', name, ...Object.entries(per)[0]));
const cpus = os.cpus();
process.stdout.write(
  `Node ${process.version}, ${cpus[0]?.model.trim()}, ${cpus.length} cores, medians of ${ROUNDS} rounds\n\n` +
    `${table([['ns per packet, unless it says otherwise', ...head], ...rows, ...comparisons])}\n` +
    `${table([['the same with mitata', ...head], ...checks])}\n${disagreements()}`,
);

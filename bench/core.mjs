/**
 * The packet core: WebAssembly with SIMD, WebAssembly without, and TypeScript, side by side in one process.
 *
 * Each figure is in ns, the median of several rounds in which cases and cores take turns; the ratios, taken within a round, are what
 * to quote. Uses the built package by its own name, as an embedder would. Ends with 1 if a core does not forward what it is given,
 * or not the same bytes as the others.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import { wasmCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';
import { CASES } from './core/cases.mjs';
import { measure, outcome } from './core/measure.mjs';
import { median, spread, table } from './statistics.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 11);
if (!(Number.isInteger(ROUNDS) && ROUNDS > 0))
  throw new RangeError(`ROUNDS "${process.env.ROUNDS}": expected 1 or more`);

const require = createRequire(import.meta.url);
const load = (name) => wasmCore(new WebAssembly.Module(readFileSync(require.resolve(name))));
const CORES = {
  wasm: load('inlay/core.wasm'),
  'wasm, scalar': load('inlay/core-scalar.wasm'),
  typescript: typescriptCore(),
};
const NAMES = Object.keys(CORES);

/** Calls `work` for a case on a core; an error says which. */
function on(benchCase, name, work) {
  try {
    return work(benchCase, CORES[name]);
  } catch (error) {
    throw new Error(`${benchCase.name} (${name}): ${error.message}`, { cause: error });
  }
}

for (const benchCase of CASES) {
  const outcomes = NAMES.map((name) => on(benchCase, name, outcome));
  if (new Set(outcomes).size > 1) throw new Error(`${benchCase.name}: the cores make different bytes of it`);
}

/** Seconds: case, core, round. */
const times = new Map(CASES.map(({ name }) => [name, NAMES.map(() => [])]));
for (let round = 1; round <= ROUNDS; round++) {
  if (process.stderr.isTTY) process.stderr.write(`round ${round} of ${ROUNDS}\r`);
  for (const benchCase of CASES) {
    for (const [i, name] of NAMES.entries()) times.get(benchCase.name)[i].push(on(benchCase, name, measure));
  }
}

const ratios = (values, base) => values.map((value, round) => value / base[round]);

function rowsOf({ name, per }) {
  const [wasm, scalar, typescript] = times.get(name);
  const quotient = median(ratios(typescript, wasm)).toFixed(1);
  return Object.entries(per).map(([unit, count]) => [
    name + unit,
    ...[wasm, scalar, typescript].map((values) => ((median(values) * 1e9) / count).toFixed(1)),
    ...[quotient, spread(wasm).toFixed(0)],
  ]);
}

function comparisonOf({ name, comparedTo }) {
  const base = times.get(comparedTo);
  const cells = times.get(name).map((values, i) => `${median(ratios(values, base[i])).toFixed(2)} x`);
  return [`${name} / 1 tunnel`, ...cells, '', ''];
}

const head = ['ns per packet, unless it says otherwise', ...NAMES, 'typescript / wasm', 'spread of wasm, %'];
const rows = [...CASES.flatMap(rowsOf), ...CASES.filter(({ comparedTo }) => comparedTo).map(comparisonOf)];
const cores = os.cpus();
process.stdout.write(
  `Node ${process.version}, ${cores[0]?.model.trim()}, ${cores.length} cores, medians of ${ROUNDS} rounds\n\n${table([head, ...rows])}`,
);

/**
 * The packet core: WebAssembly with SIMD, WebAssembly without, and TypeScript, side by side in one process.
 *
 * Each figure is ns per packet in batches of 128, the median of several interleaved rounds; the ratios are what to quote.
 * Uses the built package by its own name, as an embedder would.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import Benchmark from 'benchmark';
import { abi, typescriptCore, wasmCore } from 'inlay/core';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SECONDS = 0.2; // a case, a round
const SIZES = [64, 576, 1476]; // bytes, inner
const BATCH = abi.BATCH_SIZE;

const require = createRequire(import.meta.url);
const load = (name) => wasmCore(new WebAssembly.Module(readFileSync(require.resolve(name))));
const cores = { simd: load('inlay/core.wasm'), scalar: load('inlay/core-scalar.wasm'), typescript: typescriptCore() };
const config = (local) => ({
  local,
  mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
});

/** An inner packet of container 10.16.32.91 to 10.16.33.7. */
function innerPacket(size) {
  const packet = Buffer.alloc(size, 0x5a);
  packet.writeUInt16BE(0x4500, 0);
  packet.writeUInt16BE(size, 2);
  packet.writeUInt32BE(0, 4);
  packet.writeUInt16BE(0x4011, 8);
  packet.writeUInt16BE(0, 10);
  packet.writeUInt32BE(0x0a10205b, 12);
  packet.writeUInt32BE(0x0a102107, 16);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += packet.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  packet.writeUInt16BE(~sum & 0xffff, 10);
  return packet;
}

/** A function that handles one batch, its descriptors made anew each time: a call moves them. */
function batchOf(core, direction, size) {
  core.configure(config(0xc0a81020));
  for (let i = 0; i < BATCH; i++) core.put(i, innerPacket(size));
  if (direction === 'decapsulate') {
    core.encapsulate(BATCH, 0);
    const packets = Array.from({ length: BATCH }, (_, i) => core.packet(i).slice());
    core.configure(config(0xc0a81021));
    for (const [i, packet] of packets.entries()) core.put(i, packet);
  }
  const descriptors = new Uint32Array(core.memory, abi.DESCRIPTORS, (BATCH * abi.DESCRIPTOR_SIZE) / 4);
  const fresh = descriptors.slice();
  const run = () => {
    descriptors.set(fresh);
    return core[direction](BATCH, 1);
  };
  if (run() !== BATCH) throw new Error(`${core.name} ${direction} ${size}: packets were dropped`);
  return run;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** ns per packet of one round. */
function measure(run) {
  let forwarded = 0;
  const bench = new Benchmark('batch', () => (forwarded += run()), {
    maxTime: SECONDS,
    minTime: SECONDS / 2,
    minSamples: 3,
  });
  bench.run();
  if (bench.error || forwarded === 0) throw bench.error ?? new Error('nothing was forwarded');
  return (bench.stats.mean * 1e9) / BATCH;
}

const rows = [];
for (const direction of ['encapsulate', 'decapsulate']) {
  for (const size of SIZES) {
    const times = { simd: [], scalar: [], typescript: [] };
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, core] of Object.entries(cores)) times[name].push(measure(batchOf(core, direction, size)));
    }
    const [simd, scalar, typescript] = Object.values(times).map(median);
    const spread = (Math.max(...times.simd) - Math.min(...times.simd)) / simd;
    rows.push([`${direction} ${size} B`, simd, scalar, typescript, typescript / simd, spread * 100]);
  }
}

const text = (value) => (typeof value === 'number' ? value.toFixed(1) : value);
const head = ['ns per packet', 'wasm', 'wasm, scalar', 'typescript', 'typescript / wasm', 'spread of wasm, %'];
process.stdout.write(
  `Node ${process.version}, ${os.cpus()[0]?.model.trim()}, ${os.cpus().length} cores, medians of ${ROUNDS} rounds\n\n`,
);
for (const row of [head, head.map(() => '---'), ...rows]) process.stdout.write(`| ${row.map(text).join(' | ')} |\n`);

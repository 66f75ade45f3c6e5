/**
 * Proves the mapping: for each of three plans, `vmOf` of both twins is asked about all 2^32 addresses and has to say what a formula
 * says that is written with division instead of masks and shifts. Ends with 1 at the first address where one does not.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { wasmCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';

const plan = (name, overlay, overlayLength, underlay, underlayLength) => ({
  name,
  mapping: { overlay, overlayLength, underlay, underlayLength },
});
const PLANS = [
  plan('10.0.0.0/8 over 192.168.0.0/16', 0x0a000000, 8, 0xc0a80000, 16),
  plan('240.0.0.0/4 over 192.168.0.0/17', 0xf0000000, 4, 0xc0a80000, 17),
  plan('10.0.0.0/8 over 172.16.8.0/21', 0x0a000000, 8, 0xac100800, 21),
];
const ADDRESSES = 2 ** 32;
/** Addresses that a worker checks at a time. */
const CHUNK = 2 ** 24;
const CHUNKS = ADDRESSES / CHUNK;

/** The first address from `start` on where the core is not right, or -1; and how many addresses have a VM. */
function check(core, { overlay, overlayLength, underlay, underlayLength }, start) {
  // The k = 32 - U bits that vary between VMs are copied; c = 32 - P - k bits behind them number the addresses of one VM.
  const vms = 2 ** (32 - underlayLength);
  const size = 2 ** (32 - overlayLength);
  const slice = size / vms;
  const prefix = overlay / size;
  let covered = 0;
  for (let address = start; address < start + CHUNK; address++) {
    const isCovered = Math.floor(address / size) === prefix;
    const vm = isCovered ? underlay + (Math.floor(address / slice) % vms) : 0;
    if (core.vmOf(address) !== vm) return { wrong: address, is: core.vmOf(address), expected: vm };
    if (isCovered) covered++;
  }
  return { covered };
}

/** Takes chunks for one core, then for the other: a thread that asks one core alone is faster. */
function work({ next, mine }) {
  const wasm = wasmCore(new WebAssembly.Module(readFileSync(new URL('../../build/core.wasm', import.meta.url))));
  const cores = [wasm, typescriptCore()];
  for (const which of [mine, 1 - mine]) {
    const core = cores[which];
    for (let n = Atomics.add(next, which, 1); n < PLANS.length * CHUNKS; n = Atomics.add(next, which, 1)) {
      const plan = Math.floor(n / CHUNKS);
      core.configure({ local: 0, mappings: [PLANS[plan].mapping] });
      const result = check(core, PLANS[plan].mapping, (n % CHUNKS) * CHUNK);
      parentPort.postMessage({ plan, which, core: core.name, ...result });
      if (result.wrong !== undefined) return;
    }
  }
}

async function prove() {
  const next = new Int32Array(new SharedArrayBuffer(8));
  /** Addresses checked by core, and those that have a VM. */
  const totals = PLANS.map(() => ({ checked: [0, 0], covered: [0, 0] }));
  const started = performance.now();
  const workers = Array.from({ length: Math.max(availableParallelism(), 2) }, async (_, n) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { next, mine: n % 2 } });
    worker.on('message', ({ plan, which, core, wrong, is, expected, covered }) => {
      const { name } = PLANS[plan];
      if (wrong !== undefined) {
        console.log(`${name}: ${core} says that ${wrong} belongs to VM ${is}, expected ${expected}`);
        process.exit(1);
      }
      const total = totals[plan];
      total.checked[which] += CHUNK;
      total.covered[which] += covered;
      if (total.checked[which] < ADDRESSES) return;
      const seconds = ((performance.now() - started) / 1000).toFixed(0);
      const [checked, vms] = [total.checked[which], total.covered[which]].map((number) => number.toLocaleString('en'));
      console.log(`${name}, ${core}: ${checked} addresses right, ${vms} of them covered; after ${seconds} s`);
    });
    await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
  });
  await Promise.all(workers);
  const whole = totals.every(({ checked }) => checked.every((addresses) => addresses === ADDRESSES));
  if (!whole) throw new Error('not all addresses were checked');
}

if (isMainThread) await prove();
else work(workerData);

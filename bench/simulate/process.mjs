/** One mesh in a process of its own: takes the options as a message, and answers with what was measured and found. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { wasmCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';
import { Simulation } from './simulation.mjs';

const require = createRequire(import.meta.url);
const load = (name) => wasmCore(new WebAssembly.Module(readFileSync(require.resolve(name))));
const CORES = {
  wasm: () => load('inlay/core.wasm'),
  scalar: () => load('inlay/core-scalar.wasm'),
  typescript: typescriptCore,
};
/** ms from one line about how far it is to the next. */
const PROGRESS = 1000;

function progress(vms) {
  if (!process.stderr.isTTY) return () => {};
  let next = performance.now() + PROGRESS;
  return (part) => {
    const now = performance.now();
    if (now < next && part < 1) return;
    next = now + PROGRESS;
    process.stderr.write(part < 1 ? `${vms} VMs: ${(100 * part).toFixed(0)} %   \r` : `${' '.repeat(30)}\r`);
  };
}

function measured(options) {
  const { vms, packets } = options;
  const simulation = new Simulation(CORES[options.core](), options);
  const [start, cpu] = [performance.now(), process.cpuUsage()];
  simulation.run(progress(vms));
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const memory = process.resourceUsage().maxRSS * 1024;
  const size = simulation.swap.size;
  simulation.finish();
  const { ledger, network, failures, audit, judge, containers, digest, turns, checked, batch, rounds } = simulation;
  return {
    ...{ vms, packets, seconds, memory, batch, rounds, turns },
    ...{ time: (seconds * 1e9) / packets, cpu: ((user + system) * 1e3) / packets },
    ...{ state: size.used / vms, tunnels: audit.tunnels / vms },
    ...{ ends: ledger.list, sent: ledger.sent, copies: ledger.copies, fragmented: ledger.fragmented },
    ...{ network: network.packets, icmp: network.icmp, digest: digest.text, failures: failures.list },
    counts: [
      ...[ledger.sent + ledger.copies, containers.compared, judge.verdicts, audit.audited],
      ...[vms, containers.replies, checked],
    ],
  };
}

process.once('message', (options) => {
  process.send(measured(options), () => process.disconnect());
});

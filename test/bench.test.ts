/** `npm run bench` measures cores that do the same: its programs run without measuring anything. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { partTaken } from '../bench/containers/measure.mjs';
import { targetsOf } from '../bench/containers/targets.mjs';
import { figure, ratio } from '../bench/rows.mjs';
import { missingCommands, skip } from './net/require.ts';

describe.skipIf(skip('bench', missingCommands('gcc')))('what is measured', () => {
  test('WebAssembly, TypeScript and C leave the same bytes in every case', () => {
    const program = fileURLToPath(new URL('../bench/core.mjs', import.meta.url));
    const said = execFileSync(process.execPath, [program], { env: { ...process.env, ROUNDS: '0' }, encoding: 'utf8' });
    expect(said).toMatch(/^wasm, wasm, scalar, typescript, native C: the same bytes in \d\d cases\n/);
  });
});

describe('what is made of rows', () => {
  const rows = [
    { round: 1, peer: 'vxlan', tcp1: 10, rtt: 20 },
    { round: 1, peer: 'gre', tcp1: 20, rtt: 10 },
    { round: 2, peer: 'vxlan', tcp1: 1, rtt: 40 },
    { round: 2, peer: 'gre', tcp1: 3, rtt: 10 },
    { round: 3, peer: 'vxlan', error: 'no answer' },
    { round: 3, peer: 'gre', tcp1: 400, rtt: 10 },
  ];

  test('a ratio compares what was measured in the same round, and leaves out rounds that failed', () => {
    expect(ratio(rows, 'gre', 'tcp1', 'vxlan')).toEqual({ median: 2.5, least: 2, most: 3 });
    expect(figure(rows, 'gre', 'tcp1')).toEqual({ median: 20, least: 3, most: 400 });
    expect(ratio(rows, 'gre', 'tcp1', 'routing')).toBeUndefined();
  });

  test('a target is a bound from below, and one from above where less is better', () => {
    const titles = { tcp1: 'TCP x1', rtt: 'RTT' };
    const [throughput, roundTrip] = targetsOf({ whole: rows }, titles);
    expect(throughput).toMatchObject({ what: 'TCP x1, whole', bounds: [1.3, 1.5], reached: [true, true] });
    expect(roundTrip).toMatchObject({ measured: { median: 0.375 }, bounds: [0.6, 0.5], reached: [true, true] });
    const slower = rows.map((row) => ({ ...row, rtt: row.peer === 'gre' ? 17 : 30 }));
    expect(targetsOf({ whole: slower }, titles)[1]).toMatchObject({ reached: [true, false] });
  });
});

describe('what the fast path took', () => {
  const status = (received: number, outbound: number, local: number) => ({
    outbound: { received },
    fastPath: { outbound: { packets: outbound }, local: { packets: local } },
  });

  test('counts between VMs within what was received, and on one VM beside it', () => {
    expect(partTaken(status(100, 50, 0), status(300, 245, 0), true)).toBe(0.975);
    expect(partTaken(status(100, 0, 50), status(105, 0, 145), true)).toBe(0.95);
    expect(partTaken({ outbound: { received: 0 } }, { outbound: { received: 9 } }, false)).toBe(0);
  });

  test('has to be what was to be measured', () => {
    expect(() => partTaken(status(0, 0, 0), status(100, 50, 0), true)).toThrow('took 0.500 of the packets');
    expect(() => partTaken(status(0, 0, 0), status(100, 1, 0), false)).toThrow('took 0.010 of the packets');
  });
});

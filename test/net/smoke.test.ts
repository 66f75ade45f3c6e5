/** A whole mesh of each data plane, on the Node that runs this: worker threads, system calls, netlink, programs, command line. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/demo.ts';
import { CLI } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';

const run = promisify(execFile);

describe.skipIf(skip('smoke', await missing('ping', 'tc', 'bridge')))(`Node ${process.version}`, () => {
  test.each(Object.entries(PLANES))('a mesh, %s', async (plane, flags) => {
    const words = [CLI, 'demo', '--vms', '2', '--containers', '1', '--json', ...flags];
    const result = JSON.parse((await run(process.execPath, words)).stdout) as DemoResult;
    expect(result).toMatchObject({ pairs: 2, reachable: 2, firstPackets: 2, firstPacketsLost: 0, pingsLost: 0 });
    expect(result.dataPlane).toBe(plane === 'kernel' ? 'kernel' : 'wasm');
    expect(result.megabitsPerSecond).toBeGreaterThan(0);
  });
});

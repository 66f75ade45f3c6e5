/** The mesh that several suites use, and the command line that all of them run. */
import { fileURLToPath } from 'node:url';
import { vi } from 'vitest';
import { ask } from '../../src/daemon/control.ts';
import type { Lab } from '../../src/demo/lab.ts';
import { Mesh } from '../../src/demo/mesh.ts';
import { parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import type { Status } from '../../src/observe/status.ts';
import { quote } from '../../src/shell.ts';

export const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** What the daemon with this run directory says once it is ready: it is asked until then, from here, which is cheaper than `inlay status --wait`. */
export async function readyStatus(lab: Lab, runDir: string): Promise<Status> {
  return await vi.waitFor(
    async () => {
      const status = await ask<Status>(lab.path(runDir), 'status');
      if (!['running', 'degraded'].includes(status.state)) throw new Error(`the daemon is ${status.state}`);
      return status;
    },
    { timeout: 30_000, interval: 25 },
  );
}

/** A command line for a shell: this tree may lie anywhere, in a folder with a space, too. */
export function shellLine(words: readonly string[]): string {
  return words.map(quote).join(' ');
}

/**
 * Two VMs, 192.168.16.32 and .33, with one container each: 10.0.0.0/8, or another overlay, over 192.168.0.0/16. `flags` are for `inlay up`, `wrapper` are the
 * words before it.
 */
export function startMesh(
  lab: Lab,
  flags: readonly string[],
  { overlay = '10.0.0.0/8', mtu = 1500, wrapper = [] as readonly string[] } = {},
): Promise<Mesh> {
  const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>;
  const mapping = new Mapping(prefix(overlay), prefix('192.168.0.0/16'));
  return Mesh.start(lab, { mapping, vms: 2, containersPerVm: 1, flags, mtu, wrapper });
}

/** Packets to VMs that do not exist wait for ARP in the kernel: they do not take the socket from the VMs that answer. */
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';
import { pingWords } from './vms.ts';

const NOBODY = fileURLToPath(new URL('nobody.mjs', import.meta.url));
/** As many VMs as one container opens tunnels to at once; for each more packets than the kernel keeps (unres_qlen_bytes). */
const [VMS, COUNT] = [256, 600];
const PINGS = 20;

describe.skipIf(skip('nobody', await missing('ping')))('nobody', () => {
  test.each([
    { encapsulation: 'gre', core: 'wasm' },
    { encapsulation: 'gre', core: 'typescript' },
    { encapsulation: 'gre-udp', core: 'wasm' },
  ])('$encapsulation, core $core: a VM that was heard from is reached', async ({ encapsulation, core }) => {
    const lab = await Lab.open();
    try {
      const mesh = await startMesh(lab, ['--encapsulation', encapsulation, '--core', core]);
      const [from, to] = mesh.vms.map(({ containers }) => containers[0] as Container) as [Container, Container];
      const ping = async (count: number) => (await lab.run(from.name, pingWords(to.address, count, '-q'))).stdout;
      expect(await ping(1)).toContain(' 1 received');
      await lab.must(from.name, [process.execPath, NOBODY, `${VMS}`, `${COUNT}`]);
      const { refused } = await mesh.status(mesh.vms[0] as Vm);
      expect(refused?.underlay['EAGAIN']).toBeGreaterThan(0);
      expect(await ping(PINGS)).toContain(` ${PINGS} received`);
    } finally {
      await lab.close();
    }
  });
});

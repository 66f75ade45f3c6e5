/** --underlay-mtu is for less than the device takes: more is refused at the start, and said while the daemon runs. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { plainErrors } from '../../src/log.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { PATIENCE, type Plane, Vms } from './vms.ts';

const planes = Object.entries({ wasm: 24, 'wasm-udp': 32, kernel: 50 }) as [Plane, number][];
const says = (wanted: number, found: number) =>
  `underlay-mtu ${wanted} is more than this machine sends: the device and the route to other VMs take ${found} bytes`;

describe.skipIf(skip('underlay-mtu', await missing('ping')))('underlay-mtu', () => {
  let vms: Vms;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.ip('a', 'link set eth0 mtu 1500');
  });
  afterAll(() => vms?.close());

  test.each(planes)('%s: more than the device takes is refused', async (plane) => {
    const { code, stdout, stderr } = await vms.lab.run('a', vms.words('a', ...PLANES[plane], '--underlay-mtu', '1501'));
    expect([code, stdout, plainErrors(stderr)]).toEqual([
      78,
      '',
      `inlay: ${says(1501, 1500)}\nhint: set underlay-mtu to 1500 at most, or leave it out: Inlay follows the device and the route by itself\n`,
    ]);
  });

  test.each(planes)('%s: a device that takes less by now is followed, and said', async (plane, overhead) => {
    await vms.up('a', ...PLANES[plane], '--underlay-mtu', '1400');
    expect(await vms.status('a')).toMatchObject({ state: 'running', troubles: [], mtu: 1400 - overhead });
    await vms.ip('a', 'link set eth0 mtu 1300');
    await expect
      .poll(() => vms.status('a'), PATIENCE)
      .toMatchObject({
        state: 'degraded',
        troubles: [{ what: says(1400, 1300), hint: expect.stringContaining('set underlay-mtu to 1300 at most') }],
        mtu: 1300 - overhead,
      });
    await vms.ip('a', 'link set eth0 mtu 1500');
    await expect
      .poll(() => vms.status('a'), PATIENCE)
      .toMatchObject({ state: 'running', troubles: [], mtu: 1400 - overhead });
  });
});

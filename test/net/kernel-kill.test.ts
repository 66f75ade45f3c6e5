/** kill -9 at random moments, of starts too, while packets flow to a VM that is known: none is lost, and what is left is right. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { KernelVms } from './kernel-vms.ts';
import { missing, skip } from './require.ts';

const KILL = fileURLToPath(new URL('kill.mjs', import.meta.url));
const COUNT = 100;
const SEED = Number(process.env['INLAY_SEED'] ?? Date.now() % 1_000_000);

describe.skipIf(skip('kernel kill', await missing('ping', 'tc', 'bridge')))('kernel kill', () => {
  let vms: KernelVms;
  let calm: unknown;

  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b', 'c');
    calm = await vms.network('a');
    await vms.up('b', '--idle-timeout', '1h');
    await vms.up('c');
    await vms.serve('b');
  });
  afterAll(() => vms?.close());

  test(`${COUNT} kills, seed ${SEED}: no packet is lost`, { timeout: 180_000 }, async () => {
    const first = await vms.up('a', '--idle-timeout', '1h');
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
    const index = await vms.index('a');
    const before = await vms.network('a');
    await vms.end('KILL', first);

    const { sent, lost } = await vms.during('a', vms.overlay('b'), async () => {
      const words = [
        process.execPath,
        KILL,
        String(COUNT),
        String(SEED),
        '--',
        ...vms.words('a', '--idle-timeout', '1h'),
      ];
      expect(await vms.lab.must('a', words)).toBe(`${COUNT} killed\n`);
    });
    process.stderr.write(`kernel kill: seed ${SEED}, ${COUNT} kills, ${sent} packets, ${lost.length} lost\n`);
    expect(lost).toEqual([]);

    const last = await vms.up('a', '--idle-timeout', '1h');
    expect([await vms.index('a'), await vms.network('a')]).toEqual([index, before]);
    expect(await vms.pings('a', vms.overlay('c'), 1)).toBe('1');
    await vms.expectEntries('a', 'b', 'c');
    await vms.end('KILL', last);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    expect(await vms.network('a')).toEqual(calm);
  });

  test('first starts that are killed, each followed by down: nothing is left', { timeout: 120_000 }, async () => {
    for (let i = 0; i < 15; i++) {
      const words = [process.execPath, KILL, '1', String(SEED + i), '--', ...vms.words('a')];
      expect(await vms.lab.must('a', words)).toBe('1 killed\n');
      expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
      // The journal lies in the run directory: one that was made a moment before the kill is not in it.
      await vms.lab.run('a', ['rmdir', vms.runDir('a')]);
      expect(await vms.network('a')).toEqual(calm);
    }
  });
});

/**
 * kill -9 at random moments: the next `up` puts everything right, `down` removes everything, and foreign objects stay as they are. The environment variable
 * INLAY_KILLS sets how many kills there are, INLAY_SEED their moments.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { difference } from '../net/difference.mjs';
import { makeForeign } from '../net/faults/foreign.mjs';
import { KernelVms } from '../net/kernel-vms.ts';
import { missing, skip } from '../net/require.ts';
import { seeded } from '../net/seeded.mjs';
import { linesOf, PATIENCE, Vms, withoutIndexes } from '../net/vms.ts';

const KILL = fileURLToPath(new URL('../net/kill.mjs', import.meta.url));
const COUNT = Number(process.env['INLAY_KILLS'] ?? 8);
const SEED = Number(process.env['INLAY_SEED'] ?? Date.now() % 1_000_000);
/** ms in which the moment of a kill lies, from the start of `up`, of `down`, and of a daemon that is ready. */
const [UP, DOWN, RUNNING] = [600, 400, 200];
/** ms that one round may take at most. */
const ROUND = 10_000;

const reason = await missing('bridge', 'nft', 'ping', 'tc');

describe.skipIf(skip('kills', reason)).each(['wasm', 'kernel'] as const)('kills, %s', (plane) => {
  let vms: Vms;
  let calm: unknown;
  let right: unknown;

  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
    await makeForeign(vms.lab, 'a');
    calm = await network();
    await vms.up('b');
    const a = await vms.up('a');
    right = await network();
    await vms.end('TERM', a);
    await down();
  });
  afterAll(() => vms?.close());

  const network = async () => withoutIndexes(await vms.network('a'));

  /** Runs a command, and kills it at a random moment of its first `latest` ms unless it has ended. */
  async function killed(words: readonly string[], seed: number, latest: number): Promise<void> {
    await vms.lab.must('a', [process.execPath, KILL, '1', String(seed), String(latest), '--', ...words]);
  }

  async function down(): Promise<void> {
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    const now = await network();
    expect(difference(linesOf(calm), linesOf(now))).toEqual([]);
    expect(now).toEqual(calm);
  }

  async function upAndRight(): Promise<void> {
    const a = await vms.up('a');
    await expect.poll(network, PATIENCE).toEqual(right);
    await vms.end('KILL', a);
  }

  test(`${COUNT} kills, seed ${SEED}`, { timeout: 60_000 + COUNT * ROUND }, async () => {
    process.stderr.write(`kills, ${plane}: seed ${SEED}, ${COUNT} kills\n`);
    for (let i = 0; i < COUNT; i++) {
      const random = seeded(SEED + i);
      const what = ['up', 'running', 'down'][Math.floor(random() * 3)];
      const next = random() < 0.5 ? 'up' : 'down';
      try {
        if (what === 'up') await killed(vms.words('a'), SEED + i, UP);
        else {
          const a = await vms.up('a');
          await sleep(random() * RUNNING);
          await vms.end('KILL', a);
        }
        if (what === 'down') await killed(vms.inlayWords('a', 'down'), SEED + i, DOWN);
        await (next === 'up' ? upAndRight() : down());
      } catch (error) {
        process.stderr.write(`kills, ${plane}: kill ${i} of ${what}, then ${next}, seed ${SEED}\n`);
        throw error;
      }
    }
    const a = await vms.up('a');
    expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
    await vms.end('KILL', a);
    await down();
  });
});

describe.skipIf(skip('kills under traffic', reason))('kills under traffic, kernel', () => {
  const KILLS = 100;
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

  test(`${KILLS} kills, seed ${SEED}: no packet is lost`, { timeout: 180_000 }, async () => {
    const first = await vms.up('a', '--idle-timeout', '1h');
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
    const index = await vms.index('a');
    const before = await vms.network('a');
    await vms.end('KILL', first);

    const { sent, lost } = await vms.during('a', vms.overlay('b'), async () => {
      const kill = [process.execPath, KILL, String(KILLS), String(SEED), String(UP), '--'];
      const words = [...kill, ...vms.words('a', '--idle-timeout', '1h')];
      expect(await vms.lab.must('a', words)).toBe(`${KILLS} killed\n`);
    });
    process.stderr.write(`kernel kill: seed ${SEED}, ${KILLS} kills, ${sent} packets, ${lost.length} lost\n`);
    expect(lost).toEqual([]);

    const last = await vms.up('a', '--idle-timeout', '1h');
    expect([await vms.index('a'), await vms.network('a')]).toEqual([index, before]);
    expect(await vms.pings('a', vms.overlay('c'), 1)).toBe('1');
    await vms.expectEntries('a', 'b', 'c');
    await vms.end('KILL', last);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    expect(await vms.network('a')).toEqual(calm);
  });
});

/** `up` and `down` work on a VM with hundreds of links, while containers come and go. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { Vms } from '../net/vms.ts';

const LINKS = fileURLToPath(new URL('../net/links.mjs', import.meta.url));
const PAIRS = 200;
const STARTS = 10;
/** Changes a second, and for how many seconds at most. */
const CHURN = ['400', '60'];

const reason = await missing('ping');

describe.skipIf(skip('dense', reason)).each(['wasm', 'kernel'] as const)('dense, %s', (plane) => {
  let vms: Vms;

  beforeAll(async () => {
    vms = await Vms.of(plane, 'a');
    const pairs = Array.from({ length: PAIRS }, (_, i) => `link add v${i} type veth peer name p${i}`);
    await vms.lab.ip('a', pairs);
  });
  afterAll(() => vms?.close());

  test(`${STARTS} starts beside ${CHURN[0]} changes a second`, { timeout: 120_000 }, async () => {
    const churn = vms.lab.start('a', [process.execPath, LINKS, ...CHURN], { stdio: ['pipe', 'ignore', 'ignore'] });
    try {
      for (let i = 0; i < STARTS; i++) {
        const a = await vms.up('a');
        expect(await vms.end('TERM', a)).toBe(0);
        expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
      }
      // It went on until now.
      expect(churn.exitCode).toBeNull();
    } finally {
      churn.stdin?.end();
    }
    const log = await vms.log('a');
    expect(log).not.toContain('EINTR');
    expect(log).not.toContain('"level":"error"');
  });
});

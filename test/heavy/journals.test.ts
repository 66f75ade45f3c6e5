/** Journals that are damaged, lost, or of another version: `down` and the next start find what is ours all the same, and what they do not understand stays. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CATCH_ALL_ROUTE } from '../net/catch-all.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE, Vms } from '../net/vms.ts';

const reason = await missing('bridge', 'ping', 'tc');

describe.skipIf(skip('journals', reason)).each(['wasm', 'kernel'] as const)('journals, %s', (plane) => {
  let vms: Vms;
  let calm: unknown;
  let file: string;

  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
    await vms.up('b');
    file = `${vms.runDir('a')}/journal.jsonl`;
    calm = await vms.network('a');
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.lab.run('a', ['sh', '-c', `rm -rf ${vms.runDir('a')}; rm /run/a.log; tc qdisc del dev eth0 clsact`]);
    expect(await vms.network('a')).toEqual(calm);
  });
  afterAll(() => vms?.close());

  const damages: [name: string, script: string, isTold: boolean][] = [
    ['cut off', 'truncate -s -7 $FILE', true],
    ['with its first line cut', 'sed -i "1s/^.....//" $FILE', true],
    ['of other bytes', 'head -c 4096 /dev/urandom >$FILE', true],
    ['of zeros', 'head -c 4096 /dev/zero >$FILE', true],
    ['of JSON that is no line of ours', 'echo "[{" >$FILE', true],
    ['empty', ': >$FILE', false],
    ['gone', 'rm $FILE', false],
    ['gone with its directory', 'rm -r $(dirname $FILE)', false],
  ];

  describe.each(damages)('%s', (_, script, isTold) => {
    async function kill(): Promise<void> {
      const a = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.end('KILL', a);
      await vms.lab.must('a', ['sh', '-c', `FILE=${file}; ${script}`]);
    }

    /** A directory, and a discipline that holds no filter, stay where nothing tells that we made them. */
    async function withoutUnknown(): Promise<unknown> {
      expect(await vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'eth0', 'ingress'])).toBe('');
      await vms.lab.run('a', ['sh', '-c', `tc qdisc del dev eth0 clsact; rm -rf ${vms.runDir('a')}`]);
      return vms.network('a');
    }

    test('down removes everything', async () => {
      await kill();
      const { code, stdout, stderr } = await vms.inlay('a', 'down');
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toContain(CATCH_ALL_ROUTE);
      expect(await withoutUnknown()).toEqual(calm);
      expect((await vms.inlay('a', 'down')).stdout).toBe('nothing to remove\n');
    });

    test('a start takes over what is there, and says so; its end and down leave nothing', async () => {
      await kill();
      const a = await vms.up('a');
      await expect.poll(() => vms.pings('a', vms.overlay('b'), 3), PATIENCE).toBe('3');
      expect((await vms.log('a')).includes('"msg":"the journal is damaged')).toBe(isTold);
      if (isTold) {
        expect(await vms.lab.must('a', ['ls', '-A', vms.runDir('a')])).toContain('journal.damaged\n');
        for (const line of (await vms.lab.must('a', ['cat', file])).trim().split('\n'))
          expect(JSON.parse(line)).toMatchObject({ v: 1, op: expect.stringMatching(/^(add|drop)$/), owner: 'daemon' });
      }
      expect(await vms.end('TERM', a)).toBe(0);
      expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
      expect(await withoutUnknown()).toEqual(calm);
    });
  });

  describe('a line of another version', () => {
    const line = '{"v":2,"op":"add","owner":"daemon","thing":{"kind":"tunnel","device":"eth0"}}\n';
    const says = (count: number) => ({
      code: 1,
      stderr: `inlay: the journal in ${vms.runDir('a')} has lines of another version (${count}): they are left\nhint: run inlay down of that version, too\n`,
    });

    test('outlives starts, ends and down, which says so', async () => {
      const append = ['sh', '-c', `mkdir -p ${vms.runDir('a')} && cat >>${file}`];
      await vms.lab.must('a', append, line + line.replace('eth0', 'eth1'));
      await vms.end('TERM', await vms.up('a'));
      const killed = await vms.up('a');
      await vms.end('KILL', killed);
      expect(await vms.inlay('a', 'down')).toMatchObject(says(2));
      expect(await vms.lab.must('a', ['cat', file])).toContain(line);
      // Of ours, nothing is left.
      expect(await vms.inlay('a', 'down')).toMatchObject(says(2));
      await vms.lab.must('a', ['rm', file]);
    });
  });
});

/** Which rule sets are said to hurt the overlay: as Linux 6.18 has told them (captured.json, made anew by INLAY_CAPTURE=1), and as this machine's kernel tells them now. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Remark } from '../../src/machine/remarks/remark.ts';
import { missing, skip } from '../net/require.ts';
import { type Captured, judged } from './judge.ts';
import { RULE_SETS, type RuleSet } from './rule-sets.ts';

const CAPTURE = fileURLToPath(new URL('capture.mjs', import.meta.url));
const LARGE_SET = fileURLToPath(new URL('large-set.mjs', import.meta.url));
const LOOKS = fileURLToPath(new URL('looks.mjs', import.meta.url));
const CAPTURED = new URL('captured.json', import.meta.url);
const captured: Record<string, Captured> = JSON.parse(readFileSync(CAPTURED, 'utf8'));

/** One line a rule set. */
function textOf(all: Record<string, Captured>): string {
  const lines = Object.entries(all).map(([name, set]) => `${JSON.stringify(name)}: ${JSON.stringify(set)}`);
  return `{\n${lines.join(',\n')}\n}\n`;
}

function saysOf({ said = [] }: RuleSet, remarks: readonly Remark[]): void {
  const texts = remarks.map(({ what, hint }) => ({ what, hint }));
  expect(texts).toEqual(
    said.map(({ what, hint }) => ({ what: expect.stringMatching(what), hint: expect.stringMatching(hint) })),
  );
}

describe('rule sets, captured', () => {
  test.each(RULE_SETS)('$name', async (set) => {
    saysOf(set, await judged(captured[set.name] as Captured, set));
  });
});

const reason = await missing('nft', 'iptables', 'iptables-legacy', 'ping');

describe.skipIf(skip('rule sets of this kernel', reason))('rule sets of this kernel', () => {
  let lab: Lab;
  const now: Record<string, Captured> = {};
  beforeAll(async () => {
    lab = await Lab.open();
  });
  afterAll(async () => {
    await lab?.close();
    if (process.env['INLAY_CAPTURE']) writeFileSync(CAPTURED, textOf(now));
  });

  test.each(RULE_SETS)('$name', async (set) => {
    const name = `set${RULE_SETS.indexOf(set)}`;
    await lab.ip(undefined, [`netns add ${name}`]);
    await lab.must(name, ['sh', '-ec', set.script]);
    const found: Captured = JSON.parse(await lab.must(name, [process.execPath, CAPTURE]));
    now[set.name] = found;
    saysOf(set, await judged(found, set));
  });

  /** What is asked for where INPUT accepts what has such a mark, of 100,000. */
  async function askedFor(name: string, mark: string): Promise<{ datagrams: number }> {
    await lab.ip(undefined, [`netns add ${name}`]);
    const script = `nft add table ip t
      nft add set ip t large '{ type mark; }'
      { printf 'add element ip t large { '; seq -s , 100000; echo '}'; } | nft -f -
      nft add chain ip t input '{ type filter hook input priority 0; policy drop; }'
      nft add rule ip t input ${mark} @large accept`;
    await lab.must(name, ['sh', '-ec', script]);
    return JSON.parse(await lab.must(name, [process.execPath, LARGE_SET]));
  }

  test('a large set is read no further than tells that it is large', async () => {
    const { datagrams, ...rest } = await askedFor('large0', 'meta mark');
    expect(rest).toEqual({ found: ['accept', 'drop'], sets: 1 });
    expect(datagrams).toBeLessThan(20);
  });

  test('a set of keys that are not known is not read', async () => {
    expect(await askedFor('large1', 'ct mark')).toMatchObject({ found: ['accept', 'drop'], sets: 0 });
  });

  test('a legacy table is judged again when its rules change, not when they count', async () => {
    await lab.ip(undefined, ['netns add looks']);
    expect(JSON.parse(await lab.must('looks', [process.execPath, LOOKS]))).toEqual([
      { remarks: 1, known: 0 },
      { remarks: 1, known: 1 },
      { remarks: 2, known: 0 },
    ]);
  });
});

/** What a look-out tells, and that rule sets are looked through no further than is good. */
import { describe, expect, test } from 'vitest';
import { type BaseChain, fates, type Rule, TooLargeError } from '../../src/linux/netfilter/fate.ts';
import { LookOut } from '../../src/machine/remarks/look-out.ts';
import type { Remark } from '../../src/machine/remarks/remark.ts';

describe('a look-out', () => {
  const remark: Remark = { key: 'x', what: 'a wall', hint: 'a ladder' };

  /** Its lines, once it has looked as often as there are `found`. */
  async function linesOf(...found: (Remark[] | Error)[]): Promise<string[]> {
    const lines: string[] = [];
    const line = (level: string) => (facts: object, text: string) =>
      void lines.push(`${level} ${text} ${JSON.stringify(facts)}`);
    const log = { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('error') };
    await new Promise<void>((resolve) => {
      const lookOut = new LookOut({
        log: log as never,
        look: async () => {
          const next = found.shift();
          if (!next) {
            lookOut.close();
            resolve();
            return [];
          }
          if (next instanceof Error) throw next;
          return next;
        },
        pauses: { usual: 2, again: 1 },
      });
    });
    return lines;
  }

  test('what is found once may be under way only', async () => {
    expect(await linesOf([remark], [], [remark], [])).toEqual([]);
  });

  test('what lasts is told once, whatever its words are, and so is its end', async () => {
    const other = { ...remark, what: 'a wall of two' };
    expect(await linesOf([remark], [other], [remark], [remark], [], [])).toEqual([
      'warn remark: a wall of two {"hint":"a ladder"}',
      'info remark over {"remark":"a wall"}',
    ]);
  });

  test('a look that fails says nothing of what is there', async () => {
    expect(await linesOf([remark], new Error('no'), [remark], [remark])).toEqual([
      'debug a look at what others do failed {"error":"Error: no"}',
      'warn remark: a wall {"hint":"a ladder"}',
    ]);
  });
});

describe('a rule set', () => {
  const packet = { source: anything(), destination: anything(), state: 'new' } as const;
  function anything() {
    return { width: 32, bits: 0n, length: 0 };
  }
  const chainOf = (rules: (chain?: string) => Iterable<Rule>): BaseChain => ({
    ...{ name: 'FORWARD', table: 'filter', family: 'ip', tool: 'iptables', hook: 2, type: 'filter', policy: 'drop' },
    ...{ hasChain: () => false, rules },
  });
  const passing: Rule = () => ({ applies: 'maybe', actions: [{ kind: 'none' }] });

  test('is not looked through without end', () => {
    const long = Array.from({ length: 5000 }, () => passing);
    expect(() =>
      fates(
        chainOf(() => long),
        packet,
      ),
    ).toThrow(TooLargeError);
    expect(
      fates(
        chainOf(() => long.slice(0, 1000)),
        packet,
      ),
    ).toEqual([{ kind: 'drop' }]);
  });

  test('that jumps in a circle, or again and again, is given up', () => {
    const jump: Rule = () => ({ applies: 'maybe', actions: [{ kind: 'jump', chain: 'x' }] });
    expect(() =>
      fates(
        chainOf(() => [jump]),
        packet,
      ),
    ).toThrow(TooLargeError);
    const deeper = (chain = ''): Rule[] => {
      const next: Rule = () => ({ applies: 'maybe', actions: [{ kind: 'jump', chain: `${chain}x` }] });
      return chain.length < 14 ? [next, next, next] : [passing];
    };
    expect(() => fates(chainOf(deeper), packet)).toThrow(TooLargeError);
  });

  test('a mark that a rule sets is not known from then on', () => {
    const marks: number[] = [];
    const seen: Rule = ({ mark }) => {
      marks.push(mark ?? NaN);
      return { applies: 'maybe', actions: [{ kind: 'mark' }] };
    };
    fates(
      chainOf(() => [seen, seen]),
      packet,
    );
    expect(marks).toEqual([0, NaN]);
  });
});

/** What others can cause in the log is limited. */
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { limitedLog } from '../src/log-limit.ts';

let lines: Record<string, unknown>[];
const logOf = (level: string) =>
  pino({ level, base: null, timestamp: false }, { write: (line: string) => void lines.push(JSON.parse(line)) });

beforeEach(() => {
  lines = [];
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

describe('limitedLog', () => {
  test('leaves out what is too much, and says how much at the end', () => {
    const log = limitedLog(logOf('info'), { most: 2, interval: 1000 });
    for (let i = 0; i < 7; i++) log('warn', 'scan', { i }, 'scanned');
    expect(lines.map(({ i }) => i)).toEqual([0, 1]);
    vi.advanceTimersByTime(1000);
    expect(lines.slice(2)).toEqual([
      { level: 40, kind: 'scan', leftOut: 5, msg: 'more lines of this kind were left out' },
    ]);
    log('warn', 'scan', { i: 7 }, 'scanned');
    vi.advanceTimersByTime(1000);
    expect(lines.slice(3)).toEqual([{ level: 40, i: 7, msg: 'scanned' }]);
  });

  test('one kind does not take from another', () => {
    const log = limitedLog(logOf('info'), { most: 1 });
    for (const kind of ['a', 'a', 'b', 'b']) log('info', kind, { kind }, 'said');
    expect(lines.map(({ kind }) => kind)).toEqual(['a', 'b']);
  });

  test('counts nothing at a level that is not written', () => {
    const log = limitedLog(logOf('info'), { most: 1 });
    for (let i = 0; i < 5; i++) log('debug', 'a', {}, 'said');
    vi.advanceTimersByTime(60_000);
    expect(lines).toEqual([]);
  });

  test('ever new kinds are limited too', () => {
    const log = limitedLog(logOf('info'));
    for (let i = 0; i < 10_000; i++) log('info', `kind ${i}`, {}, 'said');
    expect(lines.length).toBeLessThan(300);
    vi.advanceTimersByTime(60_000);
    expect(lines.at(-1)).toMatchObject({ kind: 'others', leftOut: 10_000 - 256 - 5 });
    expect(vi.getTimerCount()).toBe(0);
  });
});

/** Log lines that others can cause, on the network or on this machine: a few of each kind in a while, and how many more there were. */
import type { Log } from './log.ts';

type Level = 'debug' | 'info' | 'warn';
export type LimitedLog = (level: Level, kind: string, facts: object, message: string) => void;

/** Kinds that are told apart at one time; the others share one limit. */
const MAX_KINDS = 256;
const OTHERS = 'others';

/**
 * Writes at most `most` lines of a kind in `interval` ms, counted from the kind's first line. If more came, one line says at the end of the interval how many
 * were left out (`leftOut`).
 */
export function limitedLog(log: Log, options: { most?: number; interval?: number } = {}): LimitedLog {
  const { most = 5, interval = 60_000 } = options;
  const kinds = new Map<string, { lines: number; level: Level }>();

  const begin = (kind: string, level: Level) => {
    const seen = { lines: 0, level };
    kinds.set(kind, seen);
    const timer = setTimeout(() => {
      kinds.delete(kind);
      const leftOut = seen.lines - most;
      if (leftOut > 0) log[seen.level]({ kind, leftOut }, 'more lines of this kind were left out');
    }, interval);
    timer.unref();
    return seen;
  };

  return (level, name, facts, message) => {
    if (!log.isLevelEnabled(level)) return;
    const kind = kinds.has(name) || kinds.size < MAX_KINDS ? name : OTHERS;
    const seen = kinds.get(kind) ?? begin(kind, level);
    seen.level = level;
    if (++seen.lines <= most) log[level](facts, message);
  };
}

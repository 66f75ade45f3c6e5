/** The daemon's log: one JSON object a line on stderr. No line waits for whoever reads it. */
import { type Logger, pino } from 'pino';
import { openStderr } from './linux/stderr.ts';
import { LogQueue } from './log-queue.ts';

export type Log = Logger;

/** When the process ends, what waits has a last chance. Whoever calls _exit(2) calls `flush` before. */
export function createLog(level: string): Log {
  const queue = new LogQueue(openStderr(), leftOutLine);
  process.once('exit', () => queue.flush());
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    queue,
  );
  // Node itself writes to stderr and waits.
  process.removeAllListeners('warning').on('warning', (warning) => log.warn({ kind: warning.name }, warning.message));
  return log;
}

/** As pino writes it, and whatever the level: what was left out may have been an error. */
function leftOutLine(leftOut: number): string {
  const time = new Date().toISOString();
  return `${JSON.stringify({ level: 'warn', time, leftOut, msg: `${leftOut} lines were left out` })}\n`;
}

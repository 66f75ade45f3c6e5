/** The daemon's log: one JSON object a line on stderr. No line waits for whoever reads it. */
import { type Logger, pino } from 'pino';
import { errorCode, InlayError } from './errors.ts';
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

/** Says why the daemon ends; `code` and `hint` are the error's. */
export function logFailure(log: Log, error: unknown): void {
  const { code, hint } = error instanceof InlayError ? error : { code: errorCode(error), hint: undefined };
  log.error({ code, hint }, error instanceof Error ? error.message : String(error));
}

/** The text of a log, its errors as the CLI prints them on a terminal. */
export function plainErrors(text: string): string {
  return text.replaceAll(/^\{"level":"error".*\}$/gm, (line) => {
    const { msg, hint } = JSON.parse(line);
    return `inlay: ${msg}${hint === undefined ? '' : `\nhint: ${hint}`}`;
  });
}

/** As pino writes it, and whatever the level: what was left out may have been an error. */
function leftOutLine(leftOut: number): string {
  const time = new Date().toISOString();
  return `${JSON.stringify({ level: 'warn', time, leftOut, msg: `${leftOut} lines were left out` })}\n`;
}

/** The daemon's log: one JSON object a line on stderr. */
import { type Logger, pino } from 'pino';

export type Log = Logger;

export function createLog(level: string): Log {
  // Synchronous, so that nothing is lost when the process ends.
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    // A log that cannot be written ends nothing.
    pino.destination({ fd: 2, sync: true }).on('error', () => {}),
  );
}

/** What signals mean to the daemon. */
import inspector from 'node:inspector';

/** They end other processes. SIGXFSZ: a file that may not grow (ulimit -f) is an error of the write. */
const HARMLESS = ['SIGUSR1', 'SIGUSR2', 'SIGPIPE', 'SIGXFSZ'] as const;

/**
 * From now on only SIGTERM and SIGINT end this process. To be called as early as may be: a unit may be told
 * to reload while it starts.
 */
export function takeSignals(): void {
  for (const signal of HARMLESS) process.on(signal, () => {});
  process.on('SIGHUP', () => {});
  closeDebugger();
}

/**
 * Calls back for SIGTERM and SIGINT, with how many have come. Until then they end the process at once, even
 * one that hangs in a system call.
 */
export function onStop(listener: (count: number) => void): void {
  let count = 0;
  // They stay handled: a second signal, from a wrapper or an impatient user, must not end the clean-up.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => listener(++count));
}

/**
 * Where nobody listens, Node opens its debugger on SIGUSR1; it may still have one at hand that came before
 * us.
 */
function closeDebugger(): void {
  if ([...process.execArgv, process.env['NODE_OPTIONS'] ?? ''].some((words) => words.includes('--inspect'))) return;
  const close = () => inspector.url() !== undefined && inspector.close();
  close();
  setTimeout(close, 1000).unref();
}

/** `down`: removes what a daemon that was killed left on this machine. */
import { existsSync } from 'node:fs';
import { requireCapabilities } from './capabilities.ts';
import { ask } from './control.ts';
import { errorCode, InlayError } from './errors.ts';
import { type Change, Journal } from './journal.ts';

/** Resolves to what was removed, in words. Throws ERR_FAILED while the daemon runs. */
export async function removeLeftovers(runDir: string): Promise<string[]> {
  const running = await ask<{ pid: number }>(runDir, 'status').catch((error) => {
    if (errorCode(error) === 'ERR_NOT_RUNNING') return undefined;
    throw error;
  });
  if (running) {
    throw new InlayError('ERR_FAILED', `the daemon of ${runDir} is running (process ${running.pid})`, {
      hint: `stop it, and it removes everything itself: kill ${running.pid}`,
    });
  }
  if (!existsSync(runDir)) return [];
  requireCapabilities();
  const journal = new Journal(runDir);
  return (await journal.undo()).map(describe);
}

function describe(change: Change): string {
  switch (change.kind) {
    case 'device':
      return `device ${change.name}`;
    case 'route':
      return `route ${change.route.join(' ')}`;
    case 'link-up':
      return `state up of ${change.name}`;
    case 'sysctl':
      return `${change.file}: back to ${change.before}`;
  }
}

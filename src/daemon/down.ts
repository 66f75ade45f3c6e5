/** `down`: removes what a daemon that was killed left on this machine. */
import { existsSync } from 'node:fs';
import { type Change, Journal } from '../machine/journal.ts';
import { routeWords } from '../machine/words.ts';
import { explainPermission, requireCapabilities } from './capabilities.ts';
import { removeDeadSocket } from './control.ts';
import { lockRunDir } from './lock.ts';

/** For routes and sysctls. */
const CAPABILITIES = ['CAP_NET_ADMIN'] as const;

/** Resolves to what was removed, in words. Throws ERR_FAILED while the daemon runs. */
export function removeLeftovers(runDir: string): Promise<string[]> {
  return explainPermission({ capabilities: CAPABILITIES, runDir, tun: false }, () => remove(runDir));
}

async function remove(runDir: string): Promise<string[]> {
  if (!existsSync(runDir)) return [];
  const lock = await lockRunDir(runDir, 'stop it first: kill');
  try {
    const journal = new Journal(runDir);
    if (!journal.isEmpty) requireCapabilities(CAPABILITIES);
    removeDeadSocket(runDir);
    return journal.undo().map(describe);
  } finally {
    lock.release();
  }
}

function describe(change: Change): string {
  switch (change.kind) {
    case 'directory':
      return `directory ${change.path}`;
    case 'link':
      return `device ${change.device}`;
    case 'fou':
      return `FOU port ${change.port}`;
    case 'route':
      return `route ${routeWords(change.route)}`;
    case 'filter':
      return `program at the ingress of ${change.device}`;
    case 'clsact':
      return `clsact of ${change.device}`;
    case 'link-up':
      return `state up of ${change.name}`;
    case 'sysctl':
      return `${change.file}: back to ${change.before}`;
  }
}

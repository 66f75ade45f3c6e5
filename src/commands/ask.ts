/** Asks the daemon for a command; if none answers there, says where one does. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { ask } from '../daemon/control.ts';
import { InlayError } from '../errors.ts';
import type { Status } from '../observe/status.ts';

/** Sockets that are tried, at most. */
const MAX_TRIED = 8;

export async function askDaemon<T>(runDir: string, name: 'status' | 'tunnels'): Promise<T> {
  try {
    return await ask<T>(runDir, name);
  } catch (error) {
    if (!(error instanceof InlayError) || error.code !== 'ERR_NOT_RUNNING') throw error;
    const others = await otherRunDirs(runDir);
    if (others.length === 0) throw error;
    const lines = others.map((dir) => `inlay ${name} --run-dir ${dir}`);
    const hint = `a daemon answers elsewhere: ${lines.join(', or ')}`;
    throw new InlayError(error.code, error.message, { hint, cause: error });
  }
}

/** Run directories of daemons in this network namespace: Unix sockets are listed in /proc/net/unix (proc_net(5)). */
async function otherRunDirs(runDir: string): Promise<string[]> {
  let sockets = '';
  try {
    sockets = readFileSync('/proc/net/unix', 'utf8');
  } catch {} // Where it cannot be read, there is nothing more to say.
  const paths = [...sockets.matchAll(/ (\/\S+)\/control\.sock$/gm)].map((match) => match[1] as string);
  const candidates = [...new Set(paths)].filter((dir) => path.resolve(runDir) !== dir).slice(0, MAX_TRIED);
  const found = await Promise.all(
    candidates.map(async (dir) => {
      const status = await ask<Partial<Status>>(dir, 'status').catch(() => undefined);
      // Others call their sockets so, too.
      return status?.dataPlane !== undefined && status.overlayAddress !== undefined ? [dir] : [];
    }),
  );
  return found.flat();
}

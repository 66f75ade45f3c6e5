/** One daemon for each run directory. */
import { accessSync, constants, fstatSync, statSync } from 'node:fs';
import { errorCode, InlayError, SystemError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { ask } from './control.ts';

export interface Lock {
  /** Whether the lock is still that of this directory: another directory may have the name by now. */
  isOf(runDir: string): boolean;
  release(): void;
}

/** How to find a daemon that does not say where it is. */
export const LOOK_FOR_DAEMON = 'look for it with: pgrep -af "inlay up|cli.js up"';

/**
 * Takes the lock of `runDir`, which exists: a flock(2) on the directory, which the kernel frees when its
 * holder dies. Throws ERR_PERMISSION if this user may not write there, whether a daemon runs or not. Throws
 * ERR_FAILED if another process has the lock, however slow it is to answer. `help` is what to type then,
 * before the process number.
 */
export async function lockRunDir(runDir: string, help: string): Promise<Lock> {
  const fd = openDirectory(runDir);
  try {
    // This comes before the lock: a user who may not write there should hear that first, whether a daemon
    // runs or not.
    checkWritable(runDir);
    if (native.flock(fd, native.LOCK_EX | native.LOCK_NB) === 0)
      return { isOf: (name) => isSame(fd, name), release: () => native.close(fd) };
    const errno = native.errno();
    // Other errors: some file systems have no locks.
    if (errno !== native.EAGAIN) throw runDirError(runDir, new SystemError('flock', errno, runDir));
    throw await isTaken(runDir, help);
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

async function isTaken(runDir: string, help: string): Promise<InlayError> {
  const running = await ask<{ pid: number }>(runDir, 'status').catch(() => undefined);
  return new InlayError(
    'ERR_FAILED',
    `a daemon runs already with run directory ${runDir} (process ${running?.pid ?? 'unknown: it does not answer'})`,
    { hint: running ? `${help} ${running.pid}` : LOOK_FOR_DAEMON },
  );
}

function isSame(fd: number, name: string): boolean {
  const [held, there] = [fstatSync(fd), statSync(name, { throwIfNoEntry: false })];
  return held.nlink > 0 && held.dev === there?.dev && held.ino === there.ino;
}

function openDirectory(runDir: string): number {
  try {
    return native.must(native.open(runDir, native.O_RDONLY | native.O_DIRECTORY | native.O_CLOEXEC), 'open', runDir);
  } catch (cause) {
    throw runDirError(runDir, cause);
  }
}

function checkWritable(runDir: string): void {
  try {
    accessSync(runDir, constants.W_OK);
  } catch (cause) {
    throw runDirError(runDir, cause);
  }
}

/** What it means that the run directory cannot be made or used. */
export function runDirError(runDir: string, cause: unknown): InlayError {
  const code = errorCode(cause);
  return code === 'EACCES'
    ? new InlayError('ERR_PERMISSION', `run directory ${runDir}: this user may not write there (${code})`, { cause })
    : new InlayError('ERR_FAILED', `run directory ${runDir}: ${code}`, {
        hint: 'choose another with --run-dir',
        cause,
      });
}

/** One daemon for each run directory. */
import { accessSync, constants, fstatSync, statSync } from 'node:fs';
import { errorCode, InlayError, SystemError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { ask } from './control.ts';

export interface Lock {
  /** Whether it is that of this directory still: another may have its name by now. */
  isOf(runDir: string): boolean;
  release(): void;
}

/**
 * Takes the lock of `runDir`, which exists. Throws ERR_PERMISSION if this user may not write there, ERR_FAILED if somebody has the lock, however slow they
 * are to answer; `help` is what to type then, before the process number. It is a flock(2) on the directory: the kernel frees it when its holder dies.
 */
export async function lockRunDir(runDir: string, help: string): Promise<Lock> {
  const fd = openDirectory(runDir);
  if (native.flock(fd, native.LOCK_EX | native.LOCK_NB) === 0) {
    checkWritable(runDir, fd);
    return { isOf: (name) => isSame(fd, name), release: () => native.close(fd) };
  }
  const errno = native.errno();
  native.close(fd);
  // Some file systems have no locks.
  if (errno !== native.EAGAIN) throw runDirError(runDir, new SystemError('flock', errno, runDir));
  const running = await ask<{ pid: number }>(runDir, 'status').catch(() => undefined);
  throw new InlayError(
    'ERR_FAILED',
    `a daemon runs already with run directory ${runDir} (process ${running?.pid ?? 'unknown: it does not answer'})`,
    { hint: running ? `${help} ${running.pid}` : 'look for it with: pgrep -af "inlay|cli.js up"' },
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

function checkWritable(runDir: string, fd: number): void {
  try {
    accessSync(runDir, constants.W_OK);
  } catch (cause) {
    native.close(fd);
    throw runDirError(runDir, cause);
  }
}

/** What it means that the run directory cannot be made or used. */
export function runDirError(runDir: string, cause: unknown): InlayError {
  const code = errorCode(cause);
  return code === 'EACCES'
    ? new InlayError('ERR_PERMISSION', `run directory ${runDir}: ${code}`, { cause })
    : new InlayError('ERR_FAILED', `run directory ${runDir}: ${code}`, {
        hint: 'choose another with --run-dir',
        cause,
      });
}

/** One daemon for each run directory. */
import { accessSync, closeSync, constants, fchmodSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { LOCK_FILE as FILE } from '../containers/mesh.ts';
import { InlayError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { isSameFile, LOCK, openOwn } from '../linux/own-file.ts';
import { uidOf } from '../linux/proc.ts';
import { SystemError } from '../linux/system-error.ts';
import { ask, isListening } from './control.ts';
import { runDirError } from './own-directory.ts';

/** Nobody else may open it: whoever can open a file can lock it. */
const MODE = 0o600;

export interface Lock {
  /** Whether the lock is still that of this directory: another directory may have the name by now. */
  isOf(runDir: string): boolean;
  /** Removes the file, which nobody else locks before the lock is released. */
  discard(): void;
  release(): void;
}

/** How to find a daemon that does not say where it is. */
export const LOOK_FOR_DAEMON = 'look for it with: pgrep -af "inlay up|cli.js up"';

/**
 * Takes the lock of `runDir`, which exists and is safe: a flock(2) on a file of its own, which the kernel
 * frees when its holder dies. Throws ERR_PERMISSION if this user may not write there, whether a daemon runs or
 * not. Throws ERR_FAILED if another process has the lock, however slow it is to answer. `help` is what to type
 * then, before the process number.
 */
export async function lockRunDir(runDir: string, help: string): Promise<Lock> {
  const file = path.join(runDir, FILE);
  for (;;) {
    const fd = openLock(runDir, file);
    try {
      const isLocked = native.flock(fd, native.LOCK_EX | native.LOCK_NB) === 0;
      const errno = native.errno();
      // Other errors: some file systems have no locks.
      if (!isLocked && errno !== native.EAGAIN) throw runDirError(runDir, new SystemError('flock', errno, file));
      if (!isLocked) throw await isTaken(runDir, help);
      // Whoever had the lock before may have removed the file meanwhile.
      if (!isSameFile(fd, file)) {
        closeSync(fd);
        continue;
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return {
      isOf: (name) => isSameFile(fd, path.join(name, FILE)),
      discard: () => {
        if (isSameFile(fd, file)) rmSync(file);
      },
      release: () => closeSync(fd),
    };
  }
}

/**
 * Throws ERR_FAILED if a daemon listens in `runDir`, whose lock this process has: the version before locked the
 * directory itself.
 */
export async function refuseRunning(runDir: string, help: string): Promise<void> {
  if (await isListening(runDir)) throw await isTaken(runDir, help);
}

async function isTaken(runDir: string, help: string): Promise<InlayError> {
  const running = await ask<{ pid: unknown }>(runDir, 'status').catch(() => undefined);
  const pid = pidOf(runDir, running?.pid);
  const who = pid ?? (running ? 'unknown: it names one of another user' : 'unknown: it does not answer');
  return new InlayError('ERR_FAILED', `a daemon runs already with run directory ${runDir} (process ${who})`, {
    hint: pid === undefined ? LOOK_FOR_DAEMON : `${help} ${pid}`,
  });
}

/** The number that a daemon says it has, unless the process with that number is another user's. */
function pidOf(runDir: string, pid: unknown): number | undefined {
  if (!Number.isSafeInteger(pid) || (pid as number) <= 1) return undefined;
  const uid = uidOf(pid as number);
  return uid === undefined || uid === statSync(runDir).uid ? (pid as number) : undefined;
}

function openLock(runDir: string, file: string): number {
  try {
    // This comes before the lock: a user who may not write there should hear that first, whether a daemon
    // runs or not.
    accessSync(runDir, constants.W_OK);
    const fd = openOwn(file, LOCK);
    fchmodSync(fd, MODE);
    return fd;
  } catch (cause) {
    throw cause instanceof InlayError ? cause : runDirError(runDir, cause);
  }
}

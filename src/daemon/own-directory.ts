/**
 * The run directory's safety: it is ours, and so is the way to it. Then nobody else can put a file, a link or
 * another directory in the place of what is used, neither before nor while it is used.
 */
import { chmodSync, constants, lstatSync, mkdirSync, readlinkSync, type Stats, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';
import { isOurUser } from '../linux/own-file.ts';
import { SystemError } from '../linux/system-error.ts';
import { quote } from '../shell.ts';

const MODE = 0o755;
const STICKY = 0o1000;
/**
 * The mode of a run directory that Inlay has made and that is not noted yet, or no more: a process that is
 * killed then leaves a directory which says itself that it is to go.
 */
const PASSING = 0o1700;
/** Symbolic links that the kernel follows at most in one name (path_resolution(7)). */
const MAX_LINKS = 40;
const ELSEWHERE = 'choose another with --run-dir';

export interface OwnDirectory {
  /** Without symbolic links. */
  path: string;
  /** Whether Inlay has made it and nothing notes that: it was not there before, or a process was killed. */
  isPassing: boolean;
}

/**
 * Looks at the run directory and the way to it; undefined if there is none, unless it is to be made. Throws
 * ERR_PERMISSION if another user could change what is in it, or what its name stands for.
 */
export function ownDirectory(runDir: string, { make = false } = {}): OwnDirectory | undefined {
  try {
    return walk(runDir, make);
  } catch (cause) {
    throw cause instanceof InlayError ? cause : runDirError(runDir, cause);
  }
}

/** Gives a run directory the mode of one that is to go, or that of any other. */
export function setPassing(runDir: string, isPassing: boolean): void {
  try {
    chmodSync(runDir, isPassing ? PASSING : MODE & ~process.umask());
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw runDirError(runDir, error);
  }
}

/**
 * Follows the name part by part. Each part is looked at in a folder that nobody else can change, so it is the
 * same when it is used.
 */
function walk(runDir: string, make: boolean): OwnDirectory | undefined {
  const ahead = [...(path.isAbsolute(runDir) ? [] : parts(process.cwd())), ...parts(runDir)];
  let here = '/';
  for (let links = 0; ahead.length > 0; ) {
    const part = ahead.shift() as string;
    if (part === '..') {
      here = path.dirname(here);
      continue;
    }
    checkParent(runDir, here);
    const next = path.join(here, part);
    let found = lstatSync(next, { throwIfNoEntry: false });
    if (!found) {
      if (!make) return undefined;
      mkdirSync(next, ahead.length === 0 ? PASSING : MODE);
      found = lstatSync(next);
    }
    if (found.isSymbolicLink()) {
      if (!isTrusted(found.uid)) throw unsafe(runDir, `the link ${next} on the way there belongs to user ${found.uid}`);
      if (++links > MAX_LINKS) throw new SystemError('open', os.constants.errno.ELOOP, runDir);
      const target = readlinkSync(next);
      if (path.isAbsolute(target)) here = '/';
      ahead.unshift(...parts(target));
    } else here = next;
  }
  const { mode } = checkItself(runDir, here);
  return { path: here, isPassing: (mode & 0o1777) === PASSING };
}

function parts(name: string): string[] {
  return name.split('/').filter((part) => part !== '' && part !== '.');
}

/** In such a folder nobody else can make, rename or remove what is ours. */
function checkParent(runDir: string, folder: string): void {
  const { uid, mode } = directoryStat(folder);
  if (!isTrusted(uid)) throw unsafe(runDir, `its parent ${folder} belongs to user ${uid}`);
  if (isOpen(mode) && !(mode & STICKY))
    throw unsafe(runDir, `others may write in its parent ${folder} ${modeText(mode)}`);
}

function checkItself(runDir: string, here: string): Stats {
  const found = directoryStat(here);
  if (!isOurUser(found.uid))
    throw unsafe(runDir, `it belongs to user ${found.uid}`, `run it as that user, or ${ELSEWHERE}`);
  if (isOpen(found.mode)) {
    const hint = `look what is in it, then: chmod go-w ${quote(here)}; or ${ELSEWHERE}`;
    throw unsafe(runDir, `others may write there ${modeText(found.mode)}`, hint);
  }
  const named = statSync(runDir);
  // A name such as /proc/1/root leads elsewhere than its text says.
  if (named.dev !== found.dev || named.ino !== found.ino) throw unsafe(runDir, 'its name leads elsewhere than it says');
  return found;
}

function directoryStat(folder: string): Stats {
  const found = lstatSync(folder);
  if (!found.isDirectory()) throw new SystemError('open', os.constants.errno.ENOTDIR, folder);
  return found;
}

/**
 * Root, this user, and whoever has the root directory: all is in their hands anyway. In a user namespace the
 * latter is the machine's root, who has no number of their own there (user_namespaces(7)).
 */
function isTrusted(uid: number): boolean {
  return isOurUser(uid) || uid === statSync('/').uid;
}

/** To the group or to all. An access control list shows as the group's rights (acl(5)). */
function isOpen(mode: number): boolean {
  return (mode & (constants.S_IWGRP | constants.S_IWOTH)) !== 0;
}

function modeText(mode: number): string {
  return `(mode ${(mode & 0o7777).toString(8).padStart(4, '0')})`;
}

function unsafe(runDir: string, why: string, hint: string = ELSEWHERE): InlayError {
  return new InlayError('ERR_PERMISSION', `run directory ${runDir} is not safe: ${why}`, { hint });
}

/** What it means that the run directory cannot be made or used. */
export function runDirError(runDir: string, cause: unknown): InlayError {
  const code = errorCode(cause);
  return code === 'EACCES'
    ? new InlayError('ERR_PERMISSION', `run directory ${runDir}: this user may not write there (${code})`, { cause })
    : new InlayError('ERR_FAILED', `run directory ${runDir}: ${code}`, { hint: ELSEWHERE, cause });
}

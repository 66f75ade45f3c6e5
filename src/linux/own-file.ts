/**
 * Files of our own in a directory of our own. Nobody else can write there, but somebody could when the
 * directory was another's, or open to all: so nothing is followed, waited for or taken over that is not a
 * plain file of ours.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { errorCode, InlayError } from '../errors.ts';
import { writeAll } from './whole.ts';

/** For this user alone. */
const MODE = 0o600;
/** Bytes. A longer file is not one that we wrote. */
const LONGEST = 64 << 20;
/**
 * No symbolic link is followed, and a FIFO does not keep us waiting (open(2)). Node adds O_CLOEXEC. The flag
 * means nothing for a file.
 */
const CAREFUL = constants.O_NOFOLLOW | constants.O_NONBLOCK;

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY } = constants;
export const APPEND: number = O_WRONLY | O_APPEND | O_CREAT;
export const LOCK: number = O_RDWR | O_CREAT;

/** Whether files of this user are ours: root's are, and those of the user that this process is. */
export function isOurUser(uid: number): boolean {
  return uid === 0 || uid === process.geteuid?.();
}

/**
 * Opens a file of ours, or of another user who may have made it. Throws ERR_FAILED if it is something else; the
 * system's own errors stay as they are.
 */
export function openOwn(file: string, flags: number, user?: number): number {
  const fd = openSync(file, flags | CAREFUL, MODE);
  try {
    checkOwn(file, fstatSync(fd), user);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function checkOwn(file: string, found: Stats, user: number | undefined): void {
  const why = !found.isFile()
    ? 'is no plain file'
    : !isOurUser(found.uid) && found.uid !== user
      ? `belongs to user ${found.uid}`
      : // A hard link gives a file of another directory a name here. Without any name it has just been replaced.
        found.nlink > 1
        ? 'has another name elsewhere'
        : undefined;
  if (why === undefined) return;
  throw new InlayError('ERR_FAILED', `${file} ${why}: it is not one that Inlay made`, { hint: 'remove it' });
}

/** What is in a file of ours, or of another user who may have made it; undefined if there is none. */
export function readOwn(file: string, user?: number): Buffer | undefined {
  let fd: number;
  try {
    fd = openOwn(file, O_RDONLY, user);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    if (fstatSync(fd).size > LONGEST) throw new InlayError('ERR_FAILED', `${file} is longer than any that Inlay made`);
    return readFileSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Gives a file this content in one step: a process that is killed meanwhile leaves the old one whole. Throws
 * if it cannot be written whole, and then leaves the old one, too.
 */
export function replaceOwn(file: string, content: string | Uint8Array): void {
  const fresh = `${file}.new`;
  // Of a process that was killed. What is removed is the name, whatever it stands for.
  removeName(fresh);
  const fd = openSync(fresh, O_WRONLY | O_CREAT | O_EXCL | CAREFUL, MODE);
  try {
    writeAll(fd, content);
    renameSync(fresh, file);
  } catch (error) {
    removeName(fresh);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Removes a file of ours, and what was left of writing it. */
export function removeOwn(file: string): void {
  removeName(file);
  removeName(`${file}.new`);
}

/** Removes a name in our directory, whatever it stands for. Throws ERR_FAILED if that is a directory. */
export function removeName(name: string): void {
  try {
    unlinkSync(name);
  } catch (cause) {
    const code = errorCode(cause);
    if (code !== 'ENOENT') throw new InlayError('ERR_FAILED', `${name} cannot be removed: ${code}`, { cause });
  }
}

/** Whether this name still stands for the open file. */
export function isSameFile(fd: number, file: string): boolean {
  const [held, there] = [fstatSync(fd), lstatSync(file, { throwIfNoEntry: false })];
  return held.nlink > 0 && held.dev === there?.dev && held.ino === there.ino;
}

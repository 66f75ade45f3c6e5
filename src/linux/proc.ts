/** What the kernel tells in /proc. */
import { readFileSync } from 'node:fs';
import { errorCode } from '../errors.ts';

/** Empty if the kernel has no such thing. */
export function readIfExists(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return '';
    throw error;
  }
}

/** The lines of loaded modules, each of which begins with the name. Empty where the kernel loads none. */
export function loadedModules(): string {
  return readIfExists('/proc/modules');
}

/** The user that a process acts as; undefined if there is no such process, or it cannot be seen. */
export function uidOf(pid: number): number | undefined {
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(ofProcess(pid, 'status'))?.[1];
  return uid === undefined ? undefined : Number(uid);
}

/** A file below /proc of a process; empty if it has gone, or cannot be seen. */
export function ofProcess(pid: number | 'self', name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    return '';
  }
}

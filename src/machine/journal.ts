/** What the daemon changed on this machine, written down before it is done, so that it can be undone whatever happens to the process. */
import { existsSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';
import type { OverlayRoute } from './steps.ts';
import { undo } from './undo.ts';

/** One change and how to take it back. A TUN device needs none: the kernel deletes it, with its addresses and routes, when its descriptor is closed. */
export type Change =
  /** A run directory that did not exist. */
  | { kind: 'directory'; path: string }
  /** A device that we made. */
  | { kind: 'link'; device: string }
  /** A port of the kernel's FOU. */
  | { kind: 'fou'; port: number }
  | { kind: 'route'; route: OverlayRoute }
  /** Our program at the ingress of a device of others; with the discipline that holds it if that was not there. */
  | { kind: 'filter'; device: string }
  | { kind: 'clsact'; device: string }
  /** A link that we set up (IFF_UP) and that was down. */
  | { kind: 'link-up'; name: string }
  /** A sysctl and the value that it had. */
  | { kind: 'sysctl'; file: string; before: string };

const FILE = 'changes.json';

export class Journal {
  readonly #file: string;
  #changes: Change[];

  /** Opens the journal of `runDir`, which exists, with what a killed daemon left in it. */
  constructor(runDir: string) {
    this.#file = path.join(runDir, FILE);
    this.#changes = existsSync(this.#file) ? read(this.#file) : [];
  }

  get isEmpty(): boolean {
    return this.#changes.length === 0;
  }

  has(change: Change): boolean {
    const text = JSON.stringify(change);
    return this.#changes.some((known) => JSON.stringify(known) === text);
  }

  /** Notes a change that is about to be made. */
  add(change: Change): void {
    if (this.has(change)) return;
    this.#changes.push(change);
    this.#write();
  }

  /** Takes the note of a change back that was not made. */
  forget(change: Change): void {
    const text = JSON.stringify(change);
    this.#changes = this.#changes.filter((known) => JSON.stringify(known) !== text);
    this.#write();
  }

  /** Sets a sysctl, by its file under /proc/sys; false if it had that value. Throws ERR_FAILED if it is not allowed. */
  sysctl(file: string, value: string): boolean {
    const before = readFileSync(file, 'utf8').trim();
    if (before === value) return false;
    // An earlier daemon of ours may have found another value.
    const isKnown = this.#changes.some((change) => change.kind === 'sysctl' && change.file === file);
    if (!isKnown) this.add({ kind: 'sysctl', file, before });
    try {
      writeFileSync(file, value);
      return true;
    } catch (cause) {
      const name = file.slice('/proc/sys/'.length).replaceAll('/', '.');
      throw new InlayError('ERR_FAILED', `${name} is ${before} and cannot be set to ${value}: ${errorCode(cause)}`, {
        hint: 'let /proc/sys be writable; in a container, that is up to what runs it',
        cause,
      });
    }
  }

  /**
   * Takes changes back, the last first, but for those that are to stay; what is gone already is no error. Returns what was undone; throws ERR_FAILED at the end
   * if something could not be.
   */
  undo(stays: (change: Change) => boolean = () => false): Change[] {
    const undone: Change[] = [];
    const left: Change[] = [];
    const failures: string[] = [];
    for (const change of this.#changes.toReversed()) {
      try {
        if (stays(change)) left.unshift(change);
        else if (undo(change)) undone.push(change);
      } catch (error) {
        left.unshift(change);
        failures.push(error instanceof Error ? error.message : String(error));
      }
    }
    this.#changes = left;
    if (left.length > 0) this.#write();
    else {
      rmSync(this.#file, { force: true });
      rmSync(`${this.#file}.new`, { force: true });
    }
    if (failures.length > 0) throw new InlayError('ERR_FAILED', `could not be undone: ${failures.join('; ')}`);
    for (const change of undone) if (change.kind === 'directory') removeIfEmpty(change.path);
    return undone;
  }

  #write(): void {
    // In one step: a process that is killed while it writes leaves the old file whole.
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#changes));
    renameSync(`${this.#file}.new`, this.#file);
  }
}

function read(file: string): Change[] {
  let why = 'not a list';
  try {
    const changes = JSON.parse(readFileSync(file, 'utf8'));
    if (Array.isArray(changes)) return changes;
  } catch (error) {
    why = (error as Error).message;
  }
  throw new InlayError('ERR_FAILED', `${file} is damaged: ${why}`, {
    hint: `remove by hand what it names (cat ${file}), then the file: rm ${file}`,
  });
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!['ENOTEMPTY', 'ENOENT', 'EACCES', 'EPERM', 'EBUSY'].includes(errorCode(error) ?? '')) throw error;
  }
}

/** What the daemon changed on this machine, written down before it is done, so that it can be undone whatever happens to the process. */
import { existsSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { errorCode, InlayError } from './errors.ts';
import { ip } from './iproute.ts';

/** One change and how to take it back. The device needs none: the kernel deletes it, with its addresses and routes, when its descriptor is closed. */
export type Change =
  /** A run directory that did not exist. */
  | { kind: 'directory'; path: string }
  /** `ip route del` with these words. */
  | { kind: 'route'; route: string[] }
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

  /** Notes a change that is about to be made. */
  add(change: Change): void {
    this.#changes.push(change);
    this.#write();
  }

  /** Sets a sysctl, by its file under /proc/sys; false if it had that value. Throws ERR_FAILED if it is not allowed. */
  sysctl(file: string, value: string): boolean {
    const before = readFileSync(file, 'utf8').trim();
    if (before === value) return false;
    this.add({ kind: 'sysctl', file, before });
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

  /** Takes all changes back, the last first; what is gone already is no error. Returns what was undone; throws ERR_FAILED at the end if something could not be. */
  async undo(): Promise<Change[]> {
    const undone: Change[] = [];
    const failed: { change: Change; why: string }[] = [];
    for (const change of this.#changes.toReversed()) {
      try {
        if (await undo(change)) undone.push(change);
      } catch (error) {
        failed.unshift({ change, why: error instanceof Error ? error.message : String(error) });
      }
    }
    this.#changes = failed.map(({ change }) => change);
    if (failed.length > 0) {
      this.#write();
      throw new InlayError('ERR_FAILED', `could not be undone: ${failed.map((f) => f.why).join('; ')}`);
    }
    rmSync(this.#file, { force: true });
    rmSync(`${this.#file}.new`, { force: true });
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

/** Takes one change back; false if it was gone already. */
async function undo(change: Change): Promise<boolean> {
  switch (change.kind) {
    case 'directory':
      return true; // It holds the journal itself, so it goes last.
    case 'route':
      return ran(['route', 'del', ...change.route]);
    case 'link-up':
      return ran(['link', 'set', 'dev', change.name, 'down']);
    case 'sysctl':
      if (!existsSync(change.file) || readFileSync(change.file, 'utf8').trim() === change.before) return false;
      writeFileSync(change.file, change.before);
      return true;
  }
}

/** Runs `ip`; false if it says that there is no such device or route any more. */
async function ran(words: string[]): Promise<boolean> {
  try {
    await ip(words);
    return true;
  } catch (error) {
    if (error instanceof InlayError && /Cannot find device|does not exist|No such (process|device)/.test(error.message))
      return false;
    throw error;
  }
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!['ENOTEMPTY', 'ENOENT', 'EACCES', 'EPERM', 'EBUSY'].includes(errorCode(error) ?? '')) throw error;
  }
}

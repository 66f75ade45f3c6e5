/** What the daemon changed on this machine, written down before it is done, so that it can be undone whatever happens to the process. */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { InlayError } from './errors.ts';
import { ip, ipJson } from './iproute.ts';

/** One change and how to take it back. */
export type Change =
  /** A device that we made; `alias` tells it from one of the same name that somebody made after ours was gone. */
  | { kind: 'device'; name: string; alias: string }
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

  /** Opens the journal of `runDir`, which exists; what a killed daemon left is in `changes`. */
  constructor(runDir: string) {
    this.#file = path.join(runDir, FILE);
    this.#changes = existsSync(this.#file) ? read(this.#file) : [];
  }

  get changes(): readonly Change[] {
    return this.#changes;
  }

  /** Notes a change that is about to be made. */
  add(change: Change): void {
    this.#changes.push(change);
    // In one step: a process that is killed while it writes leaves the old file whole.
    writeFileSync(`${this.#file}.new`, JSON.stringify(this.#changes));
    renameSync(`${this.#file}.new`, this.#file);
  }

  /** Sets a sysctl, by its file under /proc/sys. */
  sysctl(file: string, value: string): void {
    const before = readFileSync(file, 'utf8').trim();
    if (before === value) return;
    this.add({ kind: 'sysctl', file, before });
    writeFileSync(file, value);
  }

  /** Takes all changes back, the last first; what is gone already is no error. Returns what was undone. */
  async undo(): Promise<Change[]> {
    const undone: Change[] = [];
    for (const change of this.#changes.toReversed()) {
      if (await undo(change)) undone.push(change);
    }
    this.#changes = [];
    rmSync(this.#file, { force: true });
    return undone;
  }
}

function read(file: string): Change[] {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new InlayError('ERR_FAILED', `${file} is damaged: ${(cause as Error).message}`, {
      hint: `remove by hand what it names (cat ${file}), then the file: rm ${file}`,
      cause,
    });
  }
}

/** Takes one change back; false if it was gone already. */
async function undo(change: Change): Promise<boolean> {
  try {
    switch (change.kind) {
      case 'device': {
        const [link] = await ipJson<{ ifalias?: string }>(['link', 'show', 'dev', change.name]);
        if (link?.ifalias !== change.alias) return false;
        await ip(['link', 'del', 'dev', change.name]);
        return true;
      }
      case 'route':
        await ip(['route', 'del', ...change.route]);
        return true;
      case 'link-up':
        await ip(['link', 'set', 'dev', change.name, 'down']);
        return true;
      case 'sysctl':
        if (!existsSync(change.file)) return false;
        writeFileSync(change.file, change.before);
        return true;
    }
  } catch (error) {
    // `ip` says that there is no such device or route: somebody was faster.
    if (error instanceof InlayError && /Cannot find device|does not exist|No such (process|device)/.test(error.message))
      return false;
    throw error;
  }
}

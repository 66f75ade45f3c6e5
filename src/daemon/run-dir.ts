/**
 * The run directory. It holds the daemon's lock, the control socket, the journal, and what attaching
 * containers has to know of the mesh. What is swept away while the daemon runs comes back.
 */
import { type FSWatcher, watch } from 'node:fs';
import path from 'node:path';
import { hasMesh, type Mesh, readMesh, removeMesh, writeMesh } from '../containers/mesh.ts';
import { readOwn, removeOwn } from '../linux/own-file.ts';
import { DAEMON, Journal } from '../machine/journal.ts';
import type { DirectoryThing } from '../machine/state.ts';
import { kindOf } from '../machine/things/kinds.ts';
import { type Address, parseAddress } from '../mesh/address.ts';
import { type ControlRoutes, ControlServer } from './control.ts';
import { type Lock, lockRunDir, refuseRunning } from './lock.ts';
import { type OwnDirectory, ownDirectory, runDirError, setPassing } from './own-directory.ts';

/** Where the version before left the underlay address of this VM. */
const VM = 'vm';

export class RunDir {
  readonly journal: Journal;
  readonly #path: string;
  readonly #routes: ControlRoutes;
  #lock: Lock;
  #control: ControlServer;
  #watcher: FSWatcher | undefined;
  #onSwept: () => void = () => {};
  #mesh: Mesh | undefined;

  /**
   * Makes the directory if there is none. Throws ERR_FAILED if a daemon has it, and ERR_PERMISSION if this
   * user may not, or others could change what is in it.
   */
  static async open(name: string, routes: ControlRoutes): Promise<RunDir> {
    const { path: runDir, isPassing } = made(name);
    const help = 'choose another directory with --run-dir for a second mesh, or stop it: kill';
    const lock = await lockRunDir(runDir, help);
    let control: ControlServer | undefined;
    try {
      await refuseRunning(runDir, help);
      control = await ControlServer.listen(runDir, routes);
      const journal = new Journal(runDir);
      if (isPassing) journal.add(DAEMON, thingOf(runDir));
      if (isPassing && journal.isWritten) setPassing(runDir, false);
      return new RunDir(runDir, routes, lock, control, journal);
    } catch (error) {
      await control?.close();
      lock.discard();
      lock.release();
      throw error;
    }
  }

  private constructor(runDir: string, routes: ControlRoutes, lock: Lock, control: ControlServer, journal: Journal) {
    this.#path = runDir;
    this.#routes = routes;
    this.#lock = lock;
    this.#control = control;
    this.journal = journal;
  }

  /** The underlay address that this VM had last, as far as the directory knows. */
  get lastVm(): Address | undefined {
    try {
      const before = () => parseAddress(readOwn(path.join(this.#path, VM))?.toString().trim() ?? '');
      return readMesh(this.#path)?.local ?? before();
    } catch {
      return undefined;
    }
  }

  /** Leaves the mesh there, for whoever attaches containers and for the next daemon. */
  leaveMesh(mesh: Mesh): void {
    this.#mesh = mesh;
    try {
      writeMesh(this.#path, mesh);
    } catch {} // If nothing can be written there, `keep` says so.
  }

  /** Calls back when something in the directory may have been removed. */
  watch(onSwept: () => void): void {
    this.#onSwept = onSwept;
    this.#watcher?.close();
    try {
      this.#watcher = watch(this.#path, { persistent: false }, (event) => {
        if (event === 'rename' && !this.#isWhole()) this.#onSwept();
      }).on('error', () => {});
    } catch {} // The machine may have too many watchers. The next look finds what was removed.
  }

  /** Makes what has gone anew; returns what that was. Throws if another daemon has the directory by now. */
  async keep(): Promise<string | undefined> {
    if (this.#isWhole()) return undefined;
    const { isPassing } = made(this.#path);
    const isOther = !this.#lock.isOf(this.#path);
    if (isOther) {
      const lock = await lockRunDir(this.#path, 'stop it: kill');
      this.#lock.release();
      this.#lock = lock;
    }
    // A socket in another directory is not ours, but a dead daemon's.
    if (isOther || !ControlServer.isThere(this.#path)) {
      // Closing the old server removes its socket, so it is closed before the new one listens.
      await this.#control.close();
      this.#control = await ControlServer.listen(this.#path, this.#routes);
    }
    try {
      if (!this.journal.isWritten) this.journal.rewrite();
      if (this.#mesh) writeMesh(this.#path, this.#mesh);
    } catch (cause) {
      throw runDirError(this.#path, cause);
    }
    if (isPassing) setPassing(this.#path, false);
    this.watch(this.#onSwept);
    return `run directory ${this.#path} was swept away, or could not be written`;
  }

  /** Stops answering. The directory goes if we made it, and nothing is noted any more. */
  async close(): Promise<void> {
    this.#watcher?.close();
    await this.#control.close();
    removeIfDone({ path: this.#path, isPassing: false }, this.journal, this.#lock);
    this.#lock.release();
  }

  #isWhole(): boolean {
    const hasFiles = this.#lock.isOf(this.#path) && ControlServer.isThere(this.#path) && this.journal.isWritten;
    return hasFiles && (!this.#mesh || hasMesh(this.#path, this.#mesh));
  }
}

/**
 * Removes the lock's file and, unless something is noted still, a run directory that an earlier daemon made;
 * returns whether it went.
 */
export function removeIfDone(directory: OwnDirectory, journal: Journal, lock: Lock): boolean {
  const { path: runDir } = directory;
  // Whatever path it has: a journal is about the directory that it is in.
  const notes = journal.entries(DAEMON).filter(({ thing }) => thing.kind === 'directory');
  const isDone = journal.size === notes.length;
  const isGoing = isDone && (directory.isPassing || notes.length > 0);
  if (isGoing) setPassing(runDir, true);
  if (isDone) {
    removeMesh(runDir);
    removeOwn(path.join(runDir, VM));
    for (const { thing } of notes) journal.drop(DAEMON, thing);
    journal.discard();
  }
  lock.discard();
  if (!isGoing) return false;
  const thing = thingOf(runDir);
  const isGone = kindOf(thing).undo?.(thing, undefined as never) ?? false;
  if (!isGone) setPassing(runDir, false); // Others have put something there.
  return isGone;
}

function thingOf(runDir: string): DirectoryThing {
  return { kind: 'directory', path: runDir };
}

function made(runDir: string): OwnDirectory {
  return ownDirectory(runDir, { make: true }) as OwnDirectory;
}

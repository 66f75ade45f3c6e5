/**
 * The run directory. It holds the daemon's lock, its sockets, the journal, and what attaching
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
import {
  ATTACH,
  CONTROL,
  type ControlRoutes,
  ControlServer,
  removeDeadSockets,
  type SocketKind,
} from './control-server.ts';
import { type Lock, lockRunDir, refuseRunning } from './lock.ts';
import { type OwnDirectory, ownDirectory, runDirError, setPassing } from './own-directory.ts';

/** Where the version before left the underlay address of this VM. */
const VM = 'vm';

/** ms that whoever has connected is waited for when the daemon ends. */
const STRAGGLERS = 1000;

/** What is answered on which socket. */
type Sockets = readonly (readonly [kind: SocketKind, routes: ControlRoutes])[];

export class RunDir {
  readonly journal: Journal;
  readonly #path: string;
  #sockets: Sockets;
  #lock: Lock;
  #servers: ControlServer[];
  #watcher: FSWatcher | undefined;
  #onSwept: () => void = () => {};
  #mesh: Mesh | undefined;

  /**
   * Makes the directory if there is none. Throws ERR_FAILED if a daemon has it, and ERR_PERMISSION if this
   * user may not, or others could change what is in it. `attach` is what whoever attaches containers may ask;
   * without it there is no socket for that.
   */
  static async open(name: string, routes: ControlRoutes, attach?: ControlRoutes): Promise<RunDir> {
    const { path: runDir, isPassing } = made(name);
    const help = 'choose another directory with --run-dir for a second mesh, or stop it: kill';
    const lock = await lockRunDir(runDir, help);
    const sockets: Sockets = [[CONTROL, routes], ...(attach ? [[ATTACH, attach] as const] : [])];
    const servers: ControlServer[] = [];
    try {
      await refuseRunning(runDir, help);
      removeDeadSockets(runDir);
      await listen(runDir, sockets, servers);
      const journal = new Journal(runDir);
      if (isPassing) journal.add(DAEMON, thingOf(runDir));
      if (isPassing && journal.isWritten) setPassing(runDir, false);
      return new RunDir(runDir, sockets, lock, servers, journal);
    } catch (error) {
      await close(servers);
      lock.discard();
      lock.release();
      throw error;
    }
  }

  private constructor(runDir: string, sockets: Sockets, lock: Lock, servers: ControlServer[], journal: Journal) {
    this.#path = runDir;
    this.#sockets = sockets;
    this.#lock = lock;
    this.#servers = servers;
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

  /** The mesh that an earlier daemon left, or this one. */
  get mesh(): Mesh | undefined {
    return meshIn(this.#path);
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
    if (isOther || !this.#hasSockets()) {
      // Closing an old server removes its socket, so it is closed before the new one listens.
      await close(this.#servers.splice(0));
      await listen(this.#path, this.#sockets, this.#servers);
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

  /** Takes no more calls that attach, and lets those that have come be answered. Resolves when they are. */
  async finishAttaching(): Promise<void> {
    const i = this.#sockets.findIndex(([kind]) => kind === ATTACH);
    this.#sockets = this.#sockets.filter(([kind]) => kind !== ATTACH);
    await Promise.all((i < 0 ? [] : this.#servers.splice(i, 1)).map((server) => server.finish(STRAGGLERS)));
  }

  /** Stops answering. The directory goes if we made it, and nothing is noted any more, and nobody uses it. */
  async close(isInUse = false): Promise<void> {
    this.#watcher?.close();
    await close(this.#servers);
    removeIfDone({ path: this.#path, isPassing: false }, this.journal, this.#lock, isInUse);
    this.#lock.release();
  }

  #isWhole(): boolean {
    const hasFiles = this.#lock.isOf(this.#path) && this.#hasSockets() && this.journal.isWritten;
    return hasFiles && (!this.#mesh || hasMesh(this.#path, this.#mesh));
  }

  #hasSockets(): boolean {
    return (
      this.#servers.length === this.#sockets.length &&
      this.#sockets.every(([kind]) => ControlServer.isThere(this.#path, kind))
    );
  }
}

/** The mesh that a daemon left in its run directory; undefined if none did, or that is damaged. */
export function meshIn(runDir: string): Mesh | undefined {
  try {
    return readMesh(runDir);
  } catch {
    return undefined;
  }
}

/**
 * Removes the lock's file and, unless something is noted still, or attached containers need what it says of the
 * mesh, a run directory that an earlier daemon made; returns whether it went.
 */
export function removeIfDone(directory: OwnDirectory, journal: Journal, lock: Lock, isInUse = false): boolean {
  const { path: runDir } = directory;
  // Whatever path it has: a journal is about the directory that it is in.
  const notes = journal.entries(DAEMON).filter(({ thing }) => thing.kind === 'directory');
  const isDone = journal.size === notes.length && !isInUse;
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

/** Adds a server for each socket. */
async function listen(runDir: string, sockets: Sockets, servers: ControlServer[]): Promise<void> {
  for (const [kind, routes] of sockets) servers.push(await ControlServer.listen(runDir, routes, kind));
}

async function close(servers: readonly ControlServer[]): Promise<void> {
  await Promise.all(servers.map((server) => server.close()));
}

function thingOf(runDir: string): DirectoryThing {
  return { kind: 'directory', path: runDir };
}

function made(runDir: string): OwnDirectory {
  return ownDirectory(runDir, { make: true }) as OwnDirectory;
}

/** `down`: removes what daemons left on this machine. */
import { statSync } from 'node:fs';
import {
  attachedCount,
  removeOwnAddress,
  removeTombstones,
  tombstones,
  unusedAddresses,
} from '../containers/leftovers.ts';
import { InlayError } from '../errors.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { isOurUser } from '../linux/own-file.ts';
import { isOurAlias } from '../machine/alias.ts';
import { daemonText, findDaemons } from '../machine/daemons.ts';
import { heldDevices } from '../machine/device-locks.ts';
import { DAEMON, type Entry, GUARD, Journal } from '../machine/journal.ts';
import { Machine } from '../machine/machine.ts';
import { remains } from '../machine/remains.ts';
import { isCatchAll, type Thing } from '../machine/state.ts';
import { hasFilter } from '../machine/things/filter.ts';
import { becomeUser } from './become.ts';
import { commandAs, explainPermission, requireCapabilities } from './capabilities.ts';
import { removeDeadSockets } from './control-server.ts';
import { type Lock, lockRunDir, refuseRunning } from './lock.ts';
import { ownDirectory } from './own-directory.ts';
import { meshIn, removeIfDone } from './run-dir.ts';
import { takeSignals } from './signals.ts';

/** For routes and sysctls. */
const CAPABILITIES = ['CAP_NET_ADMIN'] as const;
const STOP_IT = 'stop it first: kill';
/** Containers' devices that are named, at most. */
const MAX_NAMED = 8;

export interface Leftovers {
  /** What was removed, in words. */
  removed: string[];
  /** How many containers are attached: they are left alone. */
  attached: number;
  /** The daemons that run with other run directories, in words. */
  running: string[];
}

/** Throws ERR_FAILED while the daemon of `runDir` runs. */
export function removeLeftovers(runDir: string): Promise<Leftovers> {
  return explainPermission({ capabilities: CAPABILITIES, runDir, tun: false }, async () => ({
    ...(await remove(runDir)),
    running: findDaemons().map(daemonText),
  }));
}

async function remove(name: string): Promise<Omit<Leftovers, 'running'>> {
  const isTheirs = enter(name);
  const directory = ownDirectory(name);
  const runDir = directory?.path;
  const lock = runDir === undefined ? undefined : await lockRunDir(runDir, STOP_IT);
  let machine: Machine | undefined;
  try {
    if (runDir !== undefined) await refuseRunning(runDir, STOP_IT);
    const journal = new Journal(runDir);
    machine = new Machine(journal);
    const { netlink } = machine;
    // What another user says of the mesh is not believed.
    const mesh = runDir === undefined || isTheirs ? undefined : meshIn(runDir);
    const attached = attachedCount(netlink, mesh);
    const addresses = unusedAddresses(netlink, mesh);
    const buried = tombstones(netlink, mesh);
    if (addresses.length + buried.length > 0) requireCapabilities(CAPABILITIES);
    if ([DAEMON, GUARD].some((owner) => journal.entries(owner).length > 0)) requireCapabilities(CAPABILITIES);
    if (runDir !== undefined) removeDeadSockets(runDir);
    // As long as there are containers, what they send to other VMs does not leave in plain.
    const stays = (thing: Thing) => attached > 0 && isCatchAll(thing);
    const says = isTheirs ? saysItself(machine) : () => true;
    // Without the overlay's device there are fewer neighbours to look through.
    const removed = [
      ...machine.undo((entry) => says(entry) && !stays(entry.thing)),
      ...shortened(isTheirs ? [] : machine.undo(undefined, GUARD)),
    ];
    if (isTheirs) forgetRest(journal);
    // Without complete notes the machine tells what is ours.
    if (!journal.isWhole) removed.push(...removeRemains(machine, stays));
    removed.push(...removeTombstones(netlink, buried));
    removed.push(...addresses.flatMap((each) => removeOwnAddress(netlink, each)));
    const isInUse = attached > 0;
    if (directory && removeIfDone(directory, journal, lock as Lock, isInUse))
      removed.push(`directory ${directory.path}`);
    if (journal.foreign > 0) throw notUnderstood(name, journal.foreign);
    return { removed, attached };
  } finally {
    machine?.close();
    lock?.discard();
    lock?.release();
  }
}

/** There may be thousands of containers' devices. */
function shortened(removed: string[]): string[] {
  return removed.length > MAX_NAMED ? [`settings of ${removed.length} containers' devices`] : removed;
}

/**
 * Root becomes the user whom the directory belongs to, as that of a daemon without root's rights does; returns
 * whether it did. Whether the directory is safe is looked at afterwards, with that user's eyes. What they noted
 * could be about things of a daemon that runs, so that none may run.
 */
function enter(runDir: string): boolean {
  if (process.geteuid?.() !== 0) return false;
  const owner = ownerOf(runDir);
  if (owner === undefined || isOurUser(owner)) return false;
  if (heldDevices().count > 0) {
    const running = findDaemons().map(daemonText).join('; ');
    throw new InlayError(
      'ERR_PERMISSION',
      `run directory ${runDir} belongs to user ${owner}, and another daemon runs here${running && ` (${running})`}: root does not do then what that user noted`,
      { hint: commandAs(owner, CAPABILITIES) },
    );
  }
  // That user may send signals to this process from now on: none opens Node's debugger.
  takeSignals();
  becomeUser(owner, CAPABILITIES);
  return true;
}

function ownerOf(runDir: string): number | undefined {
  try {
    return statSync(runDir).uid;
  } catch {
    return undefined; // There is none, or what is wrong is found again, and said.
  }
}

/**
 * Of what another user has noted, only what says itself that it is ours: our devices by their alias, routes and
 * rules by their protocol, the barrier and programs by their names, and a discipline by the program in it. What
 * settings others' devices are said to have had is not believed.
 */
function saysItself({ netlink }: Machine): (entry: Entry) => boolean {
  return ({ thing }) => {
    if (!('device' in thing) || thing.kind === 'route' || thing.kind === 'filter') return true;
    if (thing.kind === 'clsact') {
      const index = findLink(netlink, thing.index ?? thing.device)?.index;
      return index === undefined || hasFilter(netlink, index, 'ingress');
    }
    const found = findLink(netlink, thing.device ?? '');
    return !found || isOurAlias(found.alias);
  };
}

/** What was left as it is, because nothing but the note says that it is ours. */
function forgetRest(journal: Journal): void {
  for (const owner of [DAEMON, GUARD]) {
    for (const { thing } of journal.entries(owner)) if (thing.kind !== 'directory') journal.drop(owner, thing);
  }
}

function removeRemains(machine: Machine, stays: (thing: Thing) => boolean): string[] {
  const found = remains(machine.netlink).filter((thing) => !stays(thing));
  if (found.length > 0) requireCapabilities(CAPABILITIES);
  return machine.takeAllBack(found);
}

function notUnderstood(runDir: string, count: number): InlayError {
  return new InlayError(
    'ERR_FAILED',
    `the journal in ${runDir} has lines of another version (${count}): they are left`,
    {
      hint: 'run inlay down of that version, too',
    },
  );
}

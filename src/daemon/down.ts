/** `down`: removes what daemons left on this machine. */
import { existsSync } from 'node:fs';
import { InlayError } from '../errors.ts';
import { daemonText, findDaemons } from '../machine/daemons.ts';
import { DAEMON, GUARD, Journal } from '../machine/journal.ts';
import { Machine } from '../machine/machine.ts';
import { remains } from '../machine/remains.ts';
import { kindOf } from '../machine/things/kinds.ts';
import { explainPermission, requireCapabilities } from './capabilities.ts';
import { removeDeadSocket } from './control.ts';
import { lockRunDir } from './lock.ts';
import { removeIfDone } from './run-dir.ts';

/** For routes and sysctls. */
const CAPABILITIES = ['CAP_NET_ADMIN'] as const;
/** Containers' devices that are named, at most. */
const MAX_NAMED = 8;

/**
 * Resolves to what was removed, and to the daemons that run with other run directories, in words. Throws
 * ERR_FAILED while the daemon of `runDir` runs.
 */
export function removeLeftovers(runDir: string): Promise<{ removed: string[]; running: string[] }> {
  return explainPermission({ capabilities: CAPABILITIES, runDir, tun: false }, async () => ({
    removed: await remove(runDir),
    running: findDaemons().map(daemonText),
  }));
}

async function remove(runDir: string): Promise<string[]> {
  const lock = existsSync(runDir) ? await lockRunDir(runDir, 'stop it first: kill') : undefined;
  let machine: Machine | undefined;
  try {
    const journal = new Journal(runDir);
    machine = new Machine(journal);
    if ([DAEMON, GUARD].some((owner) => journal.entries(owner).length > 0)) requireCapabilities(CAPABILITIES);
    if (lock) removeDeadSocket(runDir);
    // Without the overlay's device there are fewer neighbours to look through.
    const removed = [...machine.undo(), ...shortened(machine.undo(undefined, GUARD))];
    // Without complete notes the machine tells what is ours.
    if (journal.isMissing || journal.isDamaged) removed.push(...removeRemains(machine));
    if (lock && removeIfDone(runDir, journal)) removed.push(`directory ${runDir}`);
    if (journal.foreign > 0) throw notUnderstood(runDir, journal.foreign);
    return removed;
  } finally {
    machine?.close();
    lock?.release();
  }
}

/** There may be thousands of containers' devices. */
function shortened(removed: string[]): string[] {
  return removed.length > MAX_NAMED ? [`settings of ${removed.length} containers' devices`] : removed;
}

function removeRemains(machine: Machine): string[] {
  const found = remains(machine.netlink);
  if (found.length > 0) requireCapabilities(CAPABILITIES);
  return found.flatMap((thing) => (machine.takeBack(thing) ? [kindOf(thing).describe(thing)] : []));
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

/** status: what the daemon does, and whether it is ready. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { ask } from '../daemon/control.ts';
import { errorCode, InlayError } from '../errors.ts';
import type { State, Status } from '../observe/status.ts';
import { addJson, addSetting, example, print, runDirOf, seconds } from './options.ts';
import { statusText } from './status-text.ts';

interface Options {
  runDir?: string;
  json?: boolean;
  wait?: number;
}

/** How often `status --wait` asks, in ms. */
const RETRY = 50;
const READY: readonly State[] = ['running', 'degraded'];

export function addStatusCommand(program: Command): void {
  const status = addSetting(program.command('status').description('show what the daemon does'), 'run-dir');
  addJson(status).option('--wait <SECONDS>', 'wait that long for the daemon to be ready', seconds);
  example(status, 'status', 'status --wait 5 --json');
  status.action(async (options: Options) => {
    const found = await readyStatus(runDirOf(options), options.wait);
    print(options, found, () => statusText(found));
  });
}

/** The status; with `wait`, that of a daemon that got ready within so many seconds. */
async function readyStatus(runDir: string, wait: number | undefined): Promise<Status> {
  if (wait === undefined) return ask<Status>(runDir, 'status');
  const deadline = performance.now() + wait * 1000;
  for (;;) {
    const late = performance.now() >= deadline;
    try {
      const found = await ask<Status>(runDir, 'status');
      if (READY.includes(found.state)) return found;
      const why = found.troubles[0]?.what;
      if (late)
        throw new InlayError(
          'ERR_FAILED',
          `the daemon is ${found.state}, not ready after ${wait} s${why ? `: ${why}` : ''}`,
        );
    } catch (error) {
      if (late || errorCode(error) !== 'ERR_NOT_RUNNING') throw error;
    }
    await sleep(RETRY);
  }
}

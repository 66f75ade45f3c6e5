/**
 * A process in a VM's namespace that runs commands and measures. Each message names one of four: `inject` runs a command, and then a script again and again until
 * it prints what is expected; `look` runs a script once; `time` measures a command; `now` tells the time.
 */
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

/** ms between two looks. */
const PAUSE = 10;

/** ms of a clock that all processes share. */
const now = () => Number(process.hrtime.bigint()) / 1e6;

function shell(script) {
  return new Promise((resolve) => {
    execFile('sh', ['-c', script], { maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      resolve({ code: error ? (error.code ?? -1) : 0, stdout, stderr });
    });
  });
}

/** When the command began and ended, and when the script had printed what is expected; if it did not within `limit` ms, what it printed last. */
async function inject({ command, script, expected, limit }) {
  const start = now();
  const { code, stderr } = await shell(`set -e\n${command}`);
  const end = now();
  if (code !== 0) return { error: `${command}: ${stderr.trim()}` };
  for (;;) {
    const { stdout } = await shell(script);
    const at = now();
    if (stdout === expected) return { start, end, right: at };
    if (at - end > limit) return { start, end, last: stdout };
    await sleep(PAUSE);
  }
}

const look = async ({ script }) => (await shell(script)).stdout;
/** How long a command takes, in ms. */
async function time({ command }) {
  const start = now();
  const { code, stderr } = await shell(command);
  return { ms: now() - start, code, stderr };
}

const COMMANDS = { inject, look, time, now };
process.on('message', async ([id, name, options]) => process.send([id, await COMMANDS[name](options)]));
process.on('disconnect', () => process.exit());
process.send('ready');

/** Starts the command behind `--` so many times, and kills it each time at a random moment of its first 600 ms: argv[2] times, argv[3] is the seed. */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

const [count, seed] = process.argv.slice(2, 4).map(Number);
const [file, ...args] = process.argv.slice(5);
const LATEST = 600;

let state = seed >>> 0;
/** mulberry32 */
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), state | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

let killed = 0;
for (let i = 0; i < count; i++) {
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  await sleep(random() * LATEST);
  child.kill('SIGKILL');
  const how = await ended;
  if (how === 'SIGKILL') killed++;
  else process.stderr.write(`${i}: ${how}: ${errors}\n`);
}
process.stdout.write(`${killed} killed\n`);

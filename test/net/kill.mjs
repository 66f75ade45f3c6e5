/** kill.mjs COUNT SEED LATEST -- COMMAND: starts the command so many times, and kills it each time at a random moment of its first LATEST ms. */
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { seeded } from './seeded.mjs';

const [count, seed, latest] = process.argv.slice(2, 5).map(Number);
const [file, ...args] = process.argv.slice(6);
const random = seeded(seed);

let killed = 0;
for (let i = 0; i < count; i++) {
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  await sleep(random() * latest);
  child.kill('SIGKILL');
  const how = await ended;
  if (how === 'SIGKILL') killed++;
  else process.stderr.write(`${i}: ${how}: ${errors}\n`);
}
process.stdout.write(`${killed} killed\n`);

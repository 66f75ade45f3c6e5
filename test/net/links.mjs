/**
 * Containers that come and go: links.mjs RATE SECONDS makes RATE changes a second, for so many seconds, and then removes what is left. A change makes a veth pair
 * with a route in the slice, or removes one. There are at most 16 at a time. It ends early when its standard input does.
 */
import { spawn } from 'node:child_process';

const [rate, seconds] = process.argv.slice(2).map(Number);
const THERE = 16;
const SLICE = '10.16.32';

const ip = spawn('ip', ['-force', '-batch', '-'], { stdio: ['pipe', 'ignore', 'inherit'] });
let done = 0;
let made = 0;
let removed = 0;

const name = (number) => `churn${number % 1000}`;
const add = (number) =>
  `link add ${name(number)} type veth peer name ${name(number)}p\nlink set ${name(number)} up\nroute add ${SLICE}.${220 + (number % THERE)} dev ${name(number)}\n`;
const remove = (number) => `link del ${name(number)}\n`;

const start = performance.now();
const timer = setInterval(() => {
  const passed = (performance.now() - start) / 1000;
  for (const due = Math.min(passed, seconds) * rate; done < due; done++)
    ip.stdin.write(made - removed < THERE ? add(made++) : remove(removed++));
  if (passed < seconds) return;
  clearInterval(timer);
  while (removed < made) ip.stdin.write(remove(removed++));
  ip.stdin.end();
}, 5);
process.stdin.on('end', () => process.exit()).resume();
ip.on('exit', () => {
  process.stdout.write(`${done}\n`);
  process.exit();
});

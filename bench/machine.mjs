/** What the whole machine does meanwhile. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Clock ticks a second in /proc: USER_HZ, 100 wherever Node runs. */
export const TICKS = 100;
/** Cores that others may use while something is measured, and how often it is tried to find them so. */
export const QUIET = 0.35;
const QUIET_ATTEMPTS = 16;
/** ms of each attempt. */
const LOOK = 500;

/** CPU seconds since the machine started, of all that was not idle: the first line of /proc/stat (proc(5)) without idle, iowait and guests. */
export function busySeconds() {
  const [user, nice, system, , , irq, softirq, steal] = readFileSync('/proc/stat', 'utf8').match(/\d+/g).map(Number);
  return (user + nice + system + irq + softirq + steal) / TICKS;
}

/** Cores that the whole machine uses, looked at for so many ms. */
export async function busyCores(ms) {
  const before = busySeconds();
  const start = performance.now();
  await sleep(ms);
  return (busySeconds() - before) / ((performance.now() - start) / 1000);
}

/** Waits until the machine is quiet, though not for ever; resolves to how many cores it still uses. */
export async function quiet() {
  for (let attempt = 1; ; attempt++) {
    const cores = await busyCores(LOOK);
    if (cores < QUIET || attempt === QUIET_ATTEMPTS) return cores;
  }
}

/** Throughput to a container of a VM that has 8,189, beside one that has this one alone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { throughput } from '../density/measure.mjs';
import { World } from '../density/world.mjs';
import { quiet } from '../machine.mjs';
import { partTaken } from './measure.mjs';

/** ms that the fast path may take to know all containers, and between two looks. */
const [PATIENCE, LOOK] = [60_000, 100];
/** First ports of iperf3's servers, before and after: each has its own. */
const PORTS = [5201, 5301];

export async function manyContainers(lab, { rounds, seconds }, tell) {
  const count = World.capacity;
  const world = await World.make(lab, ['--encapsulation', 'gre', '--fast-path', 'on'], count);
  await known(world, 1);
  const background = await quiet();
  const first = await world.status(world.peer);
  const before = await throughput(world, seconds, PORTS[0], rounds);
  const grown = await world.host('grow', { to: count - 1 });
  const waited = await known(world, count);
  tell(`${count} containers attached in ${grown.toFixed(1)} s, and on the fast path ${waited.toFixed(1)} s later`);
  await quiet();
  const after = await throughput(world, seconds, PORTS[1], rounds);
  return { count, background, before, after, part: partTaken(first, await world.status(world.peer), true) };
}

/** Waits until the fast path knows so many containers of the VM that has them, and those of the others; resolves to the s that took. */
async function known(world, count) {
  const start = performance.now();
  for (;;) {
    const all = await Promise.all([world.dense, world.single, world.peer].map((vm) => world.status(vm)));
    const found = all.map(({ fastPath }) => fastPath?.containers ?? 0);
    if (found.every((containers, i) => containers === (i === 0 ? count : 1))) return (performance.now() - start) / 1000;
    if (performance.now() - start > PATIENCE)
      throw new Error(`containers on the fast path: ${found}, not ${count}, 1, 1`);
    await sleep(LOOK);
  }
}

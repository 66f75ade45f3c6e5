/**
 * Makes every attack in every data plane and prints what stopped it: the table of SECURITY.md. Ends with 1 if
 * something is open that is not a limit which the table names. `--load` measures what a flood costs the
 * others instead.
 */
import { parseArgs } from 'node:util';
import { requireCommands } from '../../dist/demo/lab.js';
import { PLANES } from '../net/planes.mjs';
import { ATTACKS, attempt, isFor } from './attacks.mjs';
import { counters, risen } from './counters.mjs';
import { printTable, stoppedBy } from './table.mjs';
import { World } from './world.mjs';

const { values } = parseArgs({
  options: {
    plane: { type: 'string', multiple: true, default: Object.keys(PLANES) },
    only: { type: 'string', default: '' },
    load: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '5' },
    details: { type: 'boolean', default: false },
  },
});

requireCommands('ip', 'unshare', 'nsenter', 'nft', 'ping', 'setpriv');

/** What became of each attack: { plane: { open, by } }. */
const results = new Map(ATTACKS.map((attack) => [attack, {}]));

async function attackAll(plane) {
  let world = await World.make(plane);
  try {
    for (const attack of ATTACKS.filter((each) => isFor(each, plane) && each.title.includes(values.only))) {
      const start = performance.now();
      const before = await counters(world);
      const { open, isBroken } = await attempt(world, attack);
      const by = open.length > 0 ? [] : risen(before, await counters(world));
      results.get(attack)[plane] = { open, by };
      const how = open.length > 0 ? `OPEN ${shown(open)}` : `stopped by ${stoppedBy(attack, by)}`;
      const took = `${((performance.now() - start) / 1000).toFixed(1)} s`;
      process.stderr.write(`${plane}, ${attack.who}: ${attack.title}: ${how} (${took})\n`);
      if (!isBroken) continue;
      await world.close();
      world = await World.make(plane);
    }
  } finally {
    await world.close();
  }
}

const shown = (open) =>
  values.details
    ? `\n    ${open.join('\n    ')}`
    : `${open[0]}${open.length > 1 ? ` and ${open.length - 1} more` : ''}`;

if (values.load) {
  const { load } = await import('./load.mjs');
  for (const plane of values.plane) await load(plane, Number(values.seconds), values.only);
} else {
  for (const plane of values.plane) await attackAll(plane);
  process.exitCode = printTable(results, values.plane) ? 0 : 1;
}

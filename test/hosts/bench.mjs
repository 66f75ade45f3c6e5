/** What a packet costs in each host. */

/** The cases of every host's mode `bench`, and what they are called in the table. */
export const CASES = new Map([
  ['encapsulate-64', 'encapsulate 64 bytes'],
  ['decapsulate-64', 'decapsulate 64 bytes'],
  ['cut-64k', 'cut 64 KiB'],
]);

/** How often each host is measured, many rounds each time; the least counts, so that what else the machine does shows least. */
const TURNS = 3;

/**
 * ns per packet by case, of each of the hosts that were opened; of hosts in JavaScript those of the twin in TypeScript, too. They take turns.
 * Resolves to rows: { host, core, times }.
 */
export async function bench(hosts) {
  const rows = hosts.flatMap((host) => [
    { host, core: 'wasm', words: [], times: new Map() },
    ...(host.others.includes('typescript')
      ? [{ host, core: 'typescript', words: ['typescript'], times: new Map() }]
      : []),
  ]);
  for (let turn = 0; turn < TURNS; turn++) {
    for (const { host, core, words, times } of rows) {
      const { code, stdout, stderr } = await host.run(['bench'], ...words);
      if (code !== 0) throw new Error(`${host.name}, ${core}: bench ends with ${code}: ${stderr.trim()}`);
      for (const [name, time] of timesIn(stdout)) times.set(name, Math.min(time, times.get(name) ?? time));
    }
  }
  return rows.map(({ host, core, times }) => ({ host, core, times }));
}

function timesIn(text) {
  const times = [...text.matchAll(/^(\S+) ([\d.]+)$/gm)].map(([, name, time]) => [name, Number(time)]);
  const names = times.map(([name]) => name);
  if (names.join() !== [...CASES.keys()].join()) throw new Error(`bench prints ${JSON.stringify(text)}`);
  return times;
}

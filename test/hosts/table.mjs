/** The tables of the runner, in Markdown. */
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { table } from '../../bench/statistics.mjs';
import { CASES } from './bench.mjs';

/** `results`: of each host `name` and `missing`, or what `conform` found. `of`: how many vectors there are. A column for each host. */
export function conformanceTable(results, of) {
  const columns = results.map(({ name, version, passed, digest, problems, missing }) => {
    if (missing !== undefined) return [name, 'not here', '', ''];
    const verdict = problems.length === 0 ? (digest ?? '').slice(0, 8) : '**fails**';
    return [name, version, `${passed} of ${of}`, verdict];
  });
  return table(
    ['', 'version', 'golden packets', 'corpus, SHA-256'].map((head, i) => [
      head,
      ...columns.map((column) => column[i]),
    ]),
  );
}

/** `rows` as `bench` makes them. */
export function benchTable(rows) {
  const cells = rows.map(({ host, core, times }) => [
    `${host.name} ${host.version}`,
    core === 'wasm' ? 'WebAssembly' : 'TypeScript',
    ...[...CASES.keys()].map((name) => number(times.get(name))),
  ]);
  return table([['host', 'core', ...CASES.values()], ...cells]);
}

const number = (ns) => (ns < 1000 ? ns.toFixed(0) : Math.round(ns).toLocaleString('en'));

/** What figures depend on; the load is that of the last minute. */
export function machine() {
  const cores = os.cpus();
  const linux = os.release().split('.').slice(0, 2).join('.');
  return `${cores[0]?.model.trim()}, ${cores.length} cores, Linux ${linux}, load average ${os.loadavg()[0]?.toFixed(1)}`;
}

/** Text between two marks, as it stands in a document. */
export const marked = (name, text) => `<!-- ${name} -->\n${text}<!-- /${name} -->\n`;

/** Puts a text between the marks of a document in the place of what is there. */
export function replaceMarked(file, name, text) {
  const document = readFileSync(file, 'utf8');
  const place = new RegExp(`<!-- ${name} -->\n[\\s\\S]*?<!-- /${name} -->\n`);
  if (!place.test(document)) throw new Error(`${file} has no <!-- ${name} -->`);
  writeFileSync(
    file,
    document.replace(place, () => marked(name, text)),
  );
}

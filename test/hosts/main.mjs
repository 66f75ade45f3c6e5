/**
 * Every host of examples/ whose toolchain is here: all golden packets, and a corpus of packets from a seed, of which it has to make
 * byte for byte the same as the twin in TypeScript. Ends with 1 if one does not. INLAY_REQUIRE_ALL=1 lets no host be left out.
 */
import { parseArgs } from 'node:util';
import { bench } from './bench.mjs';
import { Missing, ROOT } from './command.mjs';
import { conform } from './conform.mjs';
import { prepare, weakness } from './expected.mjs';
import { HOSTS } from './hosts.mjs';
import { benchTable, conformanceTable, machine, marked, replaceMarked } from './table.mjs';

const USAGE = `npm run conformance -- [--only HOST,...] [--require HOST,...] [--seed N] [--packets N] [--markdown] [--bench [--write]]

  --only       these hosts: ${HOSTS.map(({ name }) => name).join(', ')}
  --require    if one of these cannot run, that is a failure; all but firefox, go and rust with INLAY_REQUIRE_ALL=1
  --seed       of the corpus (1)
  --packets    in the corpus (100000)
  --markdown   the table between the marks of a document
  --bench      ns per packet, too; --write puts that table into docs/performance.md
`;

const DOCUMENT = `${ROOT}docs/performance.md`;

const options = {
  only: { type: 'string' },
  require: { type: 'string', default: '' },
  seed: { type: 'string', default: '1' },
  packets: { type: 'string', default: '100000' },
  markdown: { type: 'boolean', default: false },
  bench: { type: 'boolean', default: false },
  write: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
};

/** A whole number, or an error that says which option is meant. */
function numberOf(name, value, least) {
  const number = /^[0-9]+$/.test(value) ? Number(value) : Number.NaN;
  if (!(number >= least && number < 2 ** 31)) {
    throw new RangeError(`--${name} "${value}": expected a whole number, ${least} or more`);
  }
  return number;
}

function namesIn(option, text) {
  const names = text.split(',').filter((name) => name !== '');
  const unknown = names.find((name) => !HOSTS.some((host) => host.name === name));
  if (unknown !== undefined)
    throw new RangeError(`--${option} "${unknown}": expected ${HOSTS.map((host) => host.name).join(', ')}`);
  return names;
}

const say = (text) => process.stderr.write(`${text}\n`);

/** Opens a host; what it lacks is said, or is a failure. */
async function open(host, isRequired) {
  try {
    return { opened: await host.open() };
  } catch (error) {
    if (!(error instanceof Missing)) return { opened: null, problems: [error.message] };
    if (isRequired) return { opened: null, problems: [`may not be left out: ${error.message}`] };
    say(`left out: ${host.name}: ${error.message}`);
    return { opened: null, missing: error.message, problems: [] };
  }
}

const asProblem = (error) => ({ passed: 0, problems: [error.message] });

/** Each host by itself; those that conform stay open. */
async function judge(hosts, required, expected) {
  const results = [];
  for (const host of hosts) {
    const start = performance.now();
    const { opened, ...found } = await open(host, required.includes(host.name));
    const result = opened ? await conform(opened, expected).catch(asProblem) : { passed: 0, ...found };
    results.push({ name: host.name, version: opened?.version ?? '', opened, ...result });
    if (opened) say(`${host.name} ${opened.version}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
    for (const problem of result.problems) say(`  ${problem}`);
  }
  return results;
}

/** What is asked for; throws if that is nothing that there is. */
function readArguments() {
  const { values } = parseArgs({ options });
  return {
    ...values,
    seed: numberOf('seed', values.seed, 0),
    packets: numberOf('packets', values.packets, 1),
    only: values.only === undefined ? undefined : namesIn('only', values.only),
    require: namesIn('require', values.require),
  };
}

async function main({ seed, packets, only, ...values }) {
  const asked = [...(only ?? []), ...values.require];
  const hosts = HOSTS.filter(({ name, isOnlyAskedFor }) => {
    return asked.includes(name) || (only === undefined && !isOnlyAskedFor);
  });
  const all = process.env.INLAY_REQUIRE_ALL === '1' ? hosts.filter(({ isExtra }) => !isExtra) : [];
  const required = [...values.require, ...all.map(({ name }) => name)];

  say(`seed ${seed}, ${packets} packets`);
  const expected = prepare({ seed, packets });
  const results = [];
  try {
    const weak = weakness(expected, packets);
    if (weak !== undefined) throw new Error(`the corpus shows too little: ${weak}`);
    results.push(...(await judge(hosts, required, expected)));
    const text = conformanceTable(results, expected.answers.length);
    process.stdout.write(values.markdown ? marked('conformance', text) : `\n${text}`);
    if (values.bench) await measure(results, values.write);
  } finally {
    for (const { opened } of results) await opened?.close();
    expected.close();
  }
  const isRight = results.every(({ problems }) => problems.length === 0) && results.some(({ opened }) => opened);
  return isRight ? 0 : 1;
}

async function measure(results, isWritten) {
  // Before this adds to the load.
  const where = machine();
  const rows = await bench(
    results.flatMap(({ opened, problems }) => (opened && problems.length === 0 ? [opened] : [])),
  );
  const text = `ns per packet on ${where}:\n\n${benchTable(rows)}`;
  process.stdout.write(`\n${text}`);
  if (isWritten) replaceMarked(DOCUMENT, 'hosts', text);
}

let values;
try {
  values = readArguments();
} catch (error) {
  // Node goes on with advice, after the first sentence.
  say(error.message.split('. ')[0]);
  process.exit(1);
}
if (values.help) process.stdout.write(USAGE);
else process.exitCode = await main(values);

/**
 * Writes docs/conformance.md, or prints it (--print): the requirements of test/conformance/items.json with the tests that show them, and where
 * Linux does something else (test/uml/differences.json). A test shows those items whose numbers its title begins with, a vector those of its field `item`.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file) => readFileSync(root + file, 'utf8');
const filesIn = (folder) => readdirSync(root + folder, { recursive: true }).map((name) => `${folder}/${name}`);

/** The first words of a test() or describe(), whatever stands between these and the parenthesis. */
const TITLE = /\(\s*(['"`])([A-Z]\d+(?:, [A-Z]\d+)*) (.+?)\1,/g;

/** What each file shows: { items, title, file }. */
const tests = filesIn('test')
  .sort()
  .flatMap((file) => {
    if (file.endsWith('.test.ts')) {
      return [...read(file).matchAll(TITLE)].map(([, , items, title]) => ({ items, title, file }));
    }
    if (!file.startsWith('test/vectors/') || !file.endsWith('.json')) return [];
    const { vectors = [] } = JSON.parse(read(file)); // Cases that were found have another form.
    return vectors.map(({ item = '', direction, name }) => ({ items: item, title: `${direction}: ${name}`, file }));
  });

/** The tests of one item, file after file. */
function testsOf(id) {
  const titles = new Map();
  for (const { items, title, file } of tests) {
    if (items.split(', ').includes(id)) titles.set(file, (titles.get(file) ?? new Set()).add(title));
  }
  return [...titles].map(([file, found]) => `[${file}](../${file}): ${[...found].join('; ')}`).join('<br>');
}

const cell = (text) => text.replaceAll('|', '\\|');

function table(headings, rows) {
  const line = (cells) => `| ${cells.map(cell).join(' | ')} |`;
  return [line(headings), line(headings.map(() => '---')), ...rows.map(line)].join('\n');
}

function area({ title, items }) {
  const rows = items.map(({ id, rfc, requirement, later }) => {
    const source = rfc === null ? '' : ` [${rfc}]`;
    // `later` is true, or says what of the item is missing.
    const status = later === undefined ? 'tested' : later === true ? 'later' : `tested; later: ${later}`;
    return [id, requirement + source, status, testsOf(id)];
  });
  return `## ${title}\n\n${table(['Item', 'Requirement', 'Status', 'Tests'], rows)}\n`;
}

const differences = JSON.parse(read('test/uml/differences.json')).map(({ linux, why, packets }) => [
  linux,
  why,
  packets.join('; '),
]);
const areas = JSON.parse(read('test/conformance/items.json'));
const text = `# Conformance

What is required of Inlay on the wire, in brackets the RFC that asks for it, and the tests that show
it. What is for later is not done yet. This page is made by \`node scripts/conformance.mjs\`:
requirements are in test/conformance/items.json, and a test names its items at the beginning of its
title.

${areas.map(area).join('\n')}
## Differences from Linux

The kernel's own GRE gets the same packets (test/uml/packets.test.ts): the inbound vectors, and the
scripts of test/uml/scripts.py. It differs in these and in no others.

${table(['Linux', 'Why we do not', 'Packets'], differences)}
`;

if (process.argv[2] === '--print') process.stdout.write(text);
else writeFileSync(`${root}docs/conformance.md`, text);

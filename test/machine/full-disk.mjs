/** Fills the disk of RUN-DIR with notes, and says how that went. Then frees space, and says how it goes on. */
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Journal } from '../../dist/machine/journal.js';

const [runDir] = process.argv.slice(2);
const MANY = 1000;
const things = Array.from({ length: MANY }, (_, i) => ({ kind: 'link', device: `inlay${i}`, info: { kind: 'gre' } }));
const descriptors = () => readdirSync('/proc/self/fd').length;
const filler = path.join(runDir, 'filler');
const FILLER = 64 << 10;
writeFileSync(filler, new Uint8Array(FILLER));
const linesIn = () => readFileSync(path.join(runDir, 'journal.jsonl'), 'utf8').split('\n');

const journal = new Journal(runDir);
let noted = 0;
/** Lines that were cut off and that the journal took for written. */
let torn = 0;
for (const thing of things.slice(0, MANY / 2)) {
  journal.add('daemon', thing);
  noted++;
  if (!journal.isWritten) break;
  if (linesIn().at(-1) !== '') torn++;
}
const isWritten = journal.isWritten;
const read = () => {
  const found = new Journal(runDir);
  return { entries: found.entries('daemon').length, isDamaged: found.isDamaged };
};
// Each look of the daemon tries to write the file anew. Where there is no room for a second file, the first has to stay.
const before = descriptors();
let failures = 0;
for (let i = 0; i < 20; i++) {
  try {
    journal.rewrite();
  } catch {
    failures++;
  }
}
const leaked = descriptors() - before;
const full = { isWritten, noted, torn, failures, leaked, isStillUnwritten: !journal.isWritten };

// Room for a part of a second file.
truncateSync(filler, FILLER - 4096);
const linesBefore = linesIn().length;
let failed = false;
try {
  journal.rewrite();
} catch {
  failed = true;
}
const narrow = { failed, isWritten: journal.isWritten, lost: Math.max(linesBefore - linesIn().length, 0) };

rmSync(filler);
journal.add('daemon', things[MANY - 1]);
const isWrittenBefore = journal.isWritten;
journal.rewrite();
const freed = { isWrittenBefore, isWritten: journal.isWritten, ...read() };
process.stdout.write(JSON.stringify({ full, narrow, freed }));

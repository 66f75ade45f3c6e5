/**
 * Runs `down` over journals, as root of this namespace: standard input has them as JSON, each an array of lines.
 * RUN-DIR is what they are put into. What `down` says goes to standard output.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { removeLeftovers } from '../../dist/daemon/down.js';

const [, , runDir] = process.argv;
const said = [];
for (const lines of JSON.parse(readFileSync(0, 'utf8'))) {
  mkdirSync(runDir, { recursive: true });
  writeFileSync(path.join(runDir, 'journal.jsonl'), lines.map((line) => `${line}\n`).join(''));
  said.push(
    await removeLeftovers(runDir).then(
      ({ removed }) => removed,
      ({ message }) => [message],
    ),
  );
  rmSync(runDir, { recursive: true, force: true });
}
process.stdout.write(JSON.stringify(said));

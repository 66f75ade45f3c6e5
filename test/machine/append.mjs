/** One of several processes that write a journal at once: OWNER notes COUNT things in the journal of RUN-DIR, as soon as the file `go` is there. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Journal } from '../../dist/machine/journal.js';

const [runDir, owner, count] = process.argv.slice(2);
const journal = new Journal(runDir);
process.stdout.write('ready\n');
while (!existsSync(path.join(runDir, 'go'))) await new Promise((resolve) => setTimeout(resolve, 1));
for (let i = 0; i < Number(count); i++)
  journal.add(owner, { kind: 'link', device: `${owner}-${i}`, info: { kind: 'gre' } });
process.stdout.write(`${JSON.stringify(journal.isWritten)}\n`);

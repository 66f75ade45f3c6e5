/** The packet core in Node. */
import { readFile } from 'node:fs/promises';
import { run } from '../javascript/program.js';
import { write } from './files.js';

try {
  process.stdout.write(await run(process.argv.slice(2), { read: readFile, write }));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

/** The packet core in Node. */
import { readFile, writeFile } from 'node:fs/promises';
import { run } from '../javascript/program.js';

try {
  process.stdout.write(await run(process.argv.slice(2), { read: readFile, write: writeFile }));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

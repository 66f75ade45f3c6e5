/** The packet core in Bun. */

import { run } from '../javascript/program.js';
import { write } from '../node/files.js';

try {
  const text = await run(Bun.argv.slice(2), { read: (name) => Bun.file(name).bytes(), write });
  await Bun.write(Bun.stdout, text);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

/** The packet core in Deno, which needs --allow-read and --allow-write. */

import { run } from '../javascript/program.js';
import { write } from '../node/files.js';

try {
  const text = await run(Deno.args, { read: Deno.readFile, write });
  await Deno.stdout.write(new TextEncoder().encode(text));
} catch (error) {
  console.error(error.message);
  Deno.exitCode = 1;
}

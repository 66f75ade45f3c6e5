/** The packet core in Deno, which needs --allow-read and --allow-write. */
import { run } from '../javascript/program.js';

try {
  const text = await run(Deno.args, { read: Deno.readFile, write: Deno.writeFile });
  await Deno.stdout.write(new TextEncoder().encode(text));
} catch (error) {
  console.error(error.message);
  Deno.exitCode = 1;
}

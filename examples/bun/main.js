/** The packet core in Bun. */
import { run } from '../javascript/program.js';

try {
  await Bun.write(
    Bun.stdout,
    await run(Bun.argv.slice(2), { read: (name) => Bun.file(name).bytes(), write: Bun.write }),
  );
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

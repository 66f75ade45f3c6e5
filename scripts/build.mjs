/** Builds dist/ from src/ (tsc) and build/*.wasm from assembly/ (asc). */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

function run(tool, ...args) {
  // Standard output belongs to the command that the user runs after us.
  const { status, error } = spawnSync(`${root}node_modules/.bin/${tool}`, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error || status !== 0) {
    process.stderr.write(`build: ${tool} ${args.join(' ')} failed${error ? `: ${error.message}` : ''}\n`);
    process.exit(1);
  }
}

// Installed without the tools, as `npm ci --omit=dev` does on a machine that got the built files: there is nothing to do.
if (!existsSync(`${root}node_modules/.bin/asc`) && existsSync(`${root}dist/cli.js`)) process.exit(0);

// What a source that is gone once left must not be found.
rmSync(`${root}dist`, { recursive: true, force: true });
mkdirSync(`${root}build`, { recursive: true });
run('asc', '--target', 'simd');
run('asc', '--target', 'scalar');
run('tsc', '-p', '.');
chmodSync(`${root}dist/cli.js`, 0o755);
// Newer than every source: scripts/setup.mjs compares.
writeFileSync(`${root}build/.built`, '');

/** Builds dist/ from src/ (tsc) and build/*.wasm from assembly/ (asc). */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';

const root = new URL('..', import.meta.url).pathname;

function run(tool, ...args) {
  // Standard output belongs to the command that the user runs after us.
  const { status, error } = spawnSync(`${root}node_modules/.bin/${tool}`, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error || status !== 0) {
    process.stderr.write(`build: ${tool} ${args.join(' ')} failed${error ? `: ${error.message}` : ''}\n`);
    process.exit(1);
  }
}

// What a source that is gone once left must not be found.
rmSync(`${root}dist`, { recursive: true, force: true });
mkdirSync(`${root}build`, { recursive: true });
run('asc', '--target', 'simd');
run('asc', '--target', 'scalar');
run('tsc', '-p', '.');
// Newer than every source: scripts/setup.mjs compares.
writeFileSync(`${root}build/.built`, '');

/** Builds dist/ from src/ (tsc; rolldown for what starts most often, and for the playground) and build/*.wasm from assembly/ (asc). */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
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

const missing = ['asc', 'tsc', 'rolldown'].filter((tool) => !existsSync(`${root}node_modules/.bin/${tool}`));
if (missing.length > 0) {
  // `npm ci --omit=dev` on a machine that got the built files: there is nothing to do.
  if (existsSync(`${root}dist/cli.js`) && existsSync(`${root}build/core.wasm`)) process.exit(0);
  process.stderr.write(
    `build: Inlay is not built, and what would build it (${missing.join(', ')}) is left out by npm ci --omit=dev\n` +
      'hint: npm ci && npm prune --omit=dev; or npm pack where it is built, and here npm install -g inlay-VERSION.tgz\n',
  );
  process.exit(1);
}

// What a source that is gone once left must not be found.
rmSync(`${root}dist`, { recursive: true, force: true });
mkdirSync(`${root}build`, { recursive: true });
for (const target of ['simd', 'scalar']) run('asc', '--target', target, '--transform', `${root}scripts/inline.mjs`);
run('tsc', '-p', '.');
await bundle();
await playground();
for (const entry of ['cli.js', 'cni.cjs', 'netavark.js']) chmodSync(`${root}dist/${entry}`, 0o755);
// Newer than every source: scripts/setup.mjs compares.
writeFileSync(`${root}build/.built`, '');

/**
 * The CNI plugin is a process for each container, so its start counts: two CommonJS files take a third of the
 * time, on top of Node's own, that its 60 modules take.
 */
async function bundle() {
  const { build } = await import('rolldown');
  const licence = readFileSync(`${root}node_modules/ipaddr.js/LICENSE`, 'utf8');
  for (const made of ['js', 'js.map', 'd.ts', 'd.ts.map']) rmSync(`${root}dist/cni.${made}`);
  await build({
    input: `${root}src/cni.ts`,
    platform: 'node',
    external: ['koffi'],
    output: {
      ...{ dir: `${root}dist`, format: 'cjs', sourcemap: true },
      ...{ entryFileNames: 'cni.cjs', chunkFileNames: 'cni-[name].cjs' },
      postBanner: `/*! With ipaddr.js:\n${licence}*/`,
    },
  });
}

/** The playground: a page of files that stand alone, for any web server. */
async function playground() {
  const { build } = await import('rolldown');
  const packages = ['ipaddr.js/LICENSE', 'valibot/LICENSE.md'];
  const licences = packages.map((file) => readFileSync(`${root}node_modules/${file}`, 'utf8'));
  const to = `${root}dist/playground`;
  await build({
    input: `${root}playground/main.ts`,
    platform: 'browser',
    output: {
      file: `${to}/main.js`,
      format: 'esm',
      minify: true,
      postBanner: `/*! With ipaddr.js and valibot:\n${licences.join('\n')}*/`,
    },
  });
  const files = readdirSync(`${root}playground`).filter((name) => /\.(html|css|svg)$/.test(name));
  for (const file of files) copyFileSync(`${root}playground/${file}`, `${to}/${file}`);
  for (const file of ['core.wasm', 'core-scalar.wasm']) copyFileSync(`${root}build/${file}`, `${to}/${file}`);
}

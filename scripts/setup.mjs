/**
 * Makes a clone ready: installs the packages if they are missing or not those of the lock file, builds if a source is newer than what
 * was built. Says what it does on stderr, and nothing if there is nothing to do.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const lock = `${root}.setup-lock`;
const installed = `${root}node_modules/.package-lock.json`;
const built = `${root}build/.built`;

/** Time of the last change under `name`, in ms; 0 if it does not exist. */
function changed(name) {
  const path = name.startsWith('/') ? name : root + name;
  if (!existsSync(path)) return 0;
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((entry) => changed(`${path}/${entry}`)));
}

const needsInstall = () => changed(installed) === 0 || changed(installed) < changed('package-lock.json');
const sources = [
  'src',
  'assembly',
  'playground',
  'asconfig.json',
  'tsconfig.json',
  'package.json',
  'scripts/build.mjs',
  'scripts/inline.mjs',
];
const needsBuild = () =>
  changed('dist/cli.js') === 0 || changed(built) === 0 || changed(built) < Math.max(...sources.map(changed));

function run(command, args) {
  process.stderr.write(`setup: ${command} ${args.join(' ')}\n`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
}

/** Runs `work` while no other set-up of this clone runs. */
async function alone(work) {
  for (const deadline = Date.now() + 600_000; ; ) {
    try {
      mkdirSync(lock);
      break;
    } catch (error) {
      const left = error.code === 'EEXIST' && Date.now() < deadline;
      if (!left) throw new Error(`another set-up holds ${lock} (${error.code}); if there is none, remove it`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  process.on('exit', () => rmSync(lock, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));
  work();
}

function setUp() {
  // npm ci builds too, by the script `prepare`.
  if (needsInstall()) run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  if (needsBuild()) run('node', ['scripts/build.mjs']);
}

if (needsInstall() || needsBuild()) await alone(setUp);

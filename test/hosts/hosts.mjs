/**
 * The hosts of examples/: how the toolchain of each is found, how it is built and run. An entry has
 *
 * - `name`, and `needs`: what to install;
 * - `isExtra`: it takes long or is not to be had everywhere, so it runs only where it can, or is asked for;
 * - `open()`: builds it, if there is anything to build. Throws Missing if the toolchain is.
 *
 * and what is opened
 *
 * - `version` of the runtime;
 * - `run(words)`: runs one mode, as `PROGRAM CORE.wasm` before these words would. Resolves to { code, stdout, stderr };
 * - `others`: what may be given as `run(words, other)` instead of CORE.wasm;
 * - `close()`, if there is anything to close.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { openBrowser } from './browser.mjs';
import { ask, build, fetchPackages, Missing, ROOT, run } from './command.mjs';

const CORE = path.join(ROOT, 'build/core.wasm');
const EXAMPLES = path.join(ROOT, 'examples');
/** What is built stays, so that it is built once. */
const BUILT = path.join(ROOT, 'build/hosts');
/** As test/runtimes/cnitool.test.ts: the folder of whoever installed Go by hand. */
const GO_ENV = { PATH: `${process.env.PATH}:/usr/local/go/bin` };

/** What hosts in JavaScript take for CORE.wasm: the module that the package brings, and the twin in TypeScript. */
const OF_PACKAGE = { others: ['wasm', 'typescript'] };

/** A host that is a program: `words` before those of a mode. */
function program(version, words, { core = CORE, others = [] } = {}) {
  return { version, others, run: (rest, other = core) => run([...words, other, ...rest]) };
}

/** A runtime of JavaScript that an npm package carries: `tell` prints its path and its version. */
async function fromNpm(words, tell) {
  const [command, version] = (await ask(['npx', '-y', ...words, ...tell])).split(' ');
  return { command, version };
}

async function openNode() {
  return program(process.version, [process.execPath, 'examples/node/main.js'], OF_PACKAGE);
}

async function openNewestNode() {
  const tell = ['node', '-p', '[process.execPath, process.version].join(" ")'];
  const { command, version } = await fromNpm(['-p', 'node@latest'], tell);
  return program(version, [command, 'examples/node/main.js'], OF_PACKAGE);
}

async function openDeno() {
  const tell = ['eval', 'console.log(Deno.execPath(), Deno.version.deno)'];
  const { command, version } = await fromNpm(['deno'], tell);
  const words = [command, 'run', '--allow-read', '--allow-write', 'examples/deno/main.js'];
  return program(version, words, OF_PACKAGE);
}

async function openBun() {
  const tell = ['-e', 'console.log(process.execPath, Bun.version)'];
  const { command, version } = await fromNpm(['bun'], tell);
  return program(version, [command, 'examples/bun/main.js'], OF_PACKAGE);
}

async function openC() {
  const wasm2c = await ask(['wasm2c', '--version']);
  const compiler = (await ask(['gcc', '--version'])).split(' ').at(-1);
  await ask(['make', '--version']);
  const out = path.join(BUILT, 'c');
  const cwd = path.join(EXAMPLES, 'c');
  // From there: make knows no names with spaces, and the path of this repository may have some.
  await build(['make', '-s', `OUT=${path.relative(cwd, out)}`], { cwd });
  const core = path.join(ROOT, 'build/core-scalar.wasm');
  return program(`wasm2c ${wasm2c}, gcc ${compiler}`, [path.join(out, 'inlay-host')], { core });
}

async function openGo() {
  const version = (await ask(['go', 'env', 'GOVERSION'], { env: GO_ENV })).replace('go', '');
  const cwd = path.join(EXAMPLES, 'go');
  const out = path.join(BUILT, 'go-host');
  await fetchPackages(['go', 'mod', 'download'], { cwd, env: GO_ENV });
  await build(['go', 'build', '-o', out, '.'], { cwd, env: GO_ENV });
  const module = (await ask(['go', 'list', '-m', 'github.com/tetratelabs/wazero'], { cwd, env: GO_ENV })).split(' ');
  return program(`${version}, wazero ${module[1].replace('v', '')}`, [out]);
}

async function openPython() {
  const version = (await ask(['python3', '--version'])).split(' ')[1];
  await ask(['python3', '-c', 'import venv, ensurepip']);
  const venv = path.join(BUILT, 'python');
  const python = path.join(venv, 'bin/python');
  const source = path.join(EXAMPLES, 'python');
  if (!existsSync(python)) await build(['python3', '-m', 'venv', venv]);
  await fetchPackages([python, '-m', 'pip', 'install', '-q', '-r', path.join(source, 'requirements.txt')]);
  const tell = 'import importlib.metadata; print(importlib.metadata.version("wasmtime"))';
  return program(`${version}, wasmtime ${await ask([python, '-c', tell])}`, [python, path.join(source, 'main.py')]);
}

/** `runtime`: a feature of the crate. */
async function openRust(runtime) {
  const version = (await ask(['cargo', '--version'])).split(' ')[1];
  const cwd = path.join(EXAMPLES, 'rust');
  const target = path.join(BUILT, `rust-${runtime}`);
  const features = ['--no-default-features', '--features', runtime];
  await fetchPackages(['cargo', 'fetch', '-q', '--locked'], { cwd });
  await build(['cargo', 'build', '-q', '--release', '--locked', ...features, '--target-dir', target], { cwd });
  const [, used] = (await ask(['cargo', 'pkgid', '--locked', runtime], { cwd })).split('@');
  return program(`${version}, ${runtime} ${used}`, [path.join(target, 'release/inlay-host')]);
}

/** A browser with a page that runs the modes; all that it loads is this repository's. */
async function open(browser) {
  const { version, ...opened } = await openBrowser(browser);
  return { version, ...OF_PACKAGE, run: (rest, other = CORE) => opened.run([other, ...rest]), close: opened.close };
}

export const HOSTS = [
  { name: 'node', needs: 'Node', open: openNode },
  { name: 'node-newest', needs: 'the npm registry, for npx -p node@latest', open: openNewestNode },
  { name: 'deno', needs: 'the npm registry, for npx deno', open: openDeno },
  { name: 'bun', needs: 'the npm registry, for npx bun', open: openBun },
  { name: 'chromium', needs: 'apt-get install chromium', open: () => open('chromium') },
  { name: 'firefox', needs: 'apt-get install firefox-esr', open: () => open('firefox-esr'), isExtra: true },
  { name: 'c', needs: 'apt-get install g++ make wabt', open: openC },
  { name: 'go', needs: 'Go 1.24 or newer: apt-get install golang-go, from Debian 13 on', open: openGo },
  { name: 'python', needs: 'apt-get install python3-venv', open: openPython },
  { name: 'rust', needs: 'cargo, of rustup', open: () => openRust('wasmi'), isExtra: true },
  {
    name: 'rust-wasmtime',
    needs: 'cargo, of rustup',
    open: () => openRust('wasmtime'),
    isExtra: true,
    // It takes minutes to build.
    isOnlyAskedFor: true,
  },
].map(complete);

/** Opening says what to install, and names what was opened. */
function complete({ name, needs, open: start, isExtra = false, isOnlyAskedFor = false }) {
  const opened = async () => {
    try {
      return { name, close: () => {}, ...(await start()) };
    } catch (error) {
      if (error instanceof Missing) throw new Missing(`${error.message} (needs: ${needs})`);
      throw error;
    }
  };
  return { name, isExtra, isOnlyAskedFor, open: opened };
}

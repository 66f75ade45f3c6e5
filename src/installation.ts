/** What Inlay needs of its own installation: a Node that is new enough, and its packages. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { errorCode, InlayError } from './errors.ts';
import { quote } from './shell.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** The folder of the playground's files, as they were built. */
export const PLAYGROUND = `${ROOT}dist/playground`;

/** Throws ERR_FAILED if `version`, such as 18.20.8, is older than what package.json asks for. */
export function requireNode(version: string): void {
  const { engines } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
  const least: string = engines.node.replace('>=', '');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [leastMajor = 0, leastMinor = 0] = least.split('.').map(Number);
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return;
  throw new InlayError('ERR_FAILED', `this is Node ${version}: Inlay needs ${least} or newer`, {
    hint: `install a newer Node; ${process.execPath} is the one that ran`,
  });
}

/** What it means that a module could not be loaded; undefined if the error is about something else. */
export function installationError(error: unknown): InlayError | undefined {
  const name = missingPackage(error);
  if (name === undefined) return undefined;
  return new InlayError('ERR_FAILED', `the package ${name} is not installed, or not for this kind of machine`, {
    // Without koffi, which is native, npm can install what only wants the core.
    hint: ROOT.includes('/node_modules/')
      ? 'install Inlay again with npm, without --omit=optional, which brings its packages'
      : `install the packages: cd ${quote(ROOT)} && npm ci`,
    cause: error,
  });
}

function missingPackage(error: unknown): string | undefined {
  const message = error instanceof Error ? error.message : '';
  // koffi's own words where its native part, a package of its own for each kind of machine, is not there.
  if (message.includes('Cannot find the native Koffi module')) return 'koffi';
  // As import says it, and as require() does in what was bundled.
  if (errorCode(error) === 'ERR_MODULE_NOT_FOUND') return /^Cannot find package '([^']+)'/.exec(message)?.[1];
  if (errorCode(error) === 'MODULE_NOT_FOUND') return /^Cannot find module '([^'./][^']*)'/.exec(message)?.[1];
  return undefined;
}

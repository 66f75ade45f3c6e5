/** Commands that hosts are built and run with. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** What a host needs is not on this machine. */
export class Missing extends Error {}

/** ms; nothing here takes so long, unless it hangs. */
export const PATIENCE = 900_000;

/**
 * Runs a command to its end, in the root of the repository unless told otherwise. Resolves to its exit code (-1 if it could not be
 * started or was killed) and what it printed.
 */
export function run([command, ...args], { cwd = ROOT, env = {} } = {}) {
  return new Promise((resolve) => {
    const options = { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'], timeout: PATIENCE };
    const child = spawn(command, args, options);
    const texts = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) {
      child[name].setEncoding('utf8').on('data', (text) => {
        texts[name] += text;
      });
    }
    child.on('error', (error) => resolve({ code: -1, ...texts, stderr: error.message }));
    child.on('close', (code, signal) => resolve({ code: code ?? -1, ...texts, ...(signal ? { stderr: signal } : {}) }));
  });
}

/** What a command that only tells something prints on its first line; throws Missing if it cannot be run. */
export async function ask(words, options) {
  const { code, stdout, stderr } = await run(words, options);
  if (code !== 0) throw new Missing(`${words.join(' ')}: ${stderr.trim().split('\n').at(-1)}`);
  return stdout.trim().split('\n')[0];
}

/** Runs a command that builds something; an error has what it printed. */
export async function build(words, options) {
  const { code, stdout, stderr } = await run(words, options);
  if (code !== 0) throw new Error(`${words.join(' ')} ends with ${code}:\n${stdout}${stderr}`);
}

/** Runs a command that fetches packages; throws Missing if that cannot be done, as without a network. */
export async function fetchPackages(words, options) {
  await ask(words, options);
}

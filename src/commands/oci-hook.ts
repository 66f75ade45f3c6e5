/** oci-hook: what OCI runtimes, such as runc and crun, run for a container; and how they are told to. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { addSetting, example, print, runDirOf } from './options.ts';

/** Starts faster than the command line. */
const SCRIPT = fileURLToPath(new URL('../oci-hook.js', import.meta.url));

interface Options {
  runDir?: string;
  podman?: 'create' | 'remove';
}

export function addOciHookCommand(program: Command): void {
  const hook = program
    .command('oci-hook')
    .description('attach and detach containers of any OCI runtime')
    .argument(
      '<ACTION>',
      'create or remove: a hook, with the state of the container on standard input; config: print it',
    )
    .addOption(
      new Option('--podman <HOOK>', "config: for podman's folder of hooks, instead of config.json").choices([
        'create',
        'remove',
      ]),
    );
  example(
    addSetting(hook, 'run-dir'),
    'oci-hook config',
    'oci-hook config --podman create >/usr/share/containers/oci/hooks.d/inlay-create.json',
    'oci-hook config --podman remove >/usr/share/containers/oci/hooks.d/inlay-remove.json',
  );
  hook.action(async (action: string, options: Options) => {
    // Runtimes start hooks in folders of theirs.
    const runDir = path.resolve(runDirOf(options));
    if (action !== 'config') {
      const { runHook } = await import('../containers/oci/hook.ts');
      runHook(action, runDir);
      return;
    }
    const { configHooks, podmanHook } = await import('../containers/oci/config.ts');
    const command = { node: process.execPath, script: SCRIPT, runDir };
    const found = options.podman ? podmanHook(options.podman, command) : configHooks(command);
    print({}, found, () => JSON.stringify(found, undefined, 2));
  });
}

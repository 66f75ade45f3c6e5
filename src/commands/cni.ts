/** cni: makes the CNI plugin known to container runtimes, or unknown again. */
import path from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { isName } from '../containers/cni/environment.ts';
import type { FileChange, InstallOptions } from '../containers/cni/install.ts';
import { addSetting, example, runDirOf } from './options.ts';
import { table } from './table.ts';

interface Options {
  binDir: string;
  confDir: string;
  name: string;
  chain: string[];
  runDir?: string;
  dryRun?: boolean;
}

export function addCniCommand(program: Command): void {
  const cni = program.command('cni').description('make the CNI plugin known to container runtimes');
  const install = addFolders(cni.command('install').description('write the plugin and a network for it'));
  addSetting(install, 'run-dir');
  install
    .option('--name <NAME>', 'name of the network', networkName, 'mesh')
    .option('--chain <PLUGINS>', 'plugins that come after it, such as portmap,bandwidth', plugins, []);
  example(install, 'cni install', 'cni install --chain portmap --dry-run');
  install.action(async (options: Options) => {
    const { install: write, remarks } = await import('../containers/cni/install.ts');
    const { dryRun = false } = options;
    const wanted: InstallOptions = {
      ...foldersOf(options),
      name: options.name,
      runDir: absolute(runDirOf(options)),
      chain: options.chain,
    };
    const changes = write(wanted, dryRun);
    process.stdout.write(lines(changes, dryRun));
    if (dryRun)
      for (const { file, mode, content } of changes)
        process.stdout.write(`\n# ${file}, mode ${mode.toString(8)}\n${content}`);
    for (const remark of remarks(wanted)) process.stderr.write(`warning: ${remark}\n`);
  });
  const uninstall = addFolders(cni.command('uninstall').description('remove what cni install wrote'));
  example(uninstall, 'cni uninstall --dry-run');
  uninstall.action(async (options: Options) => {
    const { uninstall: remove } = await import('../containers/cni/install.ts');
    const changes = remove(foldersOf(options), options.dryRun === true);
    process.stdout.write(changes.length === 0 ? 'nothing to remove\n' : lines(changes, options.dryRun === true));
  });
}

function addFolders(command: Command): Command {
  return command
    .option('--bin-dir <DIR>', "the runtimes' folder of plugins", '/opt/cni/bin')
    .option('--conf-dir <DIR>', "the runtimes' folder of networks", '/etc/cni/net.d')
    .option('--dry-run', 'print what would be done');
}

function foldersOf({ binDir, confDir }: Options): { binDir: string; confDir: string } {
  return { binDir: absolute(binDir), confDir: absolute(confDir) };
}

/** Runtimes start the plugin in folders of theirs. */
function absolute(folder: string): string {
  return path.resolve(folder);
}

function lines(changes: readonly FileChange[], dry: boolean): string {
  const text = (state: FileChange['state']) => (dry && DONE.has(state) ? `to be ${state}` : state);
  return `${table(changes.map(({ file, state }) => [file, text(state)]))}\n`;
}

const DONE: ReadonlySet<FileChange['state']> = new Set(['written', 'replaced', 'removed']);

function networkName(text: string): string {
  if (!isName(text))
    throw new InvalidArgumentError('expected a letter or digit, then letters, digits, "_", "." and "-".');
  return text;
}

function plugins(text: string): string[] {
  const names = text.split(',');
  if (!names.every(isName)) throw new InvalidArgumentError('expected names of plugins with commas between them.');
  return names;
}

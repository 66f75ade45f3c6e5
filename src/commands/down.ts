/** down: removes what a daemon that has stopped left on this machine. */
import type { Command } from 'commander';
import { quote } from '../shell.ts';
import { addSetting, example, runDirOf } from './options.ts';
import { table } from './table.ts';
import { counted } from './units.ts';

interface Options {
  runDir?: string;
}

export function addDownCommand(program: Command): void {
  const down = addSetting(
    program.command('down').description('remove what a daemon left when it stopped or was killed'),
    'run-dir',
  );
  example(down, 'down', 'down --run-dir /run/inlay-2');
  down.action(async (options: Options) => {
    const { removeLeftovers } = await import('../daemon/down.ts');
    const { removed, running, attached } = await removeLeftovers(runDirOf(options));
    const flag = options.runDir === undefined ? '' : ` --run-dir ${quote(options.runDir)}`;
    const lines = [
      removed.length === 0 ? 'nothing to remove' : table(removed.map((change) => ['removed', change])),
      ...(attached > 0 ? [`left alone: ${counted(attached, 'attached container')} (inlay detach --all${flag})`] : []),
      ...running.map((daemon) => `left alone: what belongs to the daemon that runs (${daemon})`),
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  });
}

/** down: removes what a daemon that has stopped left on this machine. */
import type { Command } from 'commander';
import { addSetting, example, runDirOf } from './options.ts';
import { table } from './table.ts';

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
    const { removed, running } = await removeLeftovers(runDirOf(options));
    const lines = [
      removed.length === 0 ? 'nothing to remove' : table(removed.map((change) => ['removed', change])),
      ...running.map((daemon) => `left alone: what belongs to the daemon that runs (${daemon})`),
    ];
    process.stdout.write(`${lines.join('\n')}\n`);
  });
}

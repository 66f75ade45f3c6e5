/** down: what a killed daemon left goes. */
import type { Command } from 'commander';
import { addSetting, example, runDirOf } from './options.ts';
import { table } from './table.ts';

interface Options {
  runDir?: string;
}

export function addDownCommand(program: Command): void {
  const down = addSetting(program.command('down').description('remove what a killed daemon left'), 'run-dir');
  example(down, 'down', 'down --run-dir /run/inlay-2');
  down.action(async (options: Options) => {
    const { removeLeftovers } = await import('../daemon/down.ts');
    const removed = await removeLeftovers(runDirOf(options));
    process.stdout.write(
      `${removed.length === 0 ? 'nothing to remove' : table(removed.map((change) => ['removed', change]))}\n`,
    );
  });
}

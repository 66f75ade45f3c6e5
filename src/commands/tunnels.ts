/** tunnels: the VMs that this one talks to. */
import type { Command } from 'commander';
import { ask } from '../daemon/control.ts';
import type { TunnelStatus } from '../observe/status.ts';
import { addJson, addSetting, example, print, runDirOf } from './options.ts';
import { tunnelsText } from './tunnels-text.ts';

interface Options {
  runDir?: string;
  json?: boolean;
}

export function addTunnelsCommand(program: Command): void {
  const tunnels = addSetting(program.command('tunnels').description('list the VMs that this one talks to'), 'run-dir');
  example(addJson(tunnels), 'tunnels', 'tunnels --json');
  tunnels.action(async (options: Options) => {
    const found = await ask<TunnelStatus[]>(runDirOf(options), 'tunnels');
    print(options, found, () => tunnelsText(found));
  });
}

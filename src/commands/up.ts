/** up: the daemon, in the foreground. */
import type { Command } from 'commander';
import { loadConfig } from '../config/config.ts';
import { type SettingName, settings } from '../config/settings.ts';
import { addSettings, example, flagsOf } from './options.ts';

interface Options {
  config?: string;
  dryRun?: boolean;
}

const FLAGS = (Object.keys(settings) as SettingName[]).filter((name) => 'placeholder' in settings[name]);

export function addUpCommand(program: Command): void {
  const up = program.command('up').description('run the daemon in the foreground until SIGTERM or SIGINT');
  addSettings(up, FLAGS).option('--dry-run', 'only print the commands that would do the same');
  example(
    up,
    'up --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'up --config /etc/inlay.yaml',
    'up --overlay 10.0.0.0/8 --underlay 192.168.0.0/16 --dataplane kernel --dry-run',
  );
  up.action(async (options: Options) => {
    const config = loadConfig(flagsOf({ ...options }), options.config);
    if (options.dryRun) {
      const { dryRun } = await import('../daemon/dry-run.ts');
      process.stdout.write(`${dryRun(config).join('\n')}\n`);
      return;
    }
    const { runDaemon } = await import('../daemon/daemon.ts');
    await runDaemon(config);
  });
}

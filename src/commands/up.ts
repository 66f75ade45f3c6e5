/** up: the daemon, in the foreground. */
import type { Command } from 'commander';
import { loadConfig } from '../config/config.ts';
import { type SettingName, settings } from '../config/settings.ts';
import { takeSignals } from '../daemon/signals.ts';
import { addSetting, addSettings, example, flagsOf, seconds } from './options.ts';

interface Options {
  config?: string;
  dryRun?: boolean;
  wait?: number;
}

const FLAGS = (Object.keys(settings) as SettingName[]).filter((name) => 'placeholder' in settings[name]);

/** Headings of --help, and their flags. Flags that are not listed here come under LAST_GROUP. */
const GROUPS: Record<string, readonly SettingName[]> = {
  'Networks:': ['overlay', 'underlay', 'local', 'device', 'container-access'],
  'Packets on the underlay:': [
    ...(['encapsulation', 'key', 'underlay-mtu', 'path-mtu-discovery', 'clamp-mss'] as const),
    ...(['ttl', 'dscp', 'ecn', 'gre-checksum', 'gre-sequence'] as const),
  ],
  'Forwarding:': [
    ...(['dataplane', 'fast-path', 'gre-segmentation', 'queues', 'busy-poll', 'idle-timeout'] as const),
    ...(['core', 'engine'] as const),
  ],
};
const LAST_GROUP = 'The daemon:';

/** Seconds. When a VM starts, DHCP may take that long. */
const DEFAULT_WAIT = 30;

/**
 * Seconds to wait for an underlay address, unless it is said. As a unit of systemd, `up` waits without end: a
 * unit that gives up too often is not started again. SYSTEMD_EXEC_PID is the process of a unit
 * (systemd.exec(5)); what that process starts, such as a shell, inherits the variable.
 */
export function defaultWait(env: NodeJS.ProcessEnv, pid: number): number {
  return env['SYSTEMD_EXEC_PID'] === String(pid) ? Infinity : DEFAULT_WAIT;
}

export function addUpCommand(program: Command): void {
  const up = program.command('up').description('run the daemon in the foreground until SIGTERM or SIGINT');
  for (const [heading, names] of Object.entries(GROUPS)) {
    up.optionsGroup(heading);
    for (const name of names) addSetting(up, name);
  }
  const grouped = Object.values(GROUPS).flat();
  up.optionsGroup(LAST_GROUP);
  addSettings(
    up,
    FLAGS.filter((name) => !grouped.includes(name)),
  )
    .option('--dry-run', 'change nothing, and print the commands of ip and sysctl that do the same')
    .option(
      '--wait <SECONDS>',
      `how long to wait for an underlay address (default: ${DEFAULT_WAIT}; under systemd: without end)`,
      seconds,
    );
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
      process.stdout.write(`${(await dryRun(config)).join('\n')}\n`);
      return;
    }
    takeSignals();
    const { runDaemon } = await import('../daemon/daemon.ts');
    await runDaemon(config, 1000 * (options.wait ?? defaultWait(process.env, process.pid)));
  });
}

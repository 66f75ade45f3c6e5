/** up, down, status and tunnels: the daemon, and what it says. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { loadConfig } from '../config/config.ts';
import { type SettingName, settings } from '../config/settings.ts';
import { ask } from '../daemon/control.ts';
import { errorCode, InlayError } from '../errors.ts';
import type { DirectionStatus, Status, TunnelStatus } from '../observe/status.ts';
import { addJson, addSetting, addSettings, example, flagsOf, print } from './options.ts';
import { table } from './table.ts';

interface ClientOptions {
  runDir?: string;
  json?: boolean;
  wait?: number;
}

/** How often `status --wait` asks, in ms. */
const RETRY = 50;

export function addDaemonCommands(program: Command): void {
  const up = program.command('up').description('run the daemon in the foreground until SIGTERM or SIGINT');
  const flags = (Object.keys(settings) as SettingName[]).filter((name) => 'placeholder' in settings[name]);
  addSettings(up, flags).option('--dry-run', 'only print the commands that would do the same');
  example(
    up,
    'up --overlay 10.0.0.0/8 --underlay 192.168.0.0/16',
    'up --config /etc/inlay.yaml',
    'up --overlay 10.0.0.0/8 --underlay 192.168.0.0/16 --dataplane kernel --dry-run',
  );
  up.action(async (options: { config?: string; dryRun?: boolean }) => {
    const config = loadConfig(flagsOf({ ...options }), options.config);
    if (options.dryRun) {
      const { dryRun } = await import('../daemon/dry-run.ts');
      process.stdout.write(`${dryRun(config).join('\n')}\n`);
      return;
    }
    const { runDaemon } = await import('../daemon/daemon.ts');
    await runDaemon(config);
  });

  const down = addSetting(program.command('down').description('remove what a killed daemon left'), 'run-dir');
  example(down, 'down', 'down --run-dir /run/inlay-2');
  down.action(async (options: ClientOptions) => {
    const { removeLeftovers } = await import('../daemon/down.ts');
    const removed = await removeLeftovers(runDirOf(options));
    process.stdout.write(
      `${removed.length === 0 ? 'nothing to remove' : table(removed.map((change) => ['removed', change]))}\n`,
    );
  });

  const status = addSetting(program.command('status').description('show what the daemon does'), 'run-dir');
  addJson(status).option('--wait <SECONDS>', 'wait that long for the daemon to be ready', seconds);
  example(status, 'status', 'status --wait 5 --json');
  status.action(async (options: ClientOptions) => {
    const found = await readyStatus(runDirOf(options), options.wait);
    print(options, found, () => statusText(found));
  });

  const tunnels = addSetting(program.command('tunnels').description('list the VMs that this one talks to'), 'run-dir');
  example(addJson(tunnels), 'tunnels', 'tunnels --json');
  tunnels.action(async (options: ClientOptions) => {
    const found = await ask<TunnelStatus[]>(runDirOf(options), 'tunnels');
    print(options, found, () => tunnelsText(found));
  });
}

function runDirOf(options: ClientOptions): string {
  return options.runDir ?? settings['run-dir'].default;
}

/** The status; with `wait`, that of a daemon that got ready within so many seconds. */
async function readyStatus(runDir: string, wait: number | undefined): Promise<Status> {
  if (wait === undefined) return ask<Status>(runDir, 'status');
  const deadline = performance.now() + wait * 1000;
  for (;;) {
    const late = performance.now() >= deadline;
    try {
      const found = await ask<Status>(runDir, 'status');
      if (found.state === 'running') return found;
      if (late) throw new InlayError('ERR_FAILED', `the daemon is ${found.state}, not ready after ${wait} s`);
    } catch (error) {
      if (late || errorCode(error) !== 'ERR_NOT_RUNNING') throw error;
    }
    await sleep(RETRY);
  }
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 86_400)) throw new InvalidArgumentError('expected seconds, 0..86400.');
  return value;
}

function statusText(status: Status): string {
  const { outbound, inbound, icmp, replies, neighbours, mappings, ...facts } = status;
  const slices = mappings.map((m) => ['slice', `${m.slice} (${m.overlay} over ${m.underlay})`]);
  const rows = Object.entries(facts).map(([name, value]) => [name, String(value)]);
  const asked = neighbours && Object.entries(neighbours).map(([what, count]) => `${count} ${what}`);
  return table([
    ...rows,
    ...slices,
    ['outbound', directionText(outbound)],
    ['inbound', directionText(inbound)],
    ...(icmp ? [['ICMP from the underlay', directionText(icmp)]] : []),
    ...(replies ? [['ICMP to containers', `${replies.sent} packets, ${replies.suppressed} suppressed`]] : []),
    ...(asked ? [['neighbour requests', asked.join(', ')]] : []),
  ]);
}

function directionText({ packets, bytes, drops }: DirectionStatus): string {
  const reasons = Object.entries(drops).map(([reason, count]) => `, dropped ${count} ${reason}`);
  return `${packets} packets, ${bytes} bytes${reasons.join('')}`;
}

function tunnelsText(tunnels: TunnelStatus[]): string {
  const head = ['VM', 'SLICE', 'MTU', 'PACKETS OUT', 'BYTES OUT', 'PACKETS IN', 'BYTES IN', 'IDLE s', 'STATE'];
  return table([
    head,
    ...tunnels.map((t) => [
      ...[t.vm, t.slice, t.mtu, t.outbound.packets, t.outbound.bytes, t.inbound.packets, t.inbound.bytes],
      t.idleSeconds.toFixed(1),
      t.unreachable ?? 'up',
    ]),
  ]);
}

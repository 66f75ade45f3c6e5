/** docker-plugin: the mesh as a network and IPAM driver of docker. */
import type { Command } from 'commander';
import { takeSignals } from '../daemon/signals.ts';
import { addSetting, example, runDirOf } from './options.ts';

/** docker calls a plugin what its socket is called in this folder. */
const DEFAULT_SOCKET = '/run/docker/plugins/inlay.sock';

export function addDockerCommand(program: Command): void {
  const plugin = program
    .command('docker-plugin')
    .description("run docker's network and IPAM driver in the foreground until SIGTERM or SIGINT")
    .option('--socket <FILE>', 'Unix socket, unless systemd passes one', DEFAULT_SOCKET);
  example(addSetting(plugin, 'run-dir'), 'docker-plugin');
  plugin.addHelpText(
    'after',
    '\nThen docker knows the mesh:\n  $ docker network create -d inlay --ipam-driver inlay mesh\n  $ docker run --network mesh IMAGE',
  );
  plugin.action(async (options: { runDir?: string; socket: string }) => {
    takeSignals();
    const { runPlugin } = await import('../containers/docker/plugin.ts');
    await runPlugin({ runDir: runDirOf(options), socket: options.socket });
  });
}

/** attach: gives a network namespace an address of the mesh. */
import type { Command } from 'commander';
import type { SettingName } from '../config/settings.ts';
import { addJson, addSettings, example, flagsOf, positive, print } from './options.ts';

interface Options {
  runDir?: string;
  config?: string;
  container?: number;
  ifname?: string;
  id?: string;
  mac?: string;
  json?: boolean;
}

/** Flags that say which mesh it is, where no daemon has left it. */
export const MESH_FLAGS: readonly SettingName[] = ['run-dir', 'overlay', 'underlay', 'local', 'address-cool-down'];

export function addAttachCommand(program: Command): void {
  const attach = program
    .command('attach')
    .description('give a network namespace an address of the mesh')
    .argument('<NETNS>', 'network namespace: a name of ip netns, a path, or a process id')
    .option('--container <NUMBER>', 'number of the container (default: the next free one)', positive)
    .option('--ifname <NAME>', 'interface in the container', 'eth0')
    .option('--id <ID>', "what detach knows it by (default: the namespace's own)")
    .option('--mac <ADDRESS>', 'link-layer address of the interface (default: follows from the id)');
  addJson(addSettings(attach, MESH_FLAGS));
  example(attach, 'attach c90 --container 90', 'attach /proc/4711/ns/net --id web --json');
  attach.action(async (netns: string, options: Options) => {
    const [{ Containers }, { meshOf }, { parseMac }] = await Promise.all([
      import('../containers/containers.ts'),
      import('./mesh.ts'),
      import('../containers/request.ts'),
    ]);
    const { container, ifname, id, mac } = options;
    const containers = Containers.open(await meshOf(options, flagsOf({ ...options })));
    try {
      const found = containers.attach({
        netns,
        ...(container !== undefined && { container }),
        ...(ifname !== undefined && { ifname }),
        ...(id !== undefined && { id }),
        ...(mac !== undefined && { mac: parseMac(mac) }),
      });
      print(options, found, () => `${netns}: ${found.ifname} is container ${found.container}, ${found.address}`);
    } finally {
      containers.close();
    }
  });
}

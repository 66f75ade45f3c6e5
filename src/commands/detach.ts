/** detach: takes the addresses of containers away. */
import type { Command } from 'commander';
import type { Target } from '../containers/containers.ts';
import { InlayError } from '../errors.ts';
import { MESH_FLAGS } from './attach.ts';
import { addJson, addSettings, example, flagsOf, print } from './options.ts';

interface Options {
  runDir?: string;
  config?: string;
  ifname?: string;
  id?: string;
  all?: boolean;
  json?: boolean;
}

export function addDetachCommand(program: Command): void {
  const detach = program
    .command('detach')
    .description('take the mesh away from network namespaces')
    .argument('[NETNS...]', 'network namespaces: names of ip netns, paths, or process ids')
    .option('--id <ID>', 'the container that was attached with this id')
    .option('--ifname <NAME>', 'interface in the container', 'eth0')
    .option('--all', 'all containers of this VM');
  addJson(addSettings(detach, MESH_FLAGS));
  example(detach, 'detach c90', 'detach --id web', 'detach --all');
  detach.action(async (namespaces: string[], options: Options) => {
    const { id, all } = options;
    if ([namespaces.length > 0, id !== undefined, all === true].filter(Boolean).length !== 1) {
      throw new InlayError('ERR_USAGE', 'expected namespaces, or --id, or --all', {
        hint: 'inlay containers shows what is attached',
      });
    }
    const [{ Containers, idOf }, { meshOf }] = await Promise.all([
      import('../containers/containers.ts'),
      import('./mesh.ts'),
    ]);
    const containers = Containers.open(await meshOf(options, flagsOf({ ...options })));
    try {
      const { ifname = 'eth0' } = options;
      const targets: Target[] = all
        ? containers.list()
        : [...namespaces.map(idOf), ...(id === undefined ? [] : [id])].map((each) => ({ id: each, ifname }));
      const found = containers.detachAll(targets);
      print(options, found, () =>
        found.length === 0
          ? 'nothing was attached'
          : found
              .map(({ container, address, ifname }) => `${ifname}: container ${container}, ${address}, is detached`)
              .join('\n'),
      );
    } finally {
      containers.close();
    }
  });
}

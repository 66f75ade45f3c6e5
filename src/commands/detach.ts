/** detach: takes the addresses of containers away. */
import type { Command } from 'commander';
import type { Containers, Identified } from '../containers/containers.ts';
import type { Target } from '../containers/found.ts';
import type { ContainerStatus } from '../containers/list.ts';
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
    .option('--ifname <NAME>', 'interface in the container (default: eth0 of an id, any of a namespace)')
    .option('--all', 'all containers of this mesh');
  addJson(addSettings(detach, MESH_FLAGS));
  example(detach, 'detach c90', 'detach --id web', 'detach --all');
  detach.action(async (namespaces: string[], options: Options) => {
    const { id, all } = options;
    if ([namespaces.length > 0, id !== undefined, all === true].filter(Boolean).length !== 1) {
      throw new InlayError('ERR_USAGE', 'expected namespaces, or --id, or --all', {
        hint: 'inlay containers shows what is attached',
      });
    }
    const [{ Containers, identify }, { meshOf }] = await Promise.all([
      import('../containers/containers.ts'),
      import('./mesh.ts'),
    ]);
    const containers = Containers.open(await meshOf(options, flagsOf({ ...options })));
    try {
      const targets = () =>
        id === undefined
          ? targetsIn(namespaces.map(identify), options.ifname, containers)
          : [targetOf(id, options.ifname)];
      const found = all ? containers.detachEverything() : containers.detachAll(targets());
      print(options, found, () =>
        found.length === 0
          ? 'nothing was attached'
          : found.map(({ address, ifname }) => `${ifname}: ${address} is detached`).join('\n'),
      );
    } finally {
      containers.close();
    }
  });
}

function targetOf(id: string, ifname: string | undefined): Target {
  return { id, ...(ifname !== undefined && { ifname }) };
}

/** What is attached in these namespaces: under the id that attach gives, or under one that it was told. */
function targetsIn(namespaces: readonly Identified[], ifname: string | undefined, containers: Containers): Target[] {
  const usual = namespaces.map(({ id }) => targetOf(id, ifname));
  if (usual.every((each) => containers.find(each))) return usual;
  const inodes = new Set(namespaces.map(({ netns }) => netns));
  const isMeant = (each: ContainerStatus) => inodes.has(each.netns) && each.ifname === (ifname ?? each.ifname);
  // What was left half made is not listed.
  return [...usual, ...containers.list().filter(isMeant)];
}

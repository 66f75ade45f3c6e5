/** containers: what is attached on this VM. */
import type { Command } from 'commander';
import { MESH_FLAGS } from './attach.ts';
import { addJson, addSettings, example, flagsOf, print } from './options.ts';

interface Options {
  runDir?: string;
  config?: string;
  json?: boolean;
}

export function addContainersCommand(program: Command): void {
  const command = program.command('containers').description("list this VM's containers, which the kernel knows");
  addJson(addSettings(command, MESH_FLAGS));
  example(command, 'containers', 'containers --json');
  command.action(async (options: Options) => {
    const [{ Containers }, { meshOf }, { containersText }] = await Promise.all([
      import('../containers/containers.ts'),
      import('./mesh.ts'),
      import('./containers-text.ts'),
    ]);
    const containers = Containers.open(await meshOf(options, flagsOf({ ...options })));
    try {
      const value = { ...containers.usage(), containers: containers.list() };
      print(options, value, () => containersText(value, Date.now()));
    } finally {
      containers.close();
    }
  });
}

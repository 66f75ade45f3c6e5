/** How runtimes are told of the hooks: in a container's config.json, or in podman's folder. */

/** Annotation of a container, by which its user says which number it gets. */
export const NUMBER = 'inlay.container';

export const ACTIONS = ['create', 'remove'] as const;
export type Action = (typeof ACTIONS)[number];

/** How a runtime is to run a hook: without a PATH, because it may give none. */
export interface Command {
  node: string;
  script: string;
  runDir: string;
}

function hook(action: Action, { node, script, runDir }: Command): object {
  // Longer than any attach or detach takes, shorter than anybody waits.
  return { path: node, args: ['node', script, action, '--run-dir', runDir], timeout: 30 };
}

/** For a container's config.json. */
export function configHooks(command: Command): object {
  return { hooks: { createRuntime: [hook('create', command)], poststop: [hook('remove', command)] } };
}

/** For podman's folder of hooks (oci-hooks(5)): of all containers with the annotation of a number. */
export function podmanHook(action: Action, command: Command): object {
  const when = { annotations: { [`^${NUMBER.replace('.', '\\.')}$`]: '.' } };
  const stages = [action === 'create' ? 'createRuntime' : 'poststop'];
  return { version: '1.0.0', hook: hook(action, command), when, stages };
}

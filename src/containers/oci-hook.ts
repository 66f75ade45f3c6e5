/**
 * Hooks of OCI runtimes, such as runc and crun (OCI runtime specification, config.md, "POSIX-platform
 * Hooks"): createRuntime attaches a container, poststop detaches it. The state of the container is on
 * standard input.
 */
import type { Attachment, AttachRequest, Containers, Target } from './containers.ts';
import { ContainerError } from './reasons.ts';
import { isObject, type JsonObject } from './standard-input.ts';

/** Annotations of a container, by which its user says what it gets. */
const NUMBER = 'inlay.container';
const IFNAME = 'inlay.ifname';
/** The next free number. */
const AUTO = 'auto';

export const ACTIONS = ['create', 'remove'] as const;
export type Action = (typeof ACTIONS)[number];

/** What a hook does. Throws ContainerError. Undefined if there was nothing to detach. */
export function runHook(action: Action, state: JsonObject, containers: Containers): Attachment | undefined {
  return action === 'create' ? create(requestOf(state), containers) : containers.detach(targetOf(state));
}

function create(request: AttachRequest & Target, containers: Containers): Attachment {
  try {
    return containers.attach(request);
  } catch (error) {
    if (!(error instanceof ContainerError && error.reason === 'attached')) throw error;
    // A runtime has one container of an id at a time: this is the last one's, whose poststop never ran.
    containers.detach(request);
    return containers.attach(request);
  }
}

function targetOf(state: JsonObject): Target {
  const { id } = state;
  if (typeof id !== 'string') throw new ContainerError('invalid', 'the state of the container has no id');
  const ifname = annotationsOf(state)[IFNAME];
  return { id, ...(ifname !== undefined && { ifname }) };
}

function requestOf(state: JsonObject): AttachRequest & Target {
  const { pid } = state;
  if (!Number.isInteger(pid) || (pid as number) < 1)
    throw new ContainerError('invalid', 'the state of the container has no process', {
      hint: 'run this as createRuntime, not as prestart, createContainer or poststop',
    });
  const container = numberOf(annotationsOf(state)[NUMBER]);
  return { ...targetOf(state), netns: `/proc/${pid}/ns/net`, ...(container !== undefined && { container }) };
}

function numberOf(text: string | undefined): number | undefined {
  if (text === undefined || text === AUTO) return undefined;
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text);
  throw new ContainerError('invalid', `annotation ${NUMBER}=${JSON.stringify(text)}: expected a number or ${AUTO}`);
}

function annotationsOf({ annotations }: JsonObject): Readonly<Record<string, string>> {
  return isObject(annotations) ? (annotations as Record<string, string>) : {};
}

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

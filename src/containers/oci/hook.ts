/**
 * Hooks of OCI runtimes, such as runc and crun (OCI runtime specification, config.md, "POSIX-platform
 * Hooks"): createRuntime attaches a container, poststop detaches it. The state of the container is on
 * standard input.
 */
import { hash } from 'node:crypto';
import { InlayError } from '../../errors.ts';
import type { AttachRequest } from '../attachment.ts';
import { type Containers, withContainers } from '../containers.ts';
import type { Target } from '../found.ts';
import { isObject, type JsonObject } from '../json.ts';
import { readMesh, requireMesh } from '../mesh.ts';
import { ContainerError } from '../reasons.ts';
import { readObject } from '../standard-input.ts';
import { ACTIONS, NUMBER } from './config.ts';
import { hasProcess } from './processes.ts';

/** Annotation of a container, by which its user says what its interface is called. */
const IFNAME = 'inlay.ifname';
/** The next free number. */
const AUTO = 'auto';
/** Of the hash of a bundle's path, in hexadecimal. */
const HASHED = 12;

/** One run of a hook. Throws InlayError. */
export function runHook(word: string, runDir: string): void {
  const action = ACTIONS.find((each) => each === word);
  if (!action) throw new InlayError('ERR_USAGE', `hook ${JSON.stringify(word)}: expected ${ACTIONS.join(' or ')}`);
  const state = readObject('the state of the container');
  if (action === 'create') {
    const request = requestOf(state);
    withContainers(requireMesh(runDir), (containers) => create(request, state, containers));
  } else {
    const target = targetOf(state);
    const mesh = readMesh(runDir);
    // Where there is no mesh, nothing can be attached to it.
    if (mesh) withContainers(mesh, (containers) => containers.detach(target));
  }
}

function create(request: AttachRequest & Target, state: JsonObject, containers: Containers): void {
  try {
    containers.attach(request);
  } catch (error) {
    if (!(error instanceof ContainerError && error.reason === 'attached')) throw error;
    const old = containers.find(request);
    if (old && hasProcess(old.netns, pidOf(state))) {
      const { id, bundle } = state;
      throw new ContainerError(
        'attached',
        `container ${id} of ${bundle} is attached already, and its network namespace is in use`,
        { hint: `if that is another one, detach it: inlay detach --id ${request.id} --ifname ${old.ifname}` },
      );
    }
    // The same container's last run, whose poststop never ran.
    containers.detach(request);
    containers.attach(request);
  }
}

/**
 * An id means one container to one runtime, and another to the next one, or in another of its folders of
 * states. Their bundles differ, too, and a bundle is the same for each of a container's hooks.
 */
function targetOf(state: JsonObject): Target {
  const { id, bundle } = state;
  if (typeof id !== 'string') throw new ContainerError('invalid', 'the state of the container has no id');
  if (typeof bundle !== 'string') throw new ContainerError('invalid', 'the state of the container has no bundle');
  const ifname = annotationsOf(state)[IFNAME];
  return { id: `oci:${id}:${hash('sha256', bundle).slice(0, HASHED)}`, ...(ifname !== undefined && { ifname }) };
}

function requestOf(state: JsonObject): AttachRequest & Target {
  const container = numberOf(annotationsOf(state)[NUMBER]);
  const netns = `/proc/${pidOf(state)}/ns/net`;
  return { ...targetOf(state), netns, ...(container !== undefined && { container }) };
}

function pidOf({ pid }: JsonObject): number {
  if (Number.isInteger(pid) && (pid as number) >= 1) return pid as number;
  throw new ContainerError('invalid', 'the state of the container has no process', {
    hint: 'run this as createRuntime, not as prestart, createContainer or poststop',
  });
}

function numberOf(text: string | undefined): number | undefined {
  if (text === undefined || text === AUTO) return undefined;
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text);
  throw new ContainerError('invalid', `annotation ${NUMBER}=${JSON.stringify(text)}: expected a number or ${AUTO}`);
}

function annotationsOf({ annotations }: JsonObject): Readonly<Record<string, string>> {
  return isObject(annotations) ? (annotations as Record<string, string>) : {};
}

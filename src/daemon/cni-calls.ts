/**
 * Calls of CNI that a daemon answers together. To delete a link takes the kernel 16 ms and more, and to delete
 * many at once hardly longer: so calls that detach are one for the kernel.
 */
import type { CniEnvironment } from '../containers/cni/environment.ts';
import {
  type CniAnswer,
  type CniContainers,
  type CniLibrary,
  type Deletion,
  deletion,
  Elsewhere,
  runCni,
} from '../containers/cni/plugin.ts';

export interface CniCall {
  env: CniEnvironment;
  config: string;
}

/** Undefined if the call is not for this daemon. */
export type CniOutcome = CniAnswer | undefined;

/** A DEL that has nothing to say. */
const DONE: CniAnswer = { code: 0, stdout: '' };

export function isDetaching({ env }: CniCall): boolean {
  return env['CNI_COMMAND'] === 'DEL';
}

/** Which container a call is about: calls about the same one stay in order. */
export function containerOf({ env }: CniCall): string {
  return env['CNI_CONTAINERID'] ?? '';
}

/** Answers a call, or several that detach. */
export function answerCalls(calls: readonly CniCall[], library: CniLibrary): CniOutcome[] {
  const together = calls.length > 1 ? detachTogether(calls, library) : undefined;
  return together ?? calls.map((call) => outcomeOf(call, library));
}

function outcomeOf({ env, config }: CniCall, library: CniLibrary): CniOutcome {
  try {
    return runCni(env, config, library);
  } catch (error) {
    if (error instanceof Elsewhere) return undefined;
    throw error;
  }
}

/** Containers of one mesh, and which of them are to be detached. */
interface Detaching {
  containers: CniContainers;
  targets: Deletion['target'][];
}

/** Undefined if one of them stands in the way of the others. */
function detachTogether(calls: readonly CniCall[], library: CniLibrary): CniOutcome[] | undefined {
  const meshes = new Map<string, Detaching>();
  try {
    const outcomes = calls.map((call) => (join(call, meshes, library) ? DONE : outcomeOf(call, library)));
    for (const { containers, targets } of meshes.values()) containers.detachAll(targets);
    return outcomes;
  } catch {
    return undefined;
  } finally {
    for (const { containers } of meshes.values()) containers.close();
  }
}

/** Whether a call is done with the others. What keeps it from that is said where it is done alone. */
function join({ env, config }: CniCall, meshes: Map<string, Detaching>, library: CniLibrary): boolean {
  try {
    const { mesh, target } = deletion(env, config);
    const key = JSON.stringify(mesh);
    const known = meshes.get(key) ?? { containers: library.open(mesh), targets: [] };
    known.targets.push(target);
    meshes.set(key, known);
    return true;
  } catch {
    return false;
  }
}

/**
 * Calls of CNI that a daemon answers together. To delete a link takes the kernel 16 ms and more, and to delete
 * many at once hardly longer: so calls that detach are one for the kernel.
 */
import type { CniEnvironment } from '../containers/cni/environment.ts';
import { type CniAnswer, type CniContainers, type CniLibrary, Elsewhere, runCni } from '../containers/cni/plugin.ts';

export interface CniCall {
  env: CniEnvironment;
  config: string;
}

/** Undefined if the call is not for this daemon. */
export type CniOutcome = CniAnswer | undefined;

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

/** Undefined if one of them stands in the way of the others. */
function detachTogether(calls: readonly CniCall[], library: CniLibrary): CniOutcome[] | undefined {
  const opened = new Map<string, { containers: CniContainers; targets: { id: string; ifname: string }[] }>();
  /** Notes what each call would detach, which is all that DEL does with the library. */
  const noting: CniLibrary = {
    open: (request) => {
      const key = JSON.stringify(request);
      const known = opened.get(key) ?? { containers: library.open(request), targets: [] };
      opened.set(key, known);
      const detach: CniContainers['detach'] = (target) => known.targets.push(target);
      return { detach, close: () => {} } as Partial<CniContainers> as CniContainers;
    },
  };
  try {
    const outcomes = calls.map((call) => outcomeOf(call, noting));
    for (const { containers, targets } of opened.values()) if (targets.length > 0) containers.detachAll(targets);
    return outcomes;
  } catch {
    return undefined;
  } finally {
    for (const { containers } of opened.values()) containers.close();
  }
}

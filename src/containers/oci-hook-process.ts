/** One run of an OCI hook: the state of a container from standard input, and what is done with it. */
import { InlayError } from '../errors.ts';
import { Containers } from './containers.ts';
import { requireMesh } from './mesh.ts';
import { ACTIONS, runHook } from './oci-hook.ts';
import { readObject } from './standard-input.ts';

/** Throws InlayError. */
export async function ociHook(word: string, runDir: string): Promise<void> {
  const action = ACTIONS.find((each) => each === word);
  if (!action) throw new InlayError('ERR_USAGE', `hook ${JSON.stringify(word)}: expected ${ACTIONS.join(' or ')}`);
  const state = await readObject(process.stdin, 'the state of the container');
  const containers = Containers.open(requireMesh(runDir));
  try {
    runHook(action, state, containers);
  } finally {
    containers.close();
  }
}

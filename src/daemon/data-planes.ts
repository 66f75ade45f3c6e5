/** The data planes, by the name that the configuration has for them. */
import type { Config } from '../config/config.ts';
import type { DataPlaneKind } from '../dataplane/dataplane.ts';
import { withFastPath } from '../dataplane/fast-path/kind.ts';

/** Each data plane is loaded when it is needed, because one needs native packages that the other does not. */
const KINDS: Record<Config['dataplane'], () => Promise<{ kind: DataPlaneKind }>> = {
  wasm: () => import('../dataplane/wasm/dataplane.ts'),
  kernel: () => import('../dataplane/kernel/dataplane.ts'),
};

export async function dataPlaneOf({ dataplane }: Pick<Config, 'dataplane'>): Promise<DataPlaneKind> {
  return withFastPath((await KINDS[dataplane]()).kind);
}

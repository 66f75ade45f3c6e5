/** The I/O engines of the wasm data plane. They are loaded late: each needs native packages that the other does not. */
import type { Engine, EngineOptions } from '../dataplane.ts';

export type EngineName = 'linux' | 'portable';

/** Opens device and socket and forwards from now on. */
export async function startEngine(name: EngineName, options: EngineOptions): Promise<Engine> {
  if (name === 'linux') return (await import('./linux/engine.ts')).startLinuxEngine(options);
  return (await import('./portable/engine.ts')).startPortableEngine(options);
}

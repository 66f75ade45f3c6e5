/** The I/O engines, by the name that the configuration has for them. */
import type { Config } from '../../config/config.ts';
import type { Engine, EngineOptions } from './engine.ts';

/** Opens device and sockets and forwards from now on. Each engine is loaded late: it needs native packages that the other does not. */
export async function startEngine(name: Config['engine'], options: EngineOptions): Promise<Engine> {
  if (name === 'linux') return (await import('./linux/engine.ts')).startLinuxEngine(options);
  return (await import('./portable/engine.ts')).startPortableEngine(options);
}

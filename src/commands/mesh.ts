/** The mesh that a command attaches to: what the daemon left in its run directory, or what the flags say. */
import { type Flags, loadConfig, loadCoolDown } from '../config/config.ts';
import { type Mesh, type Prefixes, readMesh, requireMesh, requireSame } from '../containers/mesh.ts';
import { ContainerError } from '../containers/reasons.ts';
import { prefixesOf } from '../mesh/mapping.ts';
import { runDirOf } from './options.ts';

/** Throws ContainerError and ERR_CONFIG. */
export async function meshOf(options: { runDir?: string; config?: string }, flags: Flags): Promise<Mesh> {
  const mesh = await foundMesh(options, flags);
  return { ...mesh, coolDown: loadCoolDown(flags) ?? mesh.coolDown };
}

async function foundMesh(options: { runDir?: string; config?: string }, flags: Flags): Promise<Mesh> {
  if (options.config === undefined && !flags.overlay && !flags.underlay) return requireMesh(runDirOf(options));
  const config = loadConfig(flags, options.config);
  const wanted: Prefixes = config.mappings.map(prefixesOf);
  const runDir = options.runDir ?? config.runDir;
  const found = readMesh(runDir);
  if (found) {
    requireSame(found, runDir, wanted);
    return found;
  }
  const [{ meshOf: meshOfPlan, planNetwork }, { dataPlaneOf }, { Netlink }, { NoUnderlayError }] = await Promise.all([
    import('../daemon/network.ts'),
    import('../daemon/data-planes.ts'),
    import('../linux/netlink/netlink.ts'),
    import('../machine/underlay.ts'),
  ]);
  const netlink = Netlink.open();
  try {
    const { plan } = planNetwork(config, (await dataPlaneOf(config)).overhead(config), netlink);
    return meshOfPlan(config, plan);
  } catch (error) {
    if (!(error instanceof NoUnderlayError)) throw error;
    throw new ContainerError('no-underlay', error.message, { ...(error.hint && { hint: error.hint }), cause: error });
  } finally {
    netlink.close();
  }
}

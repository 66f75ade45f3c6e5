/** Which pairs of containers have traffic: all, or where they are very many a sample. */
import type { Container, Vm } from './mesh.ts';

export type Pair = readonly [from: Container, to: Container];

/** Pairs that can be tested in a minute or so. */
const MOST = 2000;

/**
 * All ordered pairs, up to MOST. Of more, a sample in which each container is reached as often as every other,
 * and reaches as many others, the first of them on another VM.
 */
export function pairsToTest(vms: readonly Vm[]): Pair[] {
  const perVm = Math.max(...vms.map(({ containers }) => containers.length));
  // In turns of the VMs, so that the next one in the ring is on another VM.
  const ring = Array.from({ length: perVm }, (_, i) => vms.flatMap(({ containers }) => containers[i] ?? [])).flat();
  const others = Math.min(ring.length - 1, Math.max(1, Math.floor(MOST / ring.length)));
  return ring.flatMap((from, i) =>
    Array.from({ length: others }, (_, step) => [from, ring[(i + step + 1) % ring.length] as Container] as const),
  );
}

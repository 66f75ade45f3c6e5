/** Frames on the edge of what the fast path takes, made by hand: each says whether it has to be taken, or has to pass. */
import type { CoreConfig, Encapsulation } from '../../src/core/index.ts';
import type { Edge } from './frames.ts';
import { inboundEdges } from './inbound-edges.ts';
import { outboundEdges } from './outbound-edges.ts';
import { canRun } from './test-run.mjs';
import type { ProgramTwin } from './twin.mjs';

const FORMATS: Encapsulation[] = ['gre', 'gre-udp'];

/** What the twin finds wrong with what becomes of an edge, or null: as it is, and where nothing is known of the VM. */
export function checkEdge(twin: ProgramTwin, { name, direction, frame, isOff = false, ...rest }: Edge): string | null {
  const across = twin.met.local;
  twin.set({ enabled: !isOff });
  const wrong = twin.check(direction, frame, rest);
  if (wrong !== null) return `${name}: ${wrong}`;
  if (twin.met.local !== across) return null;
  const unknown = { heard: 0, outbound: 0, inbound: 0 };
  const first = twin.check(direction, frame, { ...rest, record: unknown, must: false });
  return first && `${name}, for the first time: ${first}`;
}

/** Those that the kernel can be given: of each of the VM's slices, and inbound in both formats, which each VM understands. */
export function edgesOf(config: CoreConfig): Edge[] {
  const { mappings } = config;
  const orders = mappings.length === 1 ? [mappings] : [mappings, [...mappings].reverse()];
  const edges = orders.flatMap((order) => {
    const first = { ...config, mappings: order };
    return [...outboundEdges(first), ...FORMATS.flatMap((encapsulation) => inboundEdges({ ...first, encapsulation }))];
  });
  return edges.filter(({ frame }) => canRun(frame));
}

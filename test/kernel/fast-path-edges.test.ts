/** The programs of the fast path, run by the kernel itself on frames made by hand, beside the core. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CONFIGS } from '../fast-path/configs.ts';
import { type Edge, inboundEdges, outboundEdges } from '../fast-path/edges.ts';
import { enterNamespace } from '../fast-path/namespace.mjs';
import { canRun } from '../fast-path/test-run.mjs';
import { ProgramTwin, why, whyNot } from '../fast-path/twin.mjs';
import { skip } from '../net/require.ts';

describe.skipIf(skip('fast path: edges', why()))('edges', () => {
  let leave: () => void;
  beforeAll(() => {
    leave = enterNamespace();
  });
  afterAll(() => leave());

  test.each(CONFIGS)('$name: taken as the core would, or passed unchanged', ({ config }) => {
    expect(whyNot(config)).toBeUndefined();
    const twin = new ProgramTwin(config);
    try {
      const edges: Edge[] = [...outboundEdges(config), ...inboundEdges(config)].filter(({ frame }) => canRun(frame));
      const wrong = edges.flatMap(({ name, direction, frame, ...rest }) => {
        // Once more of a VM of which nothing is known: nothing is taken then.
        const first = { ...rest, record: { heard: 0, outbound: 0, inbound: 0 }, must: false };
        const across = twin.met.local;
        const difference = twin.check(direction, frame, rest);
        const isAcross = twin.met.local !== across;
        const other = isAcross ? null : twin.check(direction, frame, first);
        return [difference, other].filter((each) => each !== null).map((each) => `${name}: ${each}`);
      });
      expect(wrong).toEqual([]);
    } finally {
      twin.close();
    }
  });
});

/** The programs of the fast path, run by the kernel itself on frames made by hand, beside the core. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CONFIGS, type NamedConfig } from '../fast-path/configs.ts';
import { checkEdge, edgesOf } from '../fast-path/edges.ts';
import { enterNamespace } from '../fast-path/namespace.mjs';
import { whyNot } from '../fast-path/setup.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
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
      const wrong = edgesOf(config).flatMap((edge) => checkEdge(twin, edge) ?? []);
      expect(wrong).toEqual([]);
    } finally {
      twin.close();
    }
  });

  test('where the daemon has ended, tunnels are not renewed: nothing would take their packets', () => {
    const { config } = CONFIGS[0] as NamedConfig;
    const twin = new ProgramTwin(config);
    try {
      twin.leave();
      const record = { heard: 1, outbound: 0, inbound: 0 };
      const plain = edgesOf(config).filter((edge) => edge.must === true && !edge.record && !edge.isOff);
      expect(plain.length).toBeGreaterThan(10);
      const wrong = plain.flatMap(
        ({ direction, frame, ...rest }) => twin.check(direction, frame, { ...rest, record }) ?? [],
      );
      expect(wrong).toEqual([]);
    } finally {
      twin.close();
    }
  });

  test.each([
    { seconds: 29, isTaken: true },
    { seconds: 31, isTaken: false },
  ])('$seconds s after the last sign of life of a daemon: taken $isTaken', ({ seconds, isTaken }) => {
    const { config } = CONFIGS[0] as NamedConfig;
    const twin = new ProgramTwin(config);
    try {
      twin.setBefore(1000 * seconds);
      const plain = edgesOf(config).filter((edge) => edge.must === true && !edge.record && !edge.isOff);
      const wrong = plain.flatMap(
        ({ direction, frame, ...rest }) => twin.check(direction, frame, { ...rest, must: isTaken }) ?? [],
      );
      expect(wrong).toEqual([]);
    } finally {
      twin.close();
    }
  });
});

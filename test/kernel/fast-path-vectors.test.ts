/** The golden packets through the programs of the fast path: what they take leaves as the vector says. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Encapsulation } from '../../src/core/index.ts';
import { enterNamespace } from '../fast-path/namespace.mjs';
import { whyNot } from '../fast-path/setup.mjs';
import { canRun } from '../fast-path/test-run.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
import { COUNTS, goldenFrames } from '../fast-path/vectors.ts';
import { coreConfig, vectorFiles } from '../golden.ts';
import { skip } from '../net/require.ts';

const FORMATS: Encapsulation[] = ['gre', 'gre-udp'];

/** The frame without one or more of its last bytes, as the kernel can be given it. */
const cutOff = (frame: Uint8Array) =>
  Array.from({ length: Math.min(frame.length - 1, 200) }, (_, length) => frame.subarray(0, length)).filter(canRun);

describe.skipIf(skip('fast path: vectors', why()))('vectors', () => {
  let leave: () => void;
  beforeAll(() => {
    leave = enterNamespace();
  });
  afterAll(() => leave());

  const done = vectorFiles.filter(({ config }) => whyNot(coreConfig(config)) === undefined);
  const others = vectorFiles.filter((file) => !done.includes(file)).map(({ file }) => file);

  test('only what the fast path does not do is left out', () => {
    expect(others.sort()).toEqual(['all-options.json']);
  });

  const cases = FORMATS.flatMap((encapsulation) => done.map((file) => ({ ...file, encapsulation })));
  test.each(cases)('$file, $encapsulation', ({ file, config, vectors, encapsulation }) => {
    const twin = new ProgramTwin({ ...coreConfig(config), mtu: config.mtu ?? 1476, encapsulation });
    const frames = goldenFrames(vectors);
    const met = { taken: 0, passed: 0 };
    try {
      const wrong = frames.flatMap(({ name, direction, frame, address, link, verdict, isForwarded, ...rest }) => {
        twin.place(address, link);
        const passed = twin.met.passed;
        const difference = twin.check(direction, frame, rest);
        const isTaken = twin.met.passed === passed;
        met[isTaken ? 'taken' : 'passed']++;
        const surprise = isTaken && !isForwarded ? [`${name}: taken, though ${verdict}`] : [];
        // G6, R1: what is cut off passes.
        const cut = isTaken ? cutOff(frame).find((each) => twin.check(direction, each, { must: false })) : null;
        if (cut) return [`${name}, ${cut.length} bytes: ${twin.check(direction, cut, { must: false })}`];
        return difference === null ? surprise : [`${name}: ${difference}`];
      });
      expect(wrong).toEqual([]);
      expect([met.taken, met.passed, vectors.length - frames.length]).toEqual(COUNTS[file]);
    } finally {
      twin.close();
    }
  });
});

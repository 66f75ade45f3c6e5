/** What stands in the programs of the fast path is needed: without a check, or with another number in it, edges find the difference. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Instruction } from '../../src/linux/bpf/assembler.ts';
import { CONFIGS } from '../fast-path/configs.ts';
import { checkEdge, edgesOf } from '../fast-path/edges.ts';
import { mutantsOf } from '../fast-path/mutants.mjs';
import { enterNamespace } from '../fast-path/namespace.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
import { skip } from '../net/require.ts';

/**
 * Of those that the kernel loads, percent that are found. The others are super-packets and frames in pieces, which a test run cannot
 * have (test/kernel/fast-path-live.test.ts does), flags for offloads, checks that two places make, and what takes fewer packets.
 */
const FOUND = { outbound: 65, inbound: 72 };

describe.skipIf(skip('fast path: mutants', why()))('mutants', () => {
  let leave: () => void;
  beforeAll(() => {
    leave = enterNamespace();
  });
  afterAll(() => leave());

  const cases = CONFIGS.filter(({ name }) => ['gre', 'gre-udp'].includes(name)).flatMap((config) =>
    (['outbound', 'inbound'] as const).map((direction) => ({ ...config, direction })),
  );
  test.each(cases)('$name, $direction', { timeout: 1_200_000 }, ({ config, direction }) => {
    const right: Record<string, Instruction[]> = {};
    const note = (which: string, instructions: Instruction[]) => {
      right[which] = instructions;
      return instructions;
    };
    new ProgramTwin(config, note).close();
    const edges = edgesOf(config).filter((edge) => edge.direction === direction);
    const counted = { loaded: 0, found: 0 };
    const missed: string[] = [];
    for (const { what, instructions } of mutantsOf(right[direction])) {
      const twin = load(config, direction, instructions);
      if (!twin) continue;
      counted.loaded++;
      if (edges.some((edge) => checkEdge(twin, edge) !== null)) counted.found++;
      else missed.push(what);
      twin.close();
    }
    expect(counted.loaded).toBeGreaterThan(200);
    // What was missed stands in the message.
    const least = (counted.loaded * FOUND[direction]) / 100;
    if (counted.found < least) expect.fail(`found ${counted.found} of ${counted.loaded}; not: ${missed.join(', ')}`);
  });

  /** Undefined if the kernel does not take the program. */
  function load(config: (typeof CONFIGS)[number]['config'], of: string, instructions: Instruction[]) {
    try {
      return new ProgramTwin(config, (which: string, usual: Instruction[]) => (which === of ? instructions : usual));
    } catch {
      return undefined;
    }
  }
});

/**
 * Whoever sends packets of whatever shape, in tunnels or without, whole or in fragments: nothing is delivered
 * to a container, nor to a socket of a VM, under a source that is not the sender's own. Many packets at a
 * time, so that thousands take seconds.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { ADDRESSES, CONTENT_NAMES, CUT_NAMES, FRAMES, KINDS, lies, SENDERS, shotOf } from '../attack/shapes.mjs';
import { HOSTS, World } from '../attack/world.mjs';
import { runs } from '../runs.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';

/** Packets that are sent at once. */
const BATCH = 150;

type Who = keyof typeof SENDERS;
const any = fc.constantFrom(...ADDRESSES);
const { vm, otherVm, neighbour, other } = HOSTS;
/** Mostly what could get through. */
const likely = (...addresses: string[]) =>
  fc.oneof({ weight: 2, arbitrary: fc.constantFrom(...addresses) }, { weight: 1, arbitrary: any });

/**
 * What is no limit: there is no authentication on the underlay, so a host of it sends from its own address,
 * or from outside.
 */
const outerSource = (who: Who) =>
  who === 'T'
    ? any
    : fc.constantFrom((SENDERS[who] as { outer: string }).outer, HOSTS.outsider, '10.16.33.91', '8.8.8.8');

const shape = (who: Who) =>
  fc.record({
    who: fc.constant(who),
    layers: fc.array(
      fc.record({
        kind: fc.constantFrom(...KINDS),
        outer: fc.tuple(outerSource(who), likely(vm.underlay, otherVm.underlay, vm.overlay)),
      }),
      { maxLength: 2 },
    ),
    inner: fc.tuple(any, likely(neighbour, other, vm.overlay)),
    content: fc.constantFrom(...CONTENT_NAMES),
    cut: fc.oneof(fc.constant('whole'), fc.constantFrom(...CUT_NAMES)),
    frame: fc.oneof(fc.constant('usual'), fc.constantFrom(...Object.keys(FRAMES))),
    ttl: fc.constantFrom(64, 255, 2),
  });

describe.skipIf(skip('attack, property', await missing('ping')))('attack, property', () => {
  describe.each(Object.keys(PLANES))('%s', (plane) => {
    let world: World;
    beforeAll(async () => {
      world = await World.make(plane);
    });
    afterAll(() => world?.close());

    test.each(Object.keys(SENDERS) as Who[])('%s: nothing is delivered under a false source', async (who) => {
      const batch = fc.array(shape(who), { minLength: BATCH, maxLength: BATCH });
      await fc.assert(
        fc.asyncProperty(batch, async (shapes) => {
          const shots = shapes.map((each) => shotOf(world, each));
          const seen = await world.shoot(shots.flatMap(({ frames }) => frames));
          const told = shots.flatMap((shot, i) =>
            lies(seen, { who }, shot).map(({ at, source }) => ({ ...shapes[i], deliveredTo: at, as: source })),
          );
          if (told.length > 0) throw new Error(told.map((each) => JSON.stringify(each)).join('\n'));
        }),
        // What got through is told, not the batch that it was in.
        {
          numRuns: runs(10),
          endOnFailure: true,
          reporter: ({ failed, seed, errorInstance }) => {
            if (failed) throw new Error(`seed ${seed}: ${errorInstance}`);
          },
        },
      );
    });
  });
});

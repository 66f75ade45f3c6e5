/**
 * The attacks of `npm run attack`, but for those that take seconds: nothing gets through but what is a limit
 * that the table names.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ATTACKS, attempt, isFor, limitOf } from '../attack/attacks.mjs';
import { World } from '../attack/world.mjs';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';

const QUICK = ATTACKS.filter(({ isSlow }) => !isSlow);

describe.skipIf(skip('attack', await missing('ping', 'nft', 'setpriv')))('attack', () => {
  describe.each(Object.keys(PLANES))('%s', (plane) => {
    let world: World;
    beforeAll(async () => {
      world = await World.make(plane);
    });
    afterAll(() => world?.close());

    test.each(QUICK.filter((each) => isFor(each, plane) && limitOf(each, plane) === undefined))(
      '$who: $title',
      async (attack) => {
        const { open, isBroken } = await attempt(world, attack);
        if (isBroken) {
          await world.close();
          world = await World.make(plane);
        }
        expect(open).toEqual([]);
      },
    );
  });
});

/** The attacks of `npm run attack` that take seconds. */
import { describe, expect, test } from 'vitest';
import { ATTACKS, attempt, isFor, limitOf } from '../attack/attacks.mjs';
import { World } from '../attack/world.mjs';
import { PLANES } from '../net/planes.mjs';
import { missing, skip } from '../net/require.ts';

const SLOW = ATTACKS.filter(({ isSlow }) => isSlow);

describe.skipIf(skip('attack, slow ones', await missing('ping', 'nft', 'setpriv')))('attack, slow ones', () => {
  describe.each(Object.keys(PLANES))('%s', (plane) => {
    test.each(SLOW.filter((each) => isFor(each, plane) && limitOf(each, plane) === undefined))(
      '$who: $title',
      async (attack) => {
        const world = await World.make(plane);
        try {
          expect((await attempt(world, attack)).open).toEqual([]);
        } finally {
          await world.close();
        }
      },
    );
  });
});

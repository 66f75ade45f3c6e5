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
  const worlds = Object.keys(PLANES).map((plane) => ({ plane, flags: [] as string[] }));
  describe.each([...worlds, { plane: 'wasm', flags: ['--fast-path', 'off'] }])('$plane $flags', ({ plane, flags }) => {
    let world: World;
    beforeAll(async () => {
      world = await World.make(plane, ...flags);
    });
    afterAll(() => world?.close());

    test('the fast path is on where it can be', async () => {
      const isOff = plane === 'kernel' || flags.length > 0;
      expect((await world.status()).fastPath?.state ?? 'off').toBe(isOff ? 'off' : 'on');
    });

    test.each(QUICK.filter((each) => isFor(each, plane) && limitOf(each, plane) === undefined))(
      '$who: $title',
      async (attack) => {
        const { open, isBroken } = await attempt(world, attack);
        if (isBroken) {
          await world.close();
          world = await World.make(plane, ...flags);
        }
        expect(open).toEqual([]);
      },
    );
  });
});

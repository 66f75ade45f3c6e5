/** With the kernel's GRE, in User-mode Linux: what leads a container's packets to another VM than that of their destination leads them nowhere. */
import { beforeAll, describe, expect, test } from 'vitest';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from '../uml/machine.ts';

interface Ping {
  sent: number;
  received: number;
}

/** What diverted.mjs prints. */
interface Facts {
  first: Ping;
  led: Record<string, { drops: Record<string, number>; arrived: number }>;
  repaired: Ping;
  redirected: number;
}

describe.skipIf(skip('diverted', machineMissing('ping', 'setpriv'))).each([
  { name: 'without a key', flags: [] },
  { name: 'with a key', flags: ['--key', '7'] },
])('diverted, $name', ({ flags }) => {
  let facts: Facts;
  beforeAll(async () => {
    facts = await runInMachine('diverted.mjs', JSON.stringify(flags));
  }, MACHINE_TIMEOUT);

  test('before, all arrives', () => expect(facts.first).toMatchObject({ sent: 5, received: 5 }));

  test.each(['to another VM', 'to all', 'to a group', 'by a route'])('%s: dropped, and counted', (way) =>
    expect(facts.led[way]).toEqual({ drops: { diverted: 5 }, arrived: 0 }),
  );

  test('when the daemon has seen to it, all arrives', () =>
    expect(facts.repaired).toMatchObject({ sent: 5, received: 5 }));

  test('redirected by a container: nothing arrives elsewhere', () => expect(facts.redirected).toBe(0));
});

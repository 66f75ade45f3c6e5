/** Many processes attach at the same time, without a lock and without a daemon: no address is had twice, and none is lost. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Attachment } from '../../src/containers/attachment.ts';
import { ContainerVms, type Library, NOTHING, Refused } from './container-vms.ts';
import { missing, skip } from './require.ts';

const skipped = skip('containers, together', await missing('ping'));
const PROCESSES = 16;
/** How many containers there may be. */
const CAPACITY = 29;
const MESH = { overlay: '10.0.0.0/26', underlay: '192.168.16.32/31', coolDown: 0 };

describe.skipIf(skipped)(`${PROCESSES} processes`, () => {
  let vms: ContainerVms;
  let libraries: Library[] = [];
  const names = Array.from({ length: 3 * PROCESSES }, (_, i) => `c${i}`);
  const targets = names.map((id) => ({ id }));

  beforeAll(async () => {
    vms = await ContainerVms.of('wasm', 'a');
    await vms.namespaces(...names);
    libraries = Array.from({ length: PROCESSES }, () => vms.library('a', MESH));
    await Promise.all(libraries.map((library) => library.usage()));
  });
  afterAll(async () => {
    await Promise.all(libraries.map((library) => library.close()));
    await vms?.close();
  });

  /** Each process attaches its share. */
  async function attachAll(wanted: readonly string[]): Promise<{ made: Attachment[]; refused: Refused[] }> {
    const attach = (netns: string, i: number) => libraries[i % PROCESSES]?.attach({ netns, id: netns });
    const found = await Promise.all(wanted.map((netns, i) => attach(netns, i)?.catch((error: unknown) => error)));
    const refused = found.filter((each) => each instanceof Refused);
    return { made: found.filter((each) => !refused.includes(each as Refused)) as Attachment[], refused };
  }

  const counts = async () => {
    const { links, claims, neighbours } = await vms.traces('a');
    return [links.length, claims.length, neighbours.length];
  };
  const all = Array.from({ length: CAPACITY }, (_, i) => i + 1);
  const numbersOf = (made: readonly Attachment[]) =>
    made.map(({ container }) => container).sort((one, other) => one - other);

  test('as many containers as there are addresses have one each, and are whole', async () => {
    const { made, refused } = await attachAll(names.slice(0, CAPACITY));
    expect([numbersOf(made), refused]).toEqual([all, []]);
    for (const { id } of made) await libraries[0]?.check({ id, netns: id });
    expect(await counts()).toEqual([CAPACITY, CAPACITY, CAPACITY]);
    // All at once.
    expect(await libraries[0]?.detachAll(made)).toHaveLength(CAPACITY);
    expect(await vms.traces('a')).toEqual(NOTHING);
  });

  test('of more, as many have one, and the others are told so', async () => {
    const { made, refused } = await attachAll(names);
    expect(numbersOf(made)).toEqual(all);
    expect(new Set(refused.map(({ refusal }) => refusal.reason))).toEqual(new Set(['full']));
    // Nothing is left of those.
    expect(await counts()).toEqual([CAPACITY, CAPACITY, CAPACITY]);
    await libraries[0]?.detachAll(targets);
    expect(await vms.traces('a')).toEqual(NOTHING);
  });

  test('of those that want the same number, the same container or the same namespace, one gets it', async () => {
    const race = async (request: (i: number) => { netns: string; id: string; container?: number }) => {
      const tries = libraries.map((library, i) =>
        library.attach(request(i)).then(
          () => 'made',
          ({ refusal }: Refused) => String(refusal.reason),
        ),
      );
      return (await Promise.all(tries)).sort();
    };
    const others = (reason: string) => ['made', ...Array.from({ length: PROCESSES - 1 }, () => reason)].sort();
    expect(await race((i) => ({ netns: `c${i}`, id: `c${i}`, container: 7 }))).toEqual(others('taken'));
    expect(await race(() => ({ netns: 'c20', id: 'same' }))).toEqual(others('attached'));
    expect(await race((i) => ({ netns: 'c21', id: `other${i}` }))).toEqual(others('interface-exists'));
    expect(await counts()).toEqual([3, 3, 3]);
  });
});

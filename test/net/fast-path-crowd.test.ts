/** Thousands of containers: their slots are set and their devices get the program in slices, and whatever else happens has its turn. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FollowedVm, type Follower, type FollowerStatus } from './followed.ts';
import { missing, skip } from './require.ts';

const CROWD = 2000;
const PREFIXES = ['240.0.0.0/4', '192.168.0.0/17'] as const;
/** Of the slice of the VM, 242.4.0.0/17. */
const indexOf = (i: number) => 256 + i;
const addressOf = (i: number) => `242.4.${1 + (i >> 8)}.${i & 255}`;

interface Looked extends FollowerStatus {
  slots: (object | null)[];
  programs: (number | null)[];
}

describe.skipIf(skip('a crowd of containers', await missing('tc')))('2,000 containers', () => {
  let vm: FollowedVm;
  let links: number[];
  beforeAll(async () => {
    vm = await FollowedVm.open(1);
    const lines: string[] = [];
    for (let i = 0; i < CROWD; i++) {
      const queues = 'numtxqueues 1 numrxqueues 1';
      lines.push(`link add w${i} ${queues} type veth peer name w${i} ${queues} netns c1`);
      lines.push(`link set w${i} up`, `route add ${addressOf(i)} dev w${i}`);
    }
    await vm.lab.ip(undefined, lines);
    const indexes = new Map([...(await vm.names())].map(([index, name]) => [name, index]));
    links = Array.from({ length: CROWD }, (_, i) => indexes.get(`w${i}`) as number);
  });
  afterAll(() => vm?.close());

  const all = Array.from({ length: CROWD }, (_, i) => i);
  /** What a daemon says after a look, with the slots of some and the programs of others. */
  const look = (follower: Follower, slotsOf: readonly number[], programsOf: readonly number[] = []): Promise<Looked> =>
    follower.ask('look', { indexes: slotsOf.map(indexOf), links: programsOf.map((i) => links[i]) });
  const programs = async (follower: Follower) => (await look(follower, [], all)).programs;
  const expectPrograms = (follower: Follower, id: number) =>
    expect.poll(() => programs(follower), { interval: 500, timeout: 60_000 }).toEqual(all.map(() => id));
  /** What a new daemon says as soon as it has set some slots, but not all. */
  const begun = async () => {
    const follower = vm.begin(...PREFIXES);
    let found: Looked;
    do found = await look(follower, all, [0, CROWD - 1]);
    while (found.count === 0);
    // An event has had its turn, though there is more to do.
    expect(found.isFilled).toBe(false);
    expect(found.count).toBeLessThan(CROWD);
    return { follower, found };
  };

  test.each(['kill', 'end'] as const)('get slots, and then the program; then a daemon is gone (%s)', async (how) => {
    const { follower, found } = await begun();
    // Those of an earlier daemon stay until then.
    expect(found.programs).not.toContain(found.program);
    await expectPrograms(follower, found.program);
    const devices = await vm.devices();
    expect(devices).toEqual(Object.fromEntries(all.map((i) => [addressOf(i), `w${i}`])));
    expect(await follower.status()).toMatchObject({ count: CROWD, isFilled: true });
    await vm.end(how);
  });

  test('are followed while slots are set: a route that goes clears its slot at once, or it is never set', async () => {
    const { follower, found } = await begun();
    const set = found.slots.findIndex((slot) => slot !== null);
    const unset = found.slots.lastIndexOf(null);
    await vm.sh(`ip route del ${addressOf(set)}; ip route del ${addressOf(unset)}`);
    let now: Looked;
    do now = await look(follower, [set, unset]);
    while (now.slots[0] !== null);
    expect(now.isFilled).toBe(false);
    await expect.poll(() => follower.status(), { timeout: 60_000 }).toMatchObject({ isFilled: true, count: CROWD - 2 });
    expect((await look(follower, [set, unset])).slots).toEqual([null, null]);
    await vm.sh(`ip route add ${addressOf(set)} dev w${set}; ip route add ${addressOf(unset)} dev w${unset}`);
    await expect.poll(() => follower.status()).toMatchObject({ count: CROWD });
    await vm.end('end');
  });

  test('talk on while one of them changes its link again and again', async () => {
    const { program } = await vm.follow(...PREFIXES);
    await expectPrograms(vm.follower, program);
    const toggles = Array.from({ length: 1000 }, (_, i) => `link set w0 ${i % 2 ? 'up' : 'down'}`);
    const toggling = vm.lab.must(undefined, ['ip', '-n', 'c1', '-b', '-'], toggles.join('\n'));
    let isOver = false;
    const over = toggling.finally(() => {
      isOver = true;
    });
    const others = all.slice(1);
    while (!isOver) {
      const { slots, count } = await look(vm.follower, others);
      expect(slots).not.toContain(null);
      expect(count).toBeGreaterThanOrEqual(CROWD - 1);
    }
    await over;
    await expect.poll(() => vm.follower.status()).toMatchObject({ count: CROWD });
    await vm.end('end');
  });
});

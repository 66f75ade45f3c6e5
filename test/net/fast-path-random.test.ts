/**
 * Whatever others do with routes and devices, in whatever order and however fast: at the end each slot leads where table main says, and
 * nowhere else.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runs } from '../runs.ts';
import { container, FollowedVm } from './followed.ts';
import { missing, skip } from './require.ts';
import { seeded } from './seeded.mjs';

const ADDRESSES = ['10.16.32.11', '10.16.32.12', '10.16.32.13'];
/** The last one only marks what has been heard. */
const CONTAINERS = 4;
const SEED = Date.now() % 1e6;
/** Changes at once, at most. */
const BURST = 8;

interface FoundRoute {
  type?: string;
  dst: string;
  dev?: string;
  metric?: number;
  tos?: string;
}

describe.skipIf(skip('random changes of containers', await missing('tc')))('random changes', () => {
  let vm: FollowedVm;
  beforeAll(async () => {
    vm = await FollowedVm.open(CONTAINERS);
    await vm.follow();
    await vm.follower.ask('still');
  });
  afterAll(() => vm?.close());

  /** What table main says, as text has it. */
  async function wanted(): Promise<Record<string, string>> {
    const found: FoundRoute[] = JSON.parse(await vm.sh('ip -j route show table main'));
    const local: FoundRoute[] = JSON.parse(await vm.sh('ip -j route show table local'));
    const up: { ifname: string; flags: string[] }[] = JSON.parse(await vm.sh('ip -j link show up'));
    return Object.fromEntries(
      ADDRESSES.flatMap((address) => {
        const all = found.filter(({ dst }) => dst === address);
        if (all.some(({ tos }) => tos !== undefined) || local.some(({ dst }) => dst === address)) return [];
        // Of routes with the same metric the first one counts.
        const [best] = all.toSorted((a, b) => (a.metric ?? 0) - (b.metric ?? 0));
        const dev = best?.dev;
        return best?.type === undefined && dev !== undefined && up.some(({ ifname }) => ifname === dev)
          ? [[address, dev]]
          : [];
      }),
    );
  }

  test(`lead where table main says (seed ${SEED})`, async () => {
    const random = seeded(SEED);
    const one = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
    const change = (): string => {
      const [address, i] = [one(ADDRESSES), one([1, 2, 3])];
      const metric = one(['', '', ' metric 5', ' metric 9']);
      return one([
        `ip route ${one(['add', 'replace', 'append', 'prepend'])} ${address} dev v${i}${metric}`,
        `ip route ${one(['add', 'replace', 'append', 'prepend'])} ${address} dev v${i}${metric}`,
        `ip route del ${address} dev v${i}${metric}`,
        `ip route del ${address}`,
        `ip route append unreachable ${address}${metric}`,
        `ip route del unreachable ${address}`,
        `ip route add ${address} dev v${i} tos 0x10`,
        `ip route del ${address} tos 0x10`,
        `ip route del ${address} tos 0x10`,
        `ip address add ${address}/32 dev lo`,
        `ip address del ${address}/32 dev lo`,
        `ip address del ${address}/32 dev lo`,
        `ip link set v${i} ${one(['up', 'down', 'up'])}`,
        `ip link del v${i}`,
        `ip link set v${i} netns c4; ip -n c4 link del v${i}`,
        container(i),
        container(i),
      ]);
    };
    let slots = 0;
    for (let i = 0; i < runs(40); i++) {
      const changes = Array.from({ length: 1 + Math.floor(random() * BURST) }, change);
      await vm.sh(`(set +e\n${changes.join('\n')}\n) 2>/dev/null || true`);
      await vm.heard('v4');
      const right = await wanted();
      await vm.expectDevices(right, `${i}: ${changes.join('; ')}`);
      slots += Object.keys(right).length;
      expect((await vm.follower.status()).count).toBe(Object.keys(right).length);
    }
    // How many depends on the seed.
    expect(slots).toBeGreaterThan(0);
  });
});

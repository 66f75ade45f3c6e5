/** Looks at a data plane on a clock of the test's own: rates, drops of the last minute, ages, and how often tunnels are looked at. */
import { expect, test } from 'vitest';
import * as abi from '../src/core/abi.ts';
import type { DirectionCounters } from '../src/core/counters.ts';
import type { Tunnel } from '../src/core/tunnels.ts';
import type { DataPlane } from '../src/dataplane/dataplane.ts';
import { Observer } from '../src/observe/observer.ts';
import { directionStatus, type State } from '../src/observe/status.ts';

/** A data plane that sends 100 packets of 125 bytes a second and drops one; each look at its `tunnels` takes `cost` ms. */
function stage(cost = 0, tunnels = 1000) {
  const world = { now: 0, state: 'starting' as State, looks: 0, isBroken: false };
  const direction = (packets: number, dropped: number): DirectionCounters => ({
    ...{ received: packets + dropped, forwarded: packets, bytes: 125 * packets },
    drops: Array.from({ length: abi.VERDICTS }, (_, reason) => (reason === -abi.DROP_GRE_KEY ? dropped : 0)),
    ...{ replies: 0, suppressed: 0, anomalies: 0 },
  });
  const counters = () => {
    const seconds = world.now / 1000;
    return { outbound: direction(100 * seconds, 0), inbound: direction(0, seconds), tunnels: 0 };
  };
  const dataPlane: Pick<DataPlane, 'counters' | 'tunnels'> = {
    counters: async () => {
      if (world.isBroken) throw new Error('no engine has run yet');
      return counters();
    },
    tunnels: async () => {
      world.looks++;
      world.now += cost;
      const none = { packets: 0, bytes: 0 };
      const each = { inbound: none, outbound: none, lastUse: 0 };
      return { now: world.now, tunnels: Array.from({ length: tunnels }, (_, vm) => ({ vm, ...each })) as Tunnel[] };
    },
  };
  const observer = new Observer({
    dataPlane: () => dataPlane as DataPlane,
    state: () => world.state,
    clock: () => world.now,
    obstacle: () => undefined,
    onChanges: () => {},
  });
  const second = async () => {
    world.now += 1000;
    await observer.look();
  };
  return { world, observer, counters, second };
}

test('traffic now is the average of five seconds, recent drops are those of a minute', async () => {
  const { observer, counters, second, world } = stage();
  for (let i = 0; i < 3; i++) await second();
  const now = () => ['outbound', 'inbound'].map((name) => observer.rates.of(name as 'outbound', world.now, counters()));
  expect(now()).toMatchObject([{ packetsPerSecond: 100, bitsPerSecond: 100_000 }, { packetsPerSecond: 0 }]);
  for (let i = 0; i < 97; i++) await second();
  const [outbound, inbound] = now();
  expect(outbound).toMatchObject({ packetsPerSecond: 100, bitsPerSecond: 100_000 });
  expect(directionStatus(counters().inbound, inbound as never)).toMatchObject({
    drops: { 'gre-key': 100 },
    recentDrops: { 'gre-key': 60 },
  });
});

test('before there is a second to compare with, there is no traffic', async () => {
  const { observer, counters, second, world } = stage();
  expect(observer.rates.of('outbound', world.now, counters())).toMatchObject({ packetsPerSecond: 0, bitsPerSecond: 0 });
  await second();
  world.now += 10;
  expect(observer.rates.of('outbound', world.now, counters())).toMatchObject({ packetsPerSecond: 0 });
});

test('counters that begin again are no traffic', async () => {
  const { observer, counters, second, world } = stage();
  for (let i = 0; i < 10; i++) await second();
  const now = world.now;
  world.now = 0;
  expect(observer.rates.of('outbound', now, counters())).toMatchObject({ packetsPerSecond: 0, bitsPerSecond: 0 });
});

test('a data plane that does not answer is looked at again', async () => {
  const { observer, second, world } = stage();
  world.isBroken = true;
  await second();
  world.isBroken = false;
  await second();
  expect(world.looks).toBe(2);
  expect(observer.tunnels.summary(world.now).heard).toBe(0);
});

test.each([
  ['cheap', 0, 100],
  ['costly', 50, 20],
])('looks at tunnels that are %s take at most a hundredth of the time', async (_, cost, looks) => {
  const { second, world } = stage(cost);
  for (let i = 0; i < 100; i++) await second();
  expect(world.looks).toBe(looks);
});

test('a look that waited, on a machine that does much else, makes none rarer', async () => {
  const { second, world } = stage(50, 1);
  for (let i = 0; i < 100; i++) await second();
  expect(world.looks).toBe(100);
});

test('since when', async () => {
  const { observer, second, world } = stage();
  await second();
  world.state = 'running';
  for (let i = 0; i < 10; i++) await second();
  expect(observer.ages).toEqual({ uptimeSeconds: 11, stateSeconds: 9 });
  world.state = 'degraded';
  expect(observer.ages).toEqual({ uptimeSeconds: 11, stateSeconds: 0 });
});

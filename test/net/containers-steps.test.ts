/** Attach and detach are stopped at each of their steps: killed there, or somebody else does something in between. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ContainerVms, type Library, type Refused, type Traces } from './container-vms.ts';
import { shellLine } from './mesh.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const skipped = skip('containers, step by step', await missing('ping'));
/** What attach and detach ask of the kernel, in this order; of detach, where addresses cool down. */
const ATTACH = [
  ...['own address', 'link', 'index', 'ipv6', 'source', 'host'],
  ...['enter', 'interface', 'leave', 'look', 'inside', 'alias'],
];
const DETACH = ['find', 'neighbour', 'mark', 'claim', 'tombstone', 'release', 'delete'];
/** Killed before a step that there is not, they are done. */
const steps = Array.from({ length: ATTACH.length + 1 }, (_, i) => i);
const COOL_DOWN = 60;

let vms: ContainerVms;
/** Without a cool-down, and with one. */
let library: Library;
let cooling: Library;
let bystander: Traces;
beforeAll(async () => {
  if (skipped) return;
  vms = await ContainerVms.of('wasm', 'a');
  await vms.namespaces('bystander', ...steps.map((step) => `c${step}`));
  library = vms.library('a', { coolDown: 0 });
  cooling = vms.library('a', { coolDown: COOL_DOWN });
  await library.attach({ netns: 'bystander', id: 'bystander' });
  bystander = await vms.traces('a');
});
afterEach(async () => {
  if (skipped) return;
  // Of a test that failed.
  await library.detachAll(steps.map((step) => ({ id: `x${step}` })));
  await vms.lab.run('a', ['ip', 'route', 'flush', 'proto', '74', 'type', 'unreachable']);
});
afterAll(async () => {
  await library?.close();
  await cooling?.close();
  await vms?.close();
});

type Call = [method: string, argument: unknown];
const stopped = async (step: string, call: Call, coolDown = 0) =>
  (await vms.stopped('a', step, [call], { coolDown }))?.[0];
const attach = (step: number): Call => ['attach', { netns: `c${step}`, id: `x${step}` }];
const detach = (step: number): Call => ['detach', { id: `x${step}` }];
const whole = (step: number) => library.check({ id: `x${step}`, netns: `c${step}` });
const addressOf = async (step: number) => (await library.find({ id: `x${step}` }))?.address ?? 'none';

/** Another process makes a call, at a step of `stopped`. */
const other = (call: Call, end = '>/dev/null', coolDown = 0) =>
  `${shellLine(['ip', 'netns', 'exec', 'a', 'sh', '-c', vms.callWords('a', call, { coolDown })])} ${end}`;

/** Nothing but the bystander is left, and it works. */
async function nothingIsLeft(): Promise<void> {
  expect({ ...(await vms.traces('a')), tombstones: [] }).toEqual(bystander);
  const looks = steps.map((step) => `ip -n c${step} -br link`).join('; ');
  expect(await vms.lab.must(undefined, ['sh', '-ec', looks])).toMatch(/^(lo .*\n)+$/);
  expect(await vms.pings('bystander', '10.16.32.1', 1)).toBe('1');
}

describe.skipIf(skipped)('killed before each step', () => {
  test('attach: the next detach, or the next attach, clears what is left', async () => {
    const answers = await Promise.all(steps.map((step) => stopped(String(step), attach(step))));
    expect(answers.map((answer) => answer !== undefined)).toEqual(steps.map((step) => step === ATTACH.length));
    // It was never attached.
    for (const step of steps.slice(0, -1)) expect(await library.find({ id: `x${step}` })).toBeNull();
    // A link without a claim, one with a claim, and one that is whole but for its alias.
    const again = [2, 7, 11];
    const made = await Promise.all(again.map((step) => stopped('', attach(step))));
    expect(made.map((answer) => answer?.error)).toEqual(again.map(() => undefined));
    for (const step of steps.slice(0, -1).filter((each) => !again.includes(each)))
      expect(await library.detach({ id: `x${step}` })).toBeNull();
    const left = [...again, ATTACH.length];
    for (const step of left) await whole(step);
    const ids = ['bystander', ...left.map((step) => `x${step}`)];
    expect((await library.list()).map(({ id }) => id).sort()).toEqual(ids.sort());
    const { links, claims } = await vms.traces('a');
    expect([links.length, new Set(claims.map((claim) => claim.split(' ')[0])).size]).toEqual([ids.length, ids.length]);
    await library.detachAll(left.map((step) => ({ id: `x${step}` })));
    await nothingIsLeft();
  });

  test('detach: whoever finishes it, the container is gone, and its address cools down', async () => {
    const chosen = steps.slice(0, DETACH.length + 1);
    for (const step of chosen) await library.call(...attach(step));
    const addresses = await Promise.all(chosen.map(addressOf));
    const answers = await Promise.all(chosen.map((step) => stopped(String(step), detach(step), COOL_DOWN)));
    expect(answers.map((answer) => answer !== undefined)).toEqual(chosen.map((step) => step === DETACH.length));
    // What nobody has marked is attached; the rest is made anew, or detached to the end.
    const found: string[] = [];
    for (const step of [1, 3, 6]) {
      const attached = cooling.call(...attach(step)).then(() => 'made');
      found.push(await attached.catch(({ refusal }: Refused) => String(refusal.reason)));
      await whole(step);
    }
    expect(found).toEqual(['attached', 'made', 'made']);
    for (const step of chosen) await cooling.detach({ id: `x${step}` });
    expect((await vms.traces('a')).tombstones).toEqual(expect.arrayContaining(addresses));
    await nothingIsLeft();
  });

  test('detach of several: those that are left go with the next', async () => {
    const targets = steps.slice(0, 3).map((step) => ({ id: `x${step}` }));
    for (const step of [7, 9, 13]) {
      for (const each of steps.slice(0, 3)) await library.call(...attach(each));
      expect([step, await stopped(String(step), ['detachAll', targets])]).toEqual([step, undefined]);
      await library.detachAll(targets);
    }
    await nothingIsLeft();
  });

  test('a number that cools down twice is free when its time is over', async () => {
    const small = { overlay: '10.0.0.0/29', underlay: '192.168.16.32/31', coolDown: 1 };
    const one = vms.library('a', small);
    await one.attach({ netns: 'c0', id: 'x0' });
    const release = DETACH.indexOf('release');
    await vms.stopped('a', String(release), [detach(0)], small);
    // Of what is about to go, nobody asks where it was.
    const isTwice = async () => {
      await vms.stopped('a', String(release - 1), [detach(0)], small);
      return (await vms.traces('a')).tombstones.length > 1;
    };
    await expect.poll(isTwice, PATIENCE).toBe(true);
    await one.detach({ id: 'x0' });
    expect(await one.refusal('attach', { netns: 'c1', id: 'x1' })).toMatchObject({ reason: 'full' });
    const isFree = () =>
      one.attach({ netns: 'c1', id: 'x1', container: 1 }).then(
        () => true,
        () => false,
      );
    await expect.poll(isFree, PATIENCE).toBe(true);
    expect((await vms.traces('a')).tombstones).toEqual([]);
    await one.detach({ id: 'x1' });
    await one.close();
    await nothingIsLeft();
  });
});

describe.skipIf(skipped)('before a step', () => {
  /** Something happens before these steps of attach, each of another container. */
  const during = (command: (netns: string) => string, names: readonly string[]) =>
    Promise.all(
      names.map(async (name) => {
        const step = ATTACH.indexOf(name);
        return (await stopped(`${step}:${command(`c${step}`)}`, attach(step)))?.error?.reason ?? 'made';
      }),
    );

  test('root in the container deletes its interface', async () => {
    const names = ['index', 'host', 'enter', 'interface', 'inside', 'alias'];
    const found = await during((netns) => `ip -n ${netns} link del eth0`, names);
    expect(found).toEqual(names.map(() => 'namespace-gone'));
    await nothingIsLeft();
  });

  test('root in the container calls its interface something else', async () => {
    const names = ['enter', 'interface'];
    const found = await during((netns) => `ip -n ${netns} link set eth0 name other`, names);
    expect(found).toEqual(names.map(() => 'namespace-gone'));
    await nothingIsLeft();
  });

  test('root in the container deletes its interface while it is detached', async () => {
    const chosen = steps.slice(0, DETACH.length);
    for (const step of chosen) await library.call(...attach(step));
    const answers = await Promise.all(
      chosen.map((step) => stopped(`${step}:ip -n c${step} link del eth0`, detach(step), COOL_DOWN)),
    );
    expect(answers.map((answer) => answer?.error)).toEqual(chosen.map(() => undefined));
    await nothingIsLeft();
  });

  test('the namespace is deleted, and another one gets its name', async () => {
    // Whoever attaches holds the old one until it is done.
    const found = await during((netns) => `ip netns del ${netns}; ip netns add ${netns}`, ['link', 'enter', 'inside']);
    expect(found).toEqual(['made', 'made', 'made']);
    await expect.poll(() => vms.traces('a'), PATIENCE).toEqual(bystander);
    await nothingIsLeft();
  });

  test('another process attaches the same container: one of them does, the other is refused', async () => {
    const chosen = ['index', 'host', 'inside', 'alias'].map((name) => ATTACH.indexOf(name));
    const first = await Promise.all(
      chosen.map((step) =>
        stopped(`${step}:(${other(attach(step), `>/run/second-${step}`)}) & sleep 0.5`, attach(step)),
      ),
    );
    for (const [i, step] of chosen.entries()) {
      const read = () => vms.lab.must(undefined, ['cat', `/run/second-${step}`]);
      await expect.poll(read, PATIENCE).toMatch(/\n$/);
      expect([step, first[i]?.error, JSON.parse(await read()).error?.reason]).toEqual([step, undefined, 'attached']);
      await whole(step);
      const addresses = await vms.lab.must(`c${step}`, ['ip', '-br', '-4', 'address', 'show', 'dev', 'eth0']);
      expect(addresses.match(/\/32/g)).toHaveLength(1);
      await library.detach({ id: `x${step}` });
    }
    await nothingIsLeft();
  });

  test('another process detaches the container that is in the way', async () => {
    await library.call(...attach(1));
    // Behind the first try to make its link.
    expect((await stopped(`2:${other(detach(1))}`, attach(1)))?.error).toBeUndefined();
    await whole(1);
    await library.detach({ id: 'x1' });
    await nothingIsLeft();
  });

  test('another process detaches others: the address cools down all the same', async () => {
    const names = ['mark', 'claim', 'tombstone', 'release', 'delete'];
    for (const [step] of names.entries()) await library.call(...attach(step));
    const addresses = await Promise.all(names.map((_, step) => addressOf(step)));
    for (const [step, name] of names.entries()) {
      for (const each of [10, 11]) await library.call(...attach(each));
      const many = other(['detachAll', [{ id: 'x10' }, { id: 'x11' }]]);
      const { value, error } = (await stopped(`${DETACH.indexOf(name)}:${many}`, detach(step), COOL_DOWN)) ?? {};
      expect([name, error, value]).toEqual([name, undefined, expect.objectContaining({ id: `x${step}` })]);
    }
    expect((await vms.traces('a')).tombstones.sort()).toEqual(addresses.sort());
    await nothingIsLeft();
  });

  test('the kernel has no veth', async () => {
    const { error } = (await stopped(`${ATTACH.indexOf('link')}:!`, attach(0))) ?? {};
    expect(error).toMatchObject({ reason: 'no-veth', exitCode: 71, hint: 'modprobe veth' });
    await nothingIsLeft();
  });
});

/** Attach and detach are stopped at each of their steps: killed there, or somebody else does something in between. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ContainerVms, type Library, type Refused, type Traces } from './container-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const skipped = skip('containers, step by step', await missing('ping'));
/** How many steps attach and detach have: killed before one that there is not, they are done. */
const [ATTACH, DETACH] = [14, 6];
const upTo = (count: number) => Array.from({ length: count + 1 }, (_, i) => i);
const steps = upTo(ATTACH);

let vms: ContainerVms;
let library: Library;
let bystander: Traces;
beforeAll(async () => {
  if (skipped) return;
  vms = await ContainerVms.of('wasm', 'a');
  await vms.namespaces('bystander', ...steps.map((step) => `c${step}`));
  library = vms.library('a', { coolDown: 0 });
  await library.attach({ netns: 'bystander', id: 'bystander' });
  bystander = await vms.traces('a');
});
// Of a test that failed.
afterEach(() => library?.detachAll(steps.map((step) => ({ id: `x${step}` }))));
afterAll(async () => {
  await library?.close();
  await vms?.close();
});

const stopped = (step: string, ...calls: [method: string, argument: unknown][]) =>
  vms.stopped('a', step, calls, { coolDown: 0 });
const attach = (step: number): [string, unknown] => ['attach', { netns: `c${step}`, id: `x${step}` }];
const detach = (step: number): [string, unknown] => ['detach', { id: `x${step}` }];

/** Nothing but the bystander is left, and it works. */
async function nothingIsLeft(): Promise<void> {
  expect(await vms.traces('a')).toEqual(bystander);
  const looks = steps.map((step) => `ip -n c${step} -br link`).join('; ');
  expect(await vms.lab.must(undefined, ['sh', '-ec', looks])).toMatch(new RegExp(`^(lo .*\n){${steps.length}}$`));
  expect(await vms.pings('bystander', '10.16.32.1', 1)).toBe('1');
}

describe.skipIf(skipped)('killed before each step', () => {
  test('attach: the next detach, or the next attach, clears what is left', async () => {
    const answers = await Promise.all(steps.map((step) => stopped(String(step), attach(step))));
    expect(answers.map((answer) => answer !== undefined)).toEqual(steps.map((step) => step === ATTACH));
    // Without a claim, with one, and with all but the alias.
    const again = [3, 6, 13];
    const made = await Promise.all(again.map((step) => stopped('', attach(step))));
    expect(made.map((answer) => answer?.[0]?.error)).toEqual(again.map(() => undefined));
    const whole = [...again, ATTACH];
    for (const step of steps.filter((each) => !whole.includes(each))) await library.detach({ id: `x${step}` });
    for (const step of whole) await library.check({ id: `x${step}`, netns: `c${step}` });
    const ids = ['bystander', ...whole.map((step) => `x${step}`)];
    expect((await library.list()).map(({ id }) => id).sort()).toEqual(ids.sort());
    const { claims } = await vms.traces('a');
    expect(new Set(claims.map((claim) => claim.split(' ')[0])).size).toBe(ids.length);
    await library.detachAll(ids.slice(1).map((id) => ({ id })));
    await nothingIsLeft();
  });

  test('detach: the container is attached or detached, and the next call makes it the one or the other', async () => {
    const chosen = upTo(DETACH);
    for (const step of chosen) await library.call(...attach(step));
    const answers = await Promise.all(chosen.map((step) => stopped(String(step), detach(step))));
    expect(answers.map((answer) => answer !== undefined)).toEqual(chosen.map((step) => step === DETACH));
    const found: string[] = [];
    for (const step of chosen) {
      found.push(
        await library.call(...attach(step)).then(
          () => 'made',
          ({ refusal }: Refused) => String(refusal.reason),
        ),
      );
      await library.check({ id: `x${step}`, netns: `c${step}` });
    }
    // Until it is marked it is whole.
    expect(found).toEqual(chosen.map((step) => (step < 3 ? 'attached' : 'made')));
    for (const step of chosen) await library.detach({ id: `x${step}` });
    await nothingIsLeft();
  });

  test('detach of several: those that are left go with the next', async () => {
    const targets = steps.slice(0, 3).map((step) => ({ id: `x${step}` }));
    const killed: boolean[] = [];
    for (const step of [8, 10, 12]) {
      for (const each of steps.slice(0, 3)) await library.call(...attach(each));
      killed.push((await stopped(String(step), ['detachAll', targets])) === undefined);
      await library.detachAll(targets);
    }
    expect(killed).toEqual([true, true, true]);
    await nothingIsLeft();
  });

  test('a number that cools down twice is free when its time is over', async () => {
    const small = { overlay: '10.0.0.0/29', underlay: '192.168.16.32/31', coolDown: 1 };
    const one = vms.library('a', small);
    await one.attach({ netns: 'c0', id: 'x0' });
    // Before its claim is deleted, but behind the tombstone.
    const isTwice = async () => {
      await vms.stopped('a', '5', [detach(0)], small);
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
    await vms.lab.ip('c1', ['link del eth0']);
    await one.close();
    await nothingIsLeft();
  });
});

describe.skipIf(skipped)('before each step', () => {
  /** Something happens to the namespace of each. */
  const during = (command: (netns: string) => string, chosen: readonly number[]) =>
    Promise.all(chosen.map(async (step) => (await stopped(`${step}:${command(`c${step}`)}`, attach(step)))?.[0]));
  const reasons = (answers: readonly ({ error?: { reason?: string } } | undefined)[]) =>
    answers.map((answer) => answer?.error?.reason ?? 'made');

  test('root in the container deletes its interface', async () => {
    const chosen = [2, 5, 6, 9, 13];
    const found = await during((netns) => `ip -n ${netns} link del eth0`, chosen);
    expect(reasons(found)).toEqual(chosen.map(() => 'namespace-gone'));
    await nothingIsLeft();
  });

  test('root in the container deletes its interface while it is detached, or found in the way', async () => {
    const chosen = upTo(DETACH + 1);
    for (const step of chosen) await library.call(...attach(step));
    const answers = chosen.map(async (step) => {
      // Whoever attaches makes it anew, until it was seen to be there.
      const [at, call] = step < DETACH ? [step, detach(step)] : [step - DETACH + 1, attach(step)];
      return (await stopped(`${at}:ip -n c${step} link del eth0`, call as [string, unknown]))?.[0]?.error;
    });
    expect(await Promise.all(answers)).toEqual(chosen.map(() => undefined));
    for (const step of chosen.slice(DETACH)) await library.check({ id: `x${step}`, netns: `c${step}` });
    for (const step of chosen) await library.detach({ id: `x${step}` });
    await nothingIsLeft();
  });

  test('root in the container calls its interface something else', async () => {
    const found = await during((netns) => `ip -n ${netns} link set eth0 name other`, [9, 10]);
    expect(reasons(found)).toEqual(['namespace-gone', 'namespace-gone']);
    await nothingIsLeft();
  });

  test('the namespace is deleted, and another one gets its name', async () => {
    // Whoever attaches holds the old one until it is done.
    const found = await during((netns) => `ip netns del ${netns}; ip netns add ${netns}`, [1, 6, 13]);
    expect(reasons(found)).toEqual(['made', 'made', 'made']);
    await expect.poll(() => vms.traces('a'), PATIENCE).toEqual(bystander);
    await nothingIsLeft();
  });

  test('another process attaches the same container: one of them does, the other is refused', async () => {
    const chosen = [2, 5, 13];
    const second = (step: number) =>
      `(ip netns exec a sh -c '${vms.callWords('a', attach(step)).replaceAll("'", `'\\''`)}' >/run/second-${step}) & sleep 0.5`;
    const first = await Promise.all(
      chosen.map(async (step) => (await stopped(`${step}:${second(step)}`, attach(step)))?.[0]),
    );
    for (const [i, step] of chosen.entries()) {
      const read = () => vms.lab.must(undefined, ['cat', `/run/second-${step}`]);
      await expect.poll(read, PATIENCE).toMatch(/\n$/);
      const other = JSON.parse(await read());
      expect([step, ...reasons([first[i], other])]).toEqual([step, 'made', 'attached']);
      expect(first[i]?.value).toMatchObject(await library.check({ id: `x${step}`, netns: `c${step}` }));
      const addresses = await vms.lab.must(`c${step}`, ['ip', '-br', '-4', 'address', 'show', 'dev', 'eth0']);
      expect(addresses.match(/\/32/g)).toHaveLength(1);
      await library.detach({ id: `x${step}` });
    }
    await nothingIsLeft();
  });

  test('another process detaches the container that is in the way', async () => {
    await library.call(...attach(1));
    const other = `ip netns exec a sh -c '${vms.callWords('a', detach(1)).replaceAll("'", `'\\''`)}' >/dev/null`;
    expect((await stopped(`1:${other}`, attach(1)))?.[0]?.error).toBeUndefined();
    await library.check({ id: 'x1', netns: 'c1' });
    await library.detach({ id: 'x1' });
    // It cools down: the other process has the usual time.
    await vms.ip('a', 'route flush proto 74 type unreachable');
    await nothingIsLeft();
  });

  test('the kernel has no veth', async () => {
    const [answer] = (await stopped('1:!', attach(0))) ?? [];
    expect(answer?.error).toMatchObject({ reason: 'no-veth', exitCode: 71, hint: 'modprobe veth' });
    await nothingIsLeft();
  });
});

/** The fast path's program at containers' devices: it comes and goes with them, is replaced without a gap, and is in nobody's way. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { FollowedVm } from './followed.ts';
import { missing, skip } from './require.ts';

const A = '10.16.32.11';
const B = '10.16.32.12';
const C = '10.16.32.13';
const OTHERS = 'bpf bytecode "1,6 0 0 4294967295,"';

describe.skipIf(skip("programs at containers' devices", await missing('tc')))('the program', () => {
  let vm: FollowedVm;
  beforeAll(async () => {
    vm = await FollowedVm.open(3);
  });
  beforeEach(() => vm.sh(`ip route replace ${A} dev v1; ip route replace ${B} dev v2`));
  afterEach(async () => {
    await vm.end('end');
    await vm.machine([['note', { thing: { kind: 'container-filters' } }], ['undo']]);
    await vm.sh(
      'for v in v1 v2 v3; do tc qdisc del dev $v root; tc qdisc del dev $v clsact; tc qdisc del dev $v ingress; done 2>/dev/null || true',
    );
    await vm.sh(`ip route del ${C} 2>/dev/null || true`);
  });
  afterAll(() => vm?.close());

  const expectProgram = (device: string, ids: readonly number[]) => expect.poll(() => vm.programs(device)).toEqual(ids);
  const plain = ['noqueue'];
  const ours = ['clsact', 'noqueue'];
  /** Until what is new has been seen to have no program, and what was new got it. */
  const settled = async (program: number) => {
    await vm.sh(`ip route add ${C} dev v3`);
    await expectProgram('v3', [program]);
    await vm.sh(`ip route del ${C}`);
    await expectProgram('v3', []);
  };

  test('is at the devices that were there, at once, and comes to a new one later', async () => {
    const { program } = await vm.follow();
    await expectProgram('v1', [program]);
    await expectProgram('v2', [program]);
    await vm.sh(`ip route add ${C} dev v3`);
    await expect.poll(async () => (await vm.devices())[C]).toBe('v3');
    // The slot comes first: a plugin behind ours may want its discipline there.
    expect(await vm.disciplines('v3')).toEqual(plain);
    await expectProgram('v3', [program]);
    expect(await vm.disciplines('v3')).toEqual(ours);
  });

  test('leaves a device whose route has gone, and the discipline with it', async () => {
    const { program } = await vm.follow();
    await expectProgram('v1', [program]);
    await vm.sh(`ip route del ${A}`);
    await expectProgram('v1', []);
    await expect.poll(() => vm.disciplines('v1')).toEqual(plain);
  });

  test('leaves the discipline to others who have a filter in it', async () => {
    const { program } = await vm.follow();
    await expectProgram('v1', [program]);
    await vm.sh(`tc filter add dev v1 egress prio 5 ${OTHERS}; ip route del ${A}`);
    await expectProgram('v1', []);
    expect(await vm.disciplines('v1')).toEqual(ours);
    expect(await vm.sh('tc filter show dev v1 egress')).toContain('pref 5 bpf');
  });

  test('lets a plugin limit a container that has just been attached', async () => {
    const { program } = await vm.follow();
    await vm.sh(
      `ip route add ${C} dev v3; tc qdisc add dev v3 ingress; tc qdisc add dev v3 root tbf rate 10mbit burst 10k latency 50ms`,
    );
    // By the time that the program has gone from a device without a route, it would have come to a new one.
    await expectProgram('v2', [program]);
    await vm.sh(`ip route del ${B}`);
    await expectProgram('v2', []);
    expect(await vm.devices()).toEqual({ [A]: 'v1' });
    expect(await vm.disciplines('v3')).toEqual(['ingress', 'tbf']);
    // When it goes, ours comes.
    await vm.sh('tc qdisc del dev v3 ingress; tc qdisc del dev v3 root');
    await vm.expectDevices({ [A]: 'v1', [C]: 'v3' });
    await expectProgram('v3', [program]);
  });

  test("stays away from others' disciplines that were there before, empty or not", async () => {
    await vm.sh('tc qdisc add dev v1 clsact; tc qdisc add dev v2 ingress');
    const { program } = await vm.follow();
    await settled(program);
    expect(await vm.slots()).toEqual({});
    expect([await vm.programs('v1'), await vm.programs('v2')]).toEqual([[], []]);
    await vm.sh('tc qdisc del dev v1 clsact');
    await expectProgram('v1', [program]);
  });

  test.each([
    ['tc filter del dev v1 ingress', ours],
    ['tc qdisc del dev v1 clsact', plain],
  ])('comes again when others have taken it away: %s', async (sh, then) => {
    const { program } = await vm.follow();
    await expectProgram('v1', [program]);
    await vm.sh(sh);
    expect(await vm.disciplines('v1')).toEqual(then);
    await expectProgram('v1', [program]);
    expect(await vm.disciplines('v1')).toEqual(ours);
    await vm.expectDevices({ [A]: 'v1', [B]: 'v2' });
  });

  test('stays when its daemon is killed, and is replaced without a gap', async () => {
    const { program: before } = await vm.follow();
    await expectProgram('v1', [before]);
    await expectProgram('v2', [before]);
    await vm.end('kill');
    expect(await vm.programs('v1')).toEqual([before]);
    const log = '/run/monitor';
    const monitor = vm.lab.start(undefined, ['sh', '-c', `exec tc monitor >${log}`], { stdio: 'ignore' });
    await expect
      .poll(() => vm.sh(`tc qdisc add dev v3 clsact; tc qdisc del dev v3 clsact; cat ${log}`))
      .toContain('v3');
    const { program } = await vm.follow();
    expect(program).not.toBe(before);
    await expectProgram('v1', [program]);
    await expectProgram('v2', [program]);
    await expect.poll(() => vm.sh(`cat ${log}`)).toMatch(/v1 .*v2 |v2 .*v1 /s);
    monitor.kill();
    const changes = (await vm.sh(`cat ${log}`)).split('\n').filter((line) => / v[12] /.test(line));
    expect(changes.length).toBeGreaterThanOrEqual(2);
    for (const change of changes) expect(change).not.toMatch(/^deleted/);
    for (const change of changes) expect(change).toMatch(/filter/);
  });

  test('of a daemon that was killed goes from what is no container any more', async () => {
    const { program: before } = await vm.follow();
    await expectProgram('v1', [before]);
    await expectProgram('v2', [before]);
    await vm.end('kill');
    await vm.sh(`ip route del ${A}`);
    const { program } = await vm.follow();
    await expectProgram('v2', [program]);
    await expectProgram('v1', []);
    await expect.poll(() => vm.disciplines('v1')).toEqual(plain);
  });

  test('of a daemon that was killed is replaced beside filters of others, too, but takes nothing there', async () => {
    const { program: before } = await vm.follow();
    await expectProgram('v1', [before]);
    await vm.end('kill');
    await vm.sh(`tc filter add dev v1 egress prio 5 ${OTHERS}`);
    const { program } = await vm.follow();
    await expectProgram('v1', [program]);
    await vm.expectDevices({ [B]: 'v2' });
  });

  test('is undone at all devices, with a journal and without one, and others keep theirs', async () => {
    for (const steps of [
      [['note', { thing: { kind: 'container-filters' } }], ['undo'], ['noted']],
      [['remains'], ['noted']],
    ]) {
      const { program } = await vm.follow();
      await expectProgram('v1', [program]);
      await expectProgram('v2', [program]);
      await vm.sh(`tc filter add dev v2 ingress prio 5 ${OTHERS}; tc qdisc add dev v3 ingress`);
      await vm.end('kill');
      const answers = await vm.machine(steps);
      expect(answers.at(-1)).toEqual([]);
      expect(answers).toContainEqual(steps.length === 3 ? ["programs at containers' devices"] : ['container-filters']);
      expect([await vm.programs('v1'), await vm.programs('v2')]).toEqual([[], []]);
      expect(await vm.disciplines('v1')).toEqual(plain);
      expect(await vm.disciplines('v2')).toEqual(ours);
      expect(await vm.disciplines('v3')).toEqual(['ingress', 'noqueue']);
      await vm.sh('tc qdisc del dev v2 clsact; tc qdisc del dev v3 ingress');
    }
  });

  test('is no matter of the device that leads to other VMs, which has another of ours', async () => {
    const uplink: unknown = { kind: 'filter', device: 'v3', place: 'ingress', program: 'program:uplink', others: true };
    const [ensured] = await vm.machine([['ensure', [uplink]]]);
    expect(ensured).toMatchObject({ troubles: [] });
    const [there] = await vm.programs('v3');
    await vm.sh(`ip route add ${C} dev v3`);
    const { program } = await vm.follow('10.0.0.0/8', '192.168.0.0/16', String(await vm.indexOf('v3')));
    await expectProgram('v1', [program]);
    await vm.expectDevices({ [A]: 'v1', [B]: 'v2' });
    expect(await vm.programs('v3')).toEqual([there]);
    await vm.end('end');
    const note = (thing: unknown) => ['note', { thing }];
    await vm.machine([
      ...[note({ kind: 'clsact', device: 'v3' }), note(uplink), note({ kind: 'container-filters' })],
      ['keepOnly', [uplink]],
    ]);
    expect([await vm.programs('v1'), await vm.programs('v3')]).toEqual([[], [there]]);
  });
});

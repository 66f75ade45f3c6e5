/** Who has locks that a daemon needs: of a run directory, and of a device. A local user can have neither. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Output } from '../../src/demo/lab.ts';
import { plainErrors } from '../../src/log.ts';
import { CATCH_ALL_ROUTE } from '../net/catch-all.ts';
import { CLI, shellLine } from '../net/mesh.ts';
import { missing, notRoot, skip } from '../net/require.ts';
import { AS_USER, LEAST, Strangers, USER } from '../net/strangers.ts';
import { Vms } from '../net/vms.ts';

const SQUAT = fileURLToPath(new URL('../machine/squat.mjs', import.meta.url));
const UP = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
const needed = (await missing('ping', 'setpriv', 'unshare', 'flock')) ?? notRoot;

describe.skipIf(skip('locks', needed))('locks', () => {
  let vms: Vms;
  let strangers: Strangers;

  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    strangers = new Strangers(vms.lab, 'a');
    await vms.lab.must(undefined, ['sh', '-c', 'mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200']);
  });
  afterEach(async () => {
    await strangers.endAll();
    await vms.reset('a');
  });
  afterAll(() => vms?.close());

  const sh = (script: string) => vms.lab.must('a', ['sh', '-c', script]);
  const inlay = (command: string, runDir: string, ...flags: string[]): Promise<Output> =>
    vms.lab.run('a', [process.execPath, CLI, command, ...flags, '--run-dir', runDir]);

  test('who locks the directory, and whatever else there can be opened, keeps nobody from it', async () => {
    const dir = vms.runDir('a');
    await sh(`mkdir -p ${dir}`);
    await strangers.start([...AS_USER, 'flock', dir, 'sh', '-c', 'echo $$; exec sleep infinity']);
    const daemon = await vms.up('a');
    const mode = await sh(`stat -c '%a %u' ${dir}/lock`);
    expect(mode).toBe('600 0\n');
    expect((await vms.lab.run('a', [...AS_USER, 'flock', '-n', `${dir}/lock`, 'true'])).code).not.toBe(0);
    // It is held: root's own try says so.
    expect((await vms.lab.run('a', ['flock', '-n', `${dir}/lock`, 'true'])).code).toBe(1);
    await vms.end('KILL', daemon);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
  });

  /** Another daemon with the same device, which has to fail. */
  async function expectHeld(): Promise<void> {
    const { code, stderr } = await inlay('up', '/run/second', ...UP);
    expect([code, plainErrors(stderr)]).toEqual([
      1,
      expect.stringContaining('another Inlay daemon has the device inlay0: VM '),
    ]);
    await sh('! ls /run/second');
  }

  test.each([
    ['a user', AS_USER],
    ['a user who is root in a user namespace of their own', [...AS_USER, 'unshare', '--user', '--map-root-user']],
  ])('%s who has the names of the device lock keeps no daemon out, nor lets two in', async (_, wrapper) => {
    await strangers.start([...wrapper, process.execPath, SQUAT, 'inlay/inlay0', 'inlay/inlay0/1', 'inlay/other0']);
    const daemon = await vms.up('a');
    expect(await vms.log('a')).toMatch(/"strangers":2,"msg":"processes that are no daemons/);
    await expectHeld();
    // An ordinary user is told of the daemon, and not of the stranger.
    const { stderr } = await vms.lab.run('a', [...AS_USER, process.execPath, CLI, 'status', '--run-dir', '/run/none']);
    expect(stderr).toContain(`here runs VM 192.168.16.32, device inlay0, run directory ${vms.runDir('a')}\n`);
    await vms.end('KILL', daemon);
    // With nobody but strangers, what is recognisable as ours is nobody's.
    await sh(`rm -r ${vms.runDir('a')}`);
    expect(await vms.inlay('a', 'down')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(CATCH_ALL_ROUTE),
    });
  });

  test('a stranger who lets a name go does not let a second daemon in', async () => {
    const stranger = await strangers.start([...AS_USER, process.execPath, SQUAT, 'inlay/inlay0']);
    await vms.up('a');
    await strangers.end(stranger);
    await expectHeld();
  });

  test('a daemon of another user is one, too', async () => {
    await vms.lab.must('a', ['install', '-d', '-o', String(USER), '-g', String(USER), vms.runDir('a')]);
    await vms.upAs(LEAST, 'a');
    await expectHeld();
  });

  test.each(['nobody', 'a stranger'])(
    'of two daemons at once one gets the device, while %s has its first name',
    async (who) => {
      if (who !== 'nobody') await strangers.start([...AS_USER, process.execPath, SQUAT, 'inlay/inlay0']);
      for (let round = 0; round < 3; round++) {
        const one = (name: string) => {
          const script = `exec ${shellLine([process.execPath, CLI, 'up', ...UP, '--run-dir', `/run/race-${name}`])} 2>/run/race-${name}.log`;
          return vms.lab.start('a', ['sh', '-c', script], { stdio: 'ignore' });
        };
        const racers = ['x', 'y'].map((name) => ({ name, child: one(name) }));
        const loser = await Promise.race(
          racers.map(async (racer) => {
            await once(racer.child, 'exit');
            return racer;
          }),
        );
        const winner = racers.find((racer) => racer !== loser) as (typeof racers)[number];
        expect(await sh(`cat /run/race-${loser.name}.log`)).toContain('another Inlay daemon has the device inlay0');
        const { stdout } = await inlay('status', `/run/race-${winner.name}`, '--wait', '15', '--json');
        const { pid, state } = JSON.parse(stdout);
        expect(state).toBe('running');
        const ended = once(winner.child, 'exit');
        await vms.lab.must('a', ['kill', String(pid)]);
        await ended;
        for (const { name } of racers) expect(await inlay('down', `/run/race-${name}`)).toMatchObject({ code: 0 });
      }
    },
  );
});

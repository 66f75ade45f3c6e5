/** This VM's underlay address: `up` waits for it, chooses between several, remembers the last, and says when it is gone. */
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { plainErrors } from '../../src/log.ts';
import { withoutCatchAllRoute, withoutCatchAllRules } from '../net/catch-all.ts';
import { missing, skip } from '../net/require.ts';
import { type Daemon, PATIENCE, Vms } from '../net/vms.ts';

const ADDRESS = '192.168.16.32/16';
const reason = await missing('bridge', 'ping', 'tc');

describe.skipIf(skip('underlay', reason)).each(['wasm', 'kernel'] as const)('underlay, %s', (plane) => {
  let vms: Vms;
  let calm: unknown;

  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
    await vms.up('b');
    calm = await vms.network('a');
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.lab.run('a', ['sh', '-c', 'ip -4 address flush dev eth0; ip -4 address flush dev lo']);
    await vms.ip('a', `address add ${ADDRESS} dev eth0`, 'address add 127.0.0.1/8 dev lo', 'link set eth0 up');
    await vms.lab.run(undefined, ['rm', '-f', '/run/a.log']);
  });
  afterAll(() => vms?.close());

  const lines = async () =>
    (await vms.log('a'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  const said = async (message: string) => (await lines()).filter(({ msg }) => String(msg).startsWith(message));
  const flows = async () => {
    await expect.poll(() => vms.pings('a', vms.overlay('b'), 3), PATIENCE).toBe('3');
    await expect.poll(() => vms.pings('b', vms.overlay('a'), 3), PATIENCE).toBe('3');
  };
  const stateIs = (state: string) => expect.poll(async () => (await vms.status('a')).state, PATIENCE).toBe(state);

  describe('there is none at the start', () => {
    const NONE = 'this machine has no address inside the underlay 192.168.0.0/16: it has 127.0.0.1 on lo';
    const HINT = 'correct the underlay prefix, or give this VM an address in it';

    /** Starts a daemon that waits. */
    async function begin(...flags: string[]): Promise<{ pid: number; ended: Promise<unknown[]> }> {
      const shell = ['sh', '-c', 'exec "$@" 2>/run/a.log', 'sh', ...vms.words('a', ...flags)];
      const child = vms.lab.start('a', shell, { stdio: 'ignore' });
      const ended = once(child, 'exit');
      await expect.poll(async () => (await vms.status('a').catch(() => undefined))?.state, PATIENCE).toBe('waiting');
      return { pid: (await vms.status('a')).pid, ended };
    }
    const kill = (signal: string, pid: number) => vms.lab.must(undefined, ['kill', `-${signal}`, String(pid)]);

    test('it waits, says for what, and is ready when the address comes', async () => {
      await vms.ip('a', `address del ${ADDRESS} dev eth0`);
      const { pid, ended } = await begin();
      expect(await vms.status('a')).toMatchObject({
        ...{ state: 'waiting', troubles: [{ what: NONE, hint: HINT }], repaired: 0 },
        ...{ pid, vm: '', overlayAddress: '', device: 'inlay0', mtu: 0, tunnels: 0 },
      });
      expect(await vms.inlay('a', 'status', '--wait', '0.2')).toMatchObject({
        code: 1,
        stderr: `inlay: the daemon is waiting, not ready after 0.2 s: ${NONE}\n`,
      });
      const { code, stdout } = await vms.inlay('a', 'status');
      expect([code, stdout]).toEqual([
        0,
        expect.stringMatching(/^state +waiting for .*\ntrouble +this machine has no .*\n +hint: /),
      ]);
      // The catch-all comes before all else.
      expect(withoutCatchAllRoute(await vms.json('a', 'ip', '-j', 'route'))).toEqual([]);
      withoutCatchAllRules(await vms.json('a', 'ip', '-j', 'rule'));

      await vms.ip('a', `address add ${ADDRESS} dev eth0`);
      await stateIs('running');
      expect(await vms.status('a')).toMatchObject({ pid, vm: '192.168.16.32', troubles: [], repaired: 0 });
      await flows();
      expect(await said('waiting')).toMatchObject([{ level: 'warn', msg: `waiting: ${NONE}`, hint: HINT }]);
      expect(await said('underlay address')).toMatchObject([{ address: '192.168.16.32', device: 'eth0' }]);
      expect(await said('ready')).toHaveLength(1);
      await kill('TERM', pid);
      expect(await ended).toEqual([0, null]);
    });

    test.each(['TERM', 'INT'])(
      'SIG%s while it waits ends it with 0, and leaves the network as it was',
      async (signal) => {
        await vms.ip('a', `address del ${ADDRESS} dev eth0`);
        const before = await vms.network('a');
        const { pid, ended } = await begin();
        expect(await vms.network('a')).not.toEqual(before);
        await kill(signal, pid);
        expect(await ended).toEqual([0, null]);
        // With it, the run directory.
        expect(await vms.network('a')).toEqual(before);
        expect((await lines()).filter(({ level }) => level === 'error')).toEqual([]);
      },
    );

    test('it waits no longer than --wait says, and leaves the network as it was', async () => {
      await vms.ip('a', `address del ${ADDRESS} dev eth0`);
      const before = await vms.network('a');
      const since = performance.now();
      const { code, stderr } = await vms.lab.run('a', vms.words('a', '--wait', '1'));
      const says = expect.stringMatching(new RegExp(`\ninlay: ${NONE}\nhint: ${HINT}\n$`));
      expect([code, plainErrors(stderr)]).toEqual([78, says]);
      expect(performance.now() - since).toBeGreaterThan(1000);
      expect(await vms.network('a')).toEqual(before);
    });

    test('it waits for the address that is asked for, whatever others there are', async () => {
      const { pid, ended } = await begin('--local', '192.168.16.40');
      expect(await vms.status('a')).toMatchObject({
        troubles: [{ what: expect.stringContaining('local address 192.168.16.40 is not on this machine: it has ') }],
      });
      await vms.ip('a', 'address add 192.168.16.40/16 dev eth0');
      await stateIs('running');
      expect(await vms.status('a')).toMatchObject({ vm: '192.168.16.40', overlayAddress: '10.16.40.1' });
      await kill('TERM', pid);
      expect(await ended).toEqual([0, null]);
    });
  });

  describe('there are several', () => {
    /** Lines for `ip`, from no address on; what the log then says. */
    const choices: { name: string; network: string[]; address: string; device: string; others: string }[] = [
      {
        name: 'one of a single host, on another device',
        network: ['address add 192.168.9.9/32 dev lo', `address add ${ADDRESS} dev eth0`],
        ...{ address: '192.168.16.32', device: 'eth0', others: '192.168.9.9 on lo' },
      },
      {
        name: 'one of a single host, on the same device',
        network: ['address add 192.168.9.9/32 dev eth0', `address add ${ADDRESS} dev eth0`],
        ...{ address: '192.168.16.32', device: 'eth0', others: '192.168.9.9 on eth0' },
      },
      {
        name: 'a secondary one',
        network: [`address add ${ADDRESS} dev eth0`, 'address add 192.168.9.9/16 dev eth0'],
        ...{ address: '192.168.16.32', device: 'eth0', others: '192.168.9.9 on eth0' },
      },
      {
        name: 'both',
        network: [
          ...['address add 192.168.9.8/32 dev lo', `address add ${ADDRESS} dev eth0`],
          'address add 192.168.9.9/16 dev eth0',
        ],
        ...{ address: '192.168.16.32', device: 'eth0', others: '192.168.9.8 on lo, 192.168.9.9 on eth0' },
      },
    ];

    test.each(choices)(
      '$name gives way to the primary one of a subnet',
      async ({ network, address, device, others }) => {
        await vms.ip('a', 'address flush dev eth0', ...network);
        const a = await vms.up('a');
        expect(await vms.status('a')).toMatchObject({ state: 'running', vm: address });
        expect(await said('underlay address')).toMatchObject([{ level: 'info', address, device, others }]);
        await flows();
        await vms.end('TERM', a);
      },
    );

    test('where there is nothing to choose, the log names no others', async () => {
      await vms.ip(
        'a',
        'address flush dev eth0',
        'address add 192.168.16.32/32 dev lo',
        'route add 192.168.0.0/16 dev eth0',
      );
      await vms.up('a');
      const [line] = await said('underlay address');
      expect(line).toMatchObject({ address: '192.168.16.32', device: 'lo' });
      expect(line).not.toHaveProperty('others');
    });

    test.each(['TERM', 'KILL'])('after SIG%s, the one that was used last wins, until down', async (signal) => {
      await vms.end(signal, await vms.up('a'));
      // By the rule alone it would be the other one.
      await vms.ip(
        'a',
        'address flush dev eth0',
        'address add 192.168.9.9/16 dev eth0',
        `address add ${ADDRESS} dev eth0`,
      );
      const second = await vms.up('a');
      expect(await vms.status('a')).toMatchObject({ vm: '192.168.16.32' });
      expect((await said('underlay address')).at(-1)).toMatchObject({
        ...{ address: '192.168.16.32', others: '192.168.9.9 on eth0' },
      });
      await vms.end(signal, second);
      // Without it, nothing decides between two equal ones: the last one does.
      await vms.ip('a', 'address add 192.168.10.1/24 dev lo');
      await vms.end(signal, await vms.up('a'));
      expect((await said('underlay address')).at(-1)).toMatchObject({ address: '192.168.16.32' });

      expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
      expect(await vms.lab.run('a', vms.words('a'))).toMatchObject({
        code: 78,
        stderr: expect.stringContaining('several addresses are inside the underlay 192.168.0.0/16: '),
      });
      await vms.ip('a', 'address del 192.168.10.1/24 dev lo');
      await vms.up('a');
      expect(await vms.status('a')).toMatchObject({ vm: '192.168.9.9' });
    });

    test('--local wins over the last one, and is the last one then', async () => {
      await vms.ip('a', 'address add 192.168.9.9/16 dev eth0');
      await vms.end('TERM', await vms.up('a'));
      await vms.end('TERM', await vms.up('a', '--local', '192.168.9.9'));
      await vms.up('a');
      expect(await vms.status('a')).toMatchObject({ vm: '192.168.9.9' });
    });

    test.each([
      ['no mesh', 'nonsense\n'],
      ['empty', ''],
      [
        'of another underlay',
        '{"vm":"172.16.0.1","mtu":1476,"coolDown":60,"mappings":[{"overlay":"10.0.0.0/8","underlay":"172.16.0.0/16"}]}\n',
      ],
    ])('a note of the last one that is %s decides nothing', async (_, note) => {
      await vms.lab.must('a', ['sh', '-c', `mkdir ${vms.runDir('a')} && cat >${vms.runDir('a')}/mesh.json`], note);
      await vms.ip('a', 'address add 192.168.9.9/16 dev eth0');
      await vms.up('a');
      expect(await vms.status('a')).toMatchObject({ vm: '192.168.16.32' });
      const left = JSON.parse(await vms.lab.must('a', ['cat', `${vms.runDir('a')}/mesh.json`]));
      const mappings = [{ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' }];
      expect(left).toEqual({ vm: '192.168.16.32', mtu: expect.any(Number), coolDown: 60, mappings });
    });
  });

  describe('it goes while the daemon runs', () => {
    let a: Daemon;
    const GONE = 'underlay address 192.168.16.32 has gone';

    test.each([
      ['and nothing comes', [], 'none at all'],
      ['and another comes', ['address add 192.168.9.9/16 dev eth0'], '192.168.9.9 on eth0'],
    ])('%s: it says so once, and is running again when the address is back', async (_, lines, has) => {
      a = await vms.up('a');
      await flows();
      await vms.ip('a', `address del ${ADDRESS} dev eth0`, ...lines);
      await stateIs('degraded');
      const troubles = async () => (await vms.status('a')).troubles;
      expect(await troubles()).toMatchObject([{ what: expect.stringContaining(GONE), hint: expect.any(String) }]);
      await expect.poll(async () => JSON.stringify(await troubles()), PATIENCE).toContain(has);
      // The state is one that `status --wait` takes, and people are told why.
      const { code, stdout } = await vms.inlay('a', 'status', '--wait', '1');
      expect([code, stdout]).toEqual([
        0,
        expect.stringMatching(/^state +degraded for .*\ntrouble +underlay address .*\n +hint: /),
      ]);
      // Several looks later, and whatever other addresses come and go, it has been told once still.
      for (const n of [1, 2, 3]) {
        for (const verb of ['add', 'del']) {
          await vms.ip('a', `address ${verb} 172.16.${n}.1/24 dev eth0`);
          await new Promise((resolve) => setTimeout(resolve, 250));
        }
      }
      expect(await vms.status('a')).toMatchObject({ state: 'degraded', pid: a.pid });
      expect(await said('degraded')).toMatchObject([
        { level: 'warn', msg: expect.stringContaining(`degraded: ${GONE}`) },
      ]);
      expect(await said('running again')).toEqual([]);

      const back = lines.map((line) => line.replace(' add ', ' del '));
      await vms.ip('a', ...back, `address add ${ADDRESS} dev eth0`);
      await stateIs('running');
      await flows();
      expect(await vms.status('a')).toMatchObject({ state: 'running', pid: a.pid, troubles: [] });
      expect(await said('running again')).toMatchObject([{ level: 'info' }]);
      expect(await said('over')).toMatchObject([{ level: 'info', trouble: expect.stringContaining(GONE) }]);
      expect(await said('degraded')).toHaveLength(1);
      await vms.end('TERM', a);
      expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
      expect(await vms.network('a')).toEqual(calm);
    });
  });
});

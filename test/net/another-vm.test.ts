/** A VM that gets another underlay address is another VM: what becomes of its containers, and what is said meanwhile. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REASONS } from '../../src/containers/reasons.ts';
import { missing, skip } from './require.ts';
import { type Daemon, PATIENCE, Vms } from './vms.ts';

describe.skipIf(skip('another VM', await missing('ping')))('a VM with another underlay address', () => {
  let vms: Vms;
  let a: Daemon;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a');
    await vms.lab.ip(undefined, ['netns add c1']);
    a = await vms.up('a');
  });
  afterAll(() => vms?.close());

  const remarks = async () => (await vms.status('a')).remarks ?? [];
  const lo = () => vms.lab.must('a', ['ip', '-4', 'address', 'show', 'dev', 'lo']);

  test('has a remark about containers of the VM that it was, until they are detached', async () => {
    const { stdout } = await vms.inlay('a', 'attach', 'c1', '--id', 'web', '--json');
    const { address } = JSON.parse(stdout);
    expect(await lo()).toContain(vms.overlay('a'));
    await vms.end('TERM', a);
    await vms.ip('a', `address del ${vms.underlay('a')}/16 dev eth0`, 'address add 192.168.16.99/16 dev eth0');
    a = await vms.up('a');
    const expected = {
      what: expect.stringContaining(`1 container is attached as another VM (${address})`),
      hint: expect.stringContaining('inlay detach --id web --ifname eth0'),
    };
    await expect.poll(remarks, PATIENCE).toContainEqual(expect.objectContaining(expected));
    // Its route needs it.
    expect(await lo()).toContain(vms.overlay('a'));
    expect(await vms.inlay('a', 'detach', '--id', 'web', '--ifname', 'eth0')).toMatchObject({ code: 0 });
    await expect.poll(remarks, PATIENCE).not.toContainEqual(expect.objectContaining(expected));
    await vms.end('TERM', a);
    a = await vms.up('a');
    expect(await lo()).not.toContain(vms.overlay('a'));
    expect(await vms.log('a')).toContain('removed what attaching left when this was another VM');
  });

  test('says that the daemon waits while there is no address, and detaches nothing then without an error', async () => {
    await vms.end('TERM', a);
    await vms.inlay('a', 'down');
    await vms.ip('a', 'address flush dev eth0');
    const attach = () => vms.inlay('a', 'attach', 'c1');
    expect(await attach()).toMatchObject({ code: REASONS['no-mesh'].exit });
    const child = vms.lab.start('a', vms.words('a', '--wait', '60'), { stdio: 'ignore' });
    const state = async () => (await vms.status('a').catch(() => undefined))?.state;
    await expect.poll(state, PATIENCE).toBe('waiting');
    const { code, stderr } = await attach();
    expect([code, stderr]).toEqual([
      REASONS['no-underlay'].exit,
      expect.stringContaining(`the daemon of ${vms.runDir('a')} waits for an underlay address`),
    ]);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await vms.lab.must('a', ['kill', String((await vms.status('a')).pid)]);
    await ended;
  });
});

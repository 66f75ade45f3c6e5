/** An ordinary user with CAP_NET_ADMIN alone runs the kernel data plane; without CAP_BPF sources are not checked, which is said. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { KernelVms } from './kernel-vms.ts';
import { missing, notRoot, skip } from './require.ts';

const USER = 65534;
const withOnly = (capabilities: string) => [
  ...['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'],
  ...['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,${capabilities}`),
];

const needed = (await missing('ping', 'tc', 'bridge', 'setpriv')) ?? notRoot;

describe.skipIf(skip('kernel privileges', needed))('kernel privileges', () => {
  let vms: KernelVms;
  let calm: unknown;
  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b');
    await vms.lab.must(undefined, ['chown', String(USER), '/run/a.d']);
    calm = await vms.network('a');
    await vms.up('b');
  });
  afterEach(() => vms.reset('a'));
  afterAll(() => vms?.close());

  const works = async () => {
    expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
    expect(await vms.pings('b', vms.overlay('a'), 3)).toBe('3');
    await vms.expectEntries('a', 'b');
  };

  test('CAP_NET_ADMIN is enough to forward; the status and the log say that sources are not checked', async () => {
    const a = await vms.upAs(withOnly('+net_admin'), 'a');
    expect(await vms.lab.must(undefined, ['cat', `/proc/${a.pid}/status`])).toMatch(/^CapEff:\s0{12}1000$/m);
    await works();
    const status = await vms.status('a');
    expect(status).toMatchObject({ sourceCheck: 'off', sourceCheckObstacle: 'CAP_BPF is missing', tunnels: 1 });
    // Then the device's own counters tell.
    expect(status.outbound).toMatchObject({ packets: 6, received: 6, drops: {} });
    expect(status.inbound).toMatchObject({ packets: 6, received: 6, drops: {} });
    const warning = (await vms.log('a')).split('\n').find((line) => line.includes('sources are not checked'));
    expect(JSON.parse(warning as string)).toMatchObject({ level: 'warn', obstacle: 'CAP_BPF is missing' });
    expect(await vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'inlay0', 'ingress'])).toBe('');
    expect(await vms.end('TERM', a)).toBe(0);
    const words = withOnly('+net_admin');
    expect(
      await vms.lab.run('a', [
        ...words,
        process.execPath,
        ...vms.words('a').slice(1, 2),
        'down',
        '--run-dir',
        vms.runDir('a'),
      ]),
    ).toMatchObject({ code: 0, stderr: '' });
    expect(await vms.network('a')).toEqual(calm);
  });

  test('with CAP_BPF, too, they are checked', async () => {
    await vms.upAs(withOnly('+net_admin,+bpf'), 'a');
    await works();
    expect(await vms.status('a')).toMatchObject({ sourceCheck: 'on', inbound: { packets: 6 } });
  });

  test('after a daemon that checked, one that may not says off', async () => {
    // Root starts no daemon in a folder of another user.
    await vms.lab.must(undefined, ['chown', '0', '/run/a.d']);
    const first = await vms.up('a');
    await vms.end('TERM', first);
    // What is left is root's: the directory too.
    await vms.lab.must(undefined, ['chown', '-R', String(USER), '/run/a.d']);
    await vms.upAs(withOnly('+net_admin'), 'a');
    await works();
    expect(await vms.status('a')).toMatchObject({ sourceCheck: 'off' });
  });

  test('without CAP_NET_ADMIN it does not start, and says what is missing', async () => {
    const { code, stderr } = await vms.lab.run('a', [...withOnly('+net_raw'), ...vms.words('a')]);
    expect([code, stderr]).toEqual([77, expect.stringContaining('missing CAP_NET_ADMIN')]);
    expect(await vms.network('a')).toEqual(calm);
  });
});

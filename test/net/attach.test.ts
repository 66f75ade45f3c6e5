/** A daemon that attaches containers for CNI's shim: what the shim sends, over the socket that is for it. */
import http from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ContainerStatus } from '../../src/containers/list.ts';
import { missing, skip } from './require.ts';
import { type Daemon, PATIENCE, Vms } from './vms.ts';

const MANY = 50;
/** Each may start Node. */
const FEW = 24;

describe.skipIf(skip('attaching by the daemon', await missing('ping')))('a daemon that attaches', () => {
  let vms: Vms;
  let a: Daemon;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
    a = await vms.up('a', '--attach', 'on', '--address-cool-down', '1s');
    await vms.up('b');
    await vms.lab.ip(
      undefined,
      Array.from({ length: MANY }, (_, i) => `netns add c${i}`),
    );
  });
  afterAll(() => vms?.close());

  interface Reply {
    status: number | undefined;
    body: string;
  }
  const ask = (command: string, id: string, config: object = {}, socket = 'attach.sock'): Promise<Reply> => {
    const whole = { cniVersion: '1.0.0', name: 'mesh', type: 'inlay-cni', runDir: vms.runDir('a'), ...config };
    const env = { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: `/run/netns/${id}`, CNI_IFNAME: 'eth0' };
    const body = String(new URLSearchParams({ ...env, config: JSON.stringify(whole) }));
    const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': body.length };
    const socketPath = vms.lab.path(`${vms.runDir('a')}/${socket}`);
    return new Promise((resolve, reject) => {
      const request = http.request({ socketPath, path: '/cni', method: 'POST', headers }, async (response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString() });
      });
      request.on('error', reject).end(body);
    });
  };
  const attached = async () => (await vms.status('a')).containers;
  const listed = async () =>
    JSON.parse((await vms.inlay('a', 'containers', '--json')).stdout).containers as ContainerStatus[];
  const DONE = { status: 200, body: '' };

  test('adds, checks and deletes a container, again and again', async () => {
    const { status, body } = await ask('ADD', 'c0');
    expect(status).toBe(200);
    const result = JSON.parse(body);
    expect(result).toMatchObject({ cniVersion: '1.0.0', ips: [{ gateway: vms.overlay('a') }] });
    expect(await vms.pings('c0', vms.overlay('b'), 2)).toBe('2');
    expect(await ask('CHECK', 'c0', { prevResult: result })).toEqual(DONE);
    await expect.poll(attached, PATIENCE).toEqual({ attached: 1, attach: 'on' });
    expect((await vms.inlay('a', 'status')).stdout).toMatch(
      /^containers +1 attached .*; the daemon attaches for CNI$/m,
    );
    for (let i = 0; i < 3; i++) expect(await ask('DEL', 'c0')).toEqual(DONE);
    await expect.poll(attached, PATIENCE).toEqual({ attached: 0, attach: 'on' });
  });

  test.each([
    ['ADD', 'nobody', {}, 400, { code: 100 }],
    ['ADD', 'c0', { overlay: '10.0.0.0/8', underlay: '172.16.0.0/16' }, 400, { code: 7 }],
    ['ADD', 'c0', { runDir: '/run/other' }, 404, { error: expect.stringContaining('another daemon') }],
    ['VERSION', '', {}, 200, { supportedVersions: expect.arrayContaining(['1.1.0']) }],
  ])('%s %s %o: %i', async (command, id, config, status, body) => {
    const reply = await ask(command, id, config);
    expect([reply.status, JSON.parse(reply.body)]).toEqual([status, expect.objectContaining(body)]);
  });

  test(`${MANY} come at once and go at once, while the daemon answers others`, async () => {
    const names = Array.from({ length: MANY }, (_, i) => `c${i}`);
    const storm = async (command: string) => {
      const replies = Promise.all(names.map((name) => ask(command, name)));
      await attached();
      return (await replies).map(({ status }) => status);
    };
    const all200 = names.map(() => 200);
    expect(await storm('ADD')).toEqual(all200);
    expect(await vms.pings(`c${MANY - 1}`, vms.overlay('b'), 2)).toBe('2');
    const found = await listed();
    expect(new Set(found.map(({ address }) => address)).size).toBe(MANY);
    await expect.poll(attached, PATIENCE).toMatchObject({ attached: MANY });
    expect(await storm('DEL')).toEqual(all200);
    expect(await listed()).toEqual([]);
    await expect.poll(attached, PATIENCE).toMatchObject({ attached: 0 });
    expect((await vms.lab.must('a', ['ip', '-br', 'link'])).match(/\binl[a-z2-7]{12}/g)).toBeNull();
    expect((await vms.status('a')).repaired).toBe(0);
  });

  test('calls about one container stay in order, whatever else waits', async () => {
    const replies = await Promise.all(
      ['ADD c0', 'ADD c1', 'DEL c0', 'DEL c2', 'ADD c0', 'DEL c1'].map((words) =>
        ask(...(words.split(' ') as [string, string])),
      ),
    );
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200));
    expect((await listed()).map(({ namespace }) => namespace)).toEqual(['c0']);
    expect(await ask('DEL', 'c0')).toEqual(DONE);
  });

  test('the socket is for the user of the daemon alone, and the other one attaches nothing', async () => {
    const { stdout } = await vms.lab.run('a', ['stat', '-c', '%a', `${vms.runDir('a')}/attach.sock`]);
    expect(stdout).toBe('600\n');
    expect(await ask('ADD', 'c0', {}, 'control.sock')).toMatchObject({ status: 404 });
    expect(await listed()).toEqual([]);
  });

  test('without the setting there is no socket for it; a container stays', async () => {
    expect(await ask('ADD', 'c0')).toMatchObject({ status: 200 });
    await vms.end('TERM', a);
    a = await vms.up('a');
    await expect(ask('DEL', 'c0')).rejects.toThrow('ENOENT');
    await expect.poll(attached, PATIENCE).toEqual({ attached: 1, attach: 'off' });
    expect(await vms.pings('c0', vms.overlay('b'), 2)).toBe('2');
    expect(await vms.inlay('a', 'detach', '--all')).toMatchObject({ code: 0 });
  });

  test('no call of the shim fails because the daemon ends meanwhile', async () => {
    await vms.end('TERM', a);
    a = await vms.up('a', '--attach', 'on');
    const folders = ['--bin-dir', '/run/bin', '--conf-dir', '/run/net.d'];
    expect(await vms.inlay('a', 'cni', 'install', ...folders)).toMatchObject({ code: 0 });
    const shim = async (command: string, id: string) => {
      const env = { CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: `/run/netns/${id}`, CNI_IFNAME: 'eth0' };
      const words = Object.entries(env).map(([key, value]) => `${key}=${value}`);
      const config = { cniVersion: '1.0.0', name: 'mesh', type: 'inlay-cni', runDir: vms.runDir('a') };
      const { code, stdout, stderr } = await vms.lab.run(
        'a',
        ['env', ...words, '/run/bin/inlay-cni'],
        JSON.stringify(config),
      );
      return code === 0 ? '' : `${stdout}${stderr}`;
    };
    const storm = async (command: string) => {
      const calls = Array.from({ length: FEW }, (_, i) => shim(command, `c${i}`));
      await Promise.any(calls);
      await vms.end('TERM', a);
      const failed = (await Promise.all(calls)).filter((text) => text !== '');
      a = await vms.up('a', '--attach', 'on');
      return failed;
    };
    expect(await storm('ADD')).toEqual([]);
    expect(new Set((await listed()).map(({ address }) => address)).size).toBe(FEW);
    expect(await storm('DEL')).toEqual([]);
    expect(await listed()).toEqual([]);
  });

  test('without CAP_SYS_ADMIN it does not start, and says what is missing', async () => {
    await vms.end('TERM', a);
    const words = [
      'setpriv',
      '--bounding-set=-sys_admin',
      '--inh-caps=-sys_admin',
      ...vms.words('a', '--attach', 'on'),
    ];
    const { code, stderr } = await vms.lab.run('a', words);
    expect(code).toBe(77);
    expect(stderr).toContain('missing CAP_SYS_ADMIN: attaching containers needs it (attach on)');
    expect(stderr).toContain('CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN');
  });
});
